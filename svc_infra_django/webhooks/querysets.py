"""Questions about endpoints, messages and deliveries, and the few statements that must be one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import orjson
from django.apps import apps
from django.db import connections, models, router, transaction
from django.db.models import Exists, F, OuterRef, Q

from ..rows import OwnedQuerySet
from .queue import DeliveryQueue
from .statements import connection_of, read_id, stored_id, stored_moment, table_of

if TYPE_CHECKING:
    from .models import Delivery, Endpoint, Message, Replay  # noqa: F401 - the type parameters below

NewDelivery = tuple[UUID, UUID, UUID, datetime]
"""Id, message, endpoint, and when it is due."""

INSERT_BATCH = 1_000

UNANSWERED = "It has not answered the challenge yet."

STRANDING_TIME = timedelta(hours=1)
"""Longer than any transaction that saw the endpoint enabled."""


class Listener(NamedTuple):
    """An endpoint that may hear something, and the patterns that say what."""

    id: UUID
    tenant: str
    owner_id: Any
    patterns: list[str]


class DataSchema(NamedTuple):
    """The JSON Schema of an event type's data, as text, and its version."""

    text: str
    version: int


class EndpointQuerySet(OwnedQuerySet["Endpoint"]):
    def unanswered(self) -> EndpointQuerySet:
        """Endpoints that are paused until they answer the challenge."""
        return self.filter(state="paused", reason=UNANSWERED)

    def paced(self) -> EndpointQuerySet:
        """Endpoints that are served by count: a rate, a cap, or a breaker that is not closed."""
        return self.filter(
            Q(rate_limit__isnull=False) | Q(max_in_flight__isnull=False) | Q(breaker_trips__gt=0)
        )

    def lock_paced_with_work(self, *, now: datetime, limit: int) -> list[Endpoint]:
        """Paced endpoints with something due, the longest unserved first, locked until the commit.

        Those that another deliverer is counting for are skipped, so two never spend the same allowance.
        """
        due = self.model._meta.get_field("deliveries").related_model._default_manager.filter(
            endpoint=OuterRef("pk"), state="pending", due_at__lte=now
        )
        rested = Q(held_until=None) | Q(held_until__lte=now)
        found = self.paced().filter(rested, Exists(due.filter(lane=0)) | Exists(due.filter(lane=1)))
        ordered = found.filter(state="enabled").order_by(F("paced_until").asc(nulls_first=True), "pk")
        return list(ordered.select_for_update(no_key=True, skip_locked=True)[:limit])

    def listening(self, *, tenants: Iterable[str], owner_ids: Iterable[Any]) -> EndpointQuerySet:
        """Endpoints of these tenants that are nobody's or belong to one of these owners."""
        theirs = Q(owner=None) | Q(owner__in=list(owner_ids))
        return self.filter(theirs, tenant__in=list(tenants), state__in=["enabled", "paused"]).order_by()

    def with_event_types(self, names: Iterable[str]) -> tuple[list[Listener], dict[str, DataSchema]]:
        """These endpoints, and the schemas of the event types of these names, in one statement."""
        connection = connection_of(self.model)
        types = table_of(apps.get_model("svc_webhooks", "EventType"))
        names = list(names) or [""]
        no_version = models.Value(None, output_field=models.IntegerField())
        columns = self.values_list("id", "tenant", "owner_id", "event_types", no_version)
        endpoints, values = columns.query.sql_with_params()
        owner = self.model._meta.get_field("owner").target_field
        listeners: list[Listener] = []
        schemas: dict[str, DataSchema] = {}
        with connection.cursor() as cursor:
            cursor.execute(
                f"{endpoints} UNION ALL SELECT NULL, t.name, NULL, t.schema, t.version FROM {types} t"
                f" WHERE t.name IN ({', '.join(['%s'] * len(names))})",
                [*values, *names],
            )
            for pk, text, owner_id, document, version in cursor.fetchall():
                if pk is None:
                    schemas[text] = DataSchema(document, version)
                else:
                    patterns = orjson.loads(document)
                    listeners.append(Listener(read_id(pk), text, owner.to_python(owner_id), patterns))
        return listeners, schemas


class MessageQuerySet(OwnedQuerySet["Message"]):
    def insert_new(
        self, messages: Sequence[Message], deliveries: Sequence[NewDelivery], *, trigger: str, now: datetime
    ) -> set[UUID]:
        """Insert messages with their deliveries, leaving out those whose idempotency key is taken.

        Returns the ids of the inserted. All are inserted or none: for every thousand messages by one
        statement on PostgreSQL, which is a transaction already, and by two on SQLite. An endpoint that
        somebody deletes in this moment is left out: whoever publishes must not fail for it when they
        commit.
        """
        connection = connection_of(self.model)
        is_one_statement = connection.vendor == "postgresql" and len(messages) <= INSERT_BATCH
        new: set[UUID] = set()
        # Nothing here fails in a way that its caller could go on after, so it needs no savepoint of its own.
        with (
            transaction.mark_for_rollback_on_error(using=connection.alias)
            if is_one_statement
            else transaction.atomic(using=connection.alias, savepoint=False)
        ):
            for first in range(0, len(messages), INSERT_BATCH):
                batch = messages[first : first + INSERT_BATCH]
                theirs = {message.pk for message in batch}
                rows = [row for row in deliveries if row[1] in theirs]
                new |= self._insert_batch(batch, rows, trigger=trigger, now=now)
        return new

    def _insert_batch(
        self, messages: Sequence[Message], deliveries: Sequence[NewDelivery], *, trigger: str, now: datetime
    ) -> set[UUID]:
        connection = connection_of(self.model)
        insert, values = self._insert(messages, connection)
        with connection.cursor() as cursor:
            if connection.vendor != "postgresql" or not deliveries:
                cursor.execute(insert, values)
                new = {read_id(found) for (found,) in cursor.fetchall()}
                if rows := [row for row in deliveries if row[1] in new]:
                    cursor.execute(*self._insert_deliveries("", rows, connection, trigger=trigger, now=now))
                return new
            fresh = "JOIN m ON m.id = fresh.message"
            spread, more = self._insert_deliveries(fresh, deliveries, connection, trigger=trigger, now=now)
            cursor.execute(
                f"WITH m AS ({insert}), d AS ({spread}) SELECT id FROM m",
                [*values, *more],
            )
            return {found for (found,) in cursor.fetchall()}

    def _insert(self, messages: Sequence[Message], connection: Any) -> tuple[str, list[Any]]:
        fields = self.model._meta.concrete_fields
        columns = ", ".join(connection.ops.quote_name(field.column) for field in fields)
        row = f"({', '.join(['%s'] * len(fields))})"
        values = [
            field.get_db_prep_save(getattr(message, field.attname), connection)
            for message in messages
            for field in fields
        ]
        sql = f"INSERT INTO {table_of(self.model)} ({columns}) VALUES {', '.join([row] * len(messages))}"
        return f"{sql} ON CONFLICT DO NOTHING RETURNING id", values

    def _insert_deliveries(
        self, only: str, rows: Sequence[NewDelivery], connection: Any, *, trigger: str, now: datetime
    ) -> tuple[str, list[Any]]:
        delivery = self.model._meta.get_field("deliveries").related_model
        endpoints = table_of(delivery._meta.get_field("endpoint").related_model)
        values: list[Any]
        if connection.vendor == "postgresql":
            arrays = ", ".join(f"%s::{kind}[]" for kind in ("uuid", "uuid", "uuid", "timestamptz"))
            fresh = (
                f"unnest({arrays}) AS fresh(id, message, endpoint, due) {only}"
                f" JOIN {endpoints} e ON e.id = fresh.endpoint FOR KEY SHARE OF e"
            )
            values = [list(column) for column in zip(*rows, strict=True)]
        else:
            names = ("id", "message", "endpoint", "due")
            fields = ", ".join(f"json_extract(value, '$[{n}]') AS {name}" for n, name in enumerate(names))
            fresh = f"(SELECT {fields} FROM json_each(%s)) AS fresh"
            told = [
                [*(stored_id(connection, one) for one in ids), stored_moment(connection, due)]
                for *ids, due in rows
            ]
            values = [orjson.dumps(told).decode()]
        sql = f"""
            INSERT INTO {table_of(delivery)} (id, message_id, endpoint_id, due_at, state, lane, trigger,
                attempts, attempts_before, epoch, last_error, created_at)
            SELECT fresh.*, 'pending', CASE WHEN fresh.due > %s THEN 2 ELSE 0 END, %s, 0, 0, 0, '', %s
            FROM {fresh}
        """
        at = stored_moment(connection, now)
        return sql, [at, trigger, at, *values]

    def having_key_of(self, digests: Iterable[str | None]) -> MessageQuerySet:
        """The messages that took these idempotency keys."""
        return self.filter(idempotency_digest__in=list(digests))

    def expungeable(self, *, before: datetime) -> MessageQuerySet:
        """Messages from before then that still have a body and nothing left to deliver."""
        return self.prunable(before=before).filter(expunged_at=None)

    def prunable(self, *, before: datetime) -> MessageQuerySet:
        """Messages from before then with nothing left to deliver."""
        waiting = Q(deliveries__state__in=["pending", "sending"])
        return self.filter(created_at__lt=before).exclude(waiting)


class DeliveryQuerySet(DeliveryQueue):
    def owned_by(self, principal: Any) -> DeliveryQuerySet:
        """Deliveries to the principal's own endpoints."""
        return self.filter(endpoint__owner_id=principal.user.pk, endpoint__tenant=principal.tenant)

    def dead(self) -> DeliveryQuerySet:
        """The dead letters."""
        return self.filter(state="dead")

    def replayable(self) -> DeliveryQuerySet:
        """Dead, or cancelled before they were done."""
        return self.filter(state__in=["dead", "cancelled"])

    def newest_of(self, endpoints: Iterable[UUID], *, each: int) -> dict[UUID, list[tuple[str, int]]]:
        """(state, attempts) of the newest `each` deliveries of every endpoint, the newest last.

        One statement that reads no more rows than it returns, however many are past.
        """
        found: dict[UUID, list[tuple[str, int]]] = {endpoint: [] for endpoint in endpoints}
        if not found:
            return found
        connection = connection_of(self.model)
        deliveries, table = (
            table_of(self.model),
            table_of(self.model._meta.get_field("endpoint").related_model),
        )
        newest = (
            f"FROM {deliveries} w WHERE w.endpoint_id = e.id ORDER BY w.created_at DESC, w.id DESC LIMIT %s"
        )
        if connection.vendor == "postgresql":
            joined = f"CROSS JOIN LATERAL (SELECT w.* {newest}) d"
        else:
            joined = f"JOIN {deliveries} d ON d.id IN (SELECT w.id {newest})"
        sql = f"""
            SELECT e.id, d.state, d.attempts FROM {table} e {joined}
            WHERE e.id IN ({", ".join(["%s"] * len(found))}) ORDER BY d.created_at, d.id
        """
        with connection.cursor() as cursor:
            cursor.execute(sql, [each, *(stored_id(connection, endpoint) for endpoint in found)])
            for endpoint, state, attempts in cursor.fetchall():
                found[read_id(endpoint)].append((state, attempts))
        return found

    def to_replay(self, replay: Replay) -> DeliveryQuerySet:
        """What a replay has still to make due, the oldest first.

        What settled after the replay began is not in it, so nothing is sent twice by one replay.
        """
        states = ["dead", "cancelled"] if replay.only_failed else ["dead", "cancelled", "succeeded"]
        found = self.filter(state__in=states, settled_at__lte=replay.created_at, message__expunged_at=None)
        if replay.endpoint_id is not None:
            found = found.filter(endpoint=replay.endpoint_id)
        if replay.message_id is not None:
            found = found.filter(message=replay.message_id)
        if replay.owner_id is not None:
            found = found.filter(endpoint__owner=replay.owner_id, endpoint__tenant=replay.tenant)
        if begin := replay.reached_at or replay.since:
            found = found.filter(created_at__gte=begin)
        return found.exclude(endpoint__state="disabled").order_by("created_at", "id")

    def make_due(self, *, now: datetime) -> int:
        """Send these again, each with its whole retry schedule before it.

        Those that somebody else made due in this moment, and those without a body, are left out.
        """
        chosen = self.filter(message__expunged_at=None).order_by().values("pk")
        # The state is asked once more outside of the subquery: only there is it asked of the row as it is
        # when its lock is free.
        settled = self.model._default_manager.filter(
            pk__in=chosen, state__in=["dead", "cancelled", "succeeded"]
        )
        return settled.update(
            state="pending",
            lane=1,
            trigger="replay",
            due_at=now,
            attempts_before=F("attempts"),
            settled_at=None,
        )

    def waiting(self) -> DeliveryQuerySet:
        """Still to be sent."""
        return self.filter(state="pending")

    def sending_by_endpoint(self, endpoint_ids: Iterable[UUID]) -> Counter[UUID]:
        """How many requests are under way to each of these endpoints, of all deliverers."""
        sending = self.filter(state="sending", endpoint__in=list(endpoint_ids)).order_by()
        return Counter(dict(sending.values_list("endpoint_id").annotate(n=models.Count("pk"))))

    def cancel_stranded(self, *, now: datetime) -> int:
        """Cancel what came to wait in the moment its endpoint was disabled or its message expunged."""
        then = now - STRANDING_TIME
        # Each is looked up by its key. A join of the three would be their product where PostgreSQL believes
        # the tables empty: it does when it counted them while a large transaction was filling them.
        disabled = Exists(self._of("endpoint").filter(state="disabled", disabled_at__gt=then))
        expunged = Exists(self._of("message").filter(expunged_at__gt=then))
        return self.waiting().filter(disabled | expunged).update(state="cancelled", settled_at=now)

    def _of(self, name: str) -> models.QuerySet[Any]:
        """The row that a delivery points to by this foreign key, for a subquery."""
        to: Any = self.model._meta.get_field(name).related_model
        found: models.QuerySet[Any] = to._default_manager.filter(pk=OuterRef(f"{name}_id"))
        return found

    def promote(self, *, now: datetime, limit: int) -> int:
        """Bring up to `limit` whose time has come to the lanes that are served.

        So a claim walks only where there is work, however many wait for a retry.
        """
        come = self.filter(state="pending", lane=2, due_at__lte=now).order_by("due_at")
        if not come.values("pk")[:1]:
            return 0
        if connections[router.db_for_write(self.model)].features.has_select_for_update_skip_locked:
            come = come.select_for_update(skip_locked=True)
        is_first = Q(attempts=0, trigger__in=["publish", "test"])
        waiting = self.model._default_manager.filter(state="pending", lane=2)
        with transaction.atomic(using=router.db_for_write(self.model)):
            return waiting.filter(pk__in=come.values("pk")[:limit]).update(
                lane=models.Case(models.When(is_first, then=0), default=1)
            )

    def release(self, claimed: Iterable[tuple[UUID, int]], *, now: datetime) -> int:
        """Give claimed (id, epoch) pairs back unsent, due now."""
        return sum(
            self.filter(pk=pk, epoch=epoch, state="sending").update(
                state="pending", lease_until=None, due_at=now
            )
            for pk, epoch in claimed
        )

    def release_expired(self, *, leases_at: datetime, now: datetime) -> int:
        """Make what a lost deliverer held due again, behind the first attempts.

        `leases_at` is now by the clock that the leases go by.
        """
        expired = self.filter(state="sending", lease_until__lt=leases_at)
        return expired.update(state="pending", lease_until=None, lane=1, due_at=now)

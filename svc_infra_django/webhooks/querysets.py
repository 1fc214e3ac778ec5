"""Questions about endpoints, messages and deliveries, and the few statements that must be one.

The queue's statements are SQL by hand: PostgreSQL and SQLite share all but a clause, and the ORM can
say neither "at most so many for each endpoint" nor UPDATE … FROM … RETURNING.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import orjson
from django.apps import apps
from django.db import connections, models, router, transaction
from django.db.models import Exists, F, OuterRef, Q

from ..identifiers import uuid7
from ..rows import OwnedQuerySet

if TYPE_CHECKING:
    from .models import Delivery, Endpoint, Message, Replay  # noqa: F401 - the type parameters below

NIL = UUID(int=0)
LAST = UUID(int=2**128 - 1)

NewDelivery = tuple[UUID, UUID, UUID, datetime]
"""Id, message, endpoint, and when it is due."""

INSERT_BATCH = 1_000
KNOWN_KEYS = 4_096

HEALTHY_SECONDS = 60

STRANDING_TIME = timedelta(hours=1)
"""Longer than any transaction that saw the endpoint enabled."""


class Claimed(NamedTuple):
    """A delivery in one deliverer's hands, with all that sending and judging it needs."""

    id: UUID
    lane: int
    epoch: int
    attempts: int
    attempts_before: int
    trigger: str
    lag: float
    """Seconds since it was due."""
    message_uid: str
    event_type: str
    context: dict[str, str]
    body: bytes
    endpoint_id: UUID
    url: str
    sealed_headers: str
    retry_schedule: list[float] | None
    """The endpoint's, else the event type's; None for the setting's."""
    timeout: float | None
    is_healthy: bool
    """The endpoint has no failures and had a success less than HEALTHY_SECONDS ago."""
    keys: tuple[tuple[UUID, str], ...]
    """Ids and sealed secrets of the signing keys, newest first."""

    def __repr__(self) -> str:
        return f"<Claimed {self.id} epoch {self.epoch}>"


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


@dataclass(frozen=True, slots=True)
class LaneClaim:
    """How many deliveries of a lane to take, beginning behind the endpoint `after`."""

    lane: int
    limit: int
    after: UUID


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a delivery becomes after an attempt, if its epoch is still the one it was sent under."""

    delivery_id: UUID
    epoch: int
    state: str
    due_at: datetime
    status: int | None
    error: str
    trigger: str
    at: datetime
    duration_ms: int
    response_head: str
    response_headers: dict[str, str]


class EndpointQuerySet(OwnedQuerySet["Endpoint"]):
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
        connection = _connection(self.model)
        types = _table(apps.get_model("svc_webhooks", "EventType"))
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
                    listeners.append(Listener(_uuid(pk), text, owner.to_python(owner_id), patterns))
        return listeners, schemas


class MessageQuerySet(OwnedQuerySet["Message"]):
    def insert_new(
        self, messages: Sequence[Message], deliveries: Sequence[NewDelivery], *, trigger: str, now: datetime
    ) -> set[UUID]:
        """Insert messages with their deliveries, leaving out those whose idempotency key is taken.

        Returns the ids of the inserted. One statement on PostgreSQL, two on SQLite, for every thousand
        messages. An endpoint that somebody deletes in this moment is left out: whoever publishes must
        not fail for it when they commit.
        """
        if len(messages) > INSERT_BATCH:
            first, rest = messages[:INSERT_BATCH], messages[INSERT_BATCH:]
            theirs = {message.pk for message in first}
            return self.insert_new(
                first, [row for row in deliveries if row[1] in theirs], trigger=trigger, now=now
            ) | self.insert_new(
                rest, [row for row in deliveries if row[1] not in theirs], trigger=trigger, now=now
            )
        connection = _connection(self.model)
        insert, values = self._insert(messages, connection)
        with connection.cursor() as cursor:
            if connection.vendor != "postgresql" or not deliveries:
                cursor.execute(insert, values)
                new = {_uuid(found) for (found,) in cursor.fetchall()}
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
        sql = f"INSERT INTO {_table(self.model)} ({columns}) VALUES {', '.join([row] * len(messages))}"
        return f"{sql} ON CONFLICT DO NOTHING RETURNING id", values

    def _insert_deliveries(
        self, only: str, rows: Sequence[NewDelivery], connection: Any, *, trigger: str, now: datetime
    ) -> tuple[str, list[Any]]:
        delivery = self.model._meta.get_field("deliveries").related_model
        endpoints = _table(delivery._meta.get_field("endpoint").related_model)
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
            told = [[*(_id(connection, one) for one in ids), _moment(connection, due)] for *ids, due in rows]
            values = [orjson.dumps(told).decode()]
        sql = f"""
            INSERT INTO {_table(delivery)} (id, message_id, endpoint_id, due_at, state, lane, trigger,
                attempts, attempts_before, epoch, last_error, created_at)
            SELECT fresh.*, 'pending', CASE WHEN fresh.due > %s THEN 2 ELSE 0 END, %s, 0, 0, 0, '', %s
            FROM {fresh}
        """
        at = _moment(connection, now)
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


class DeliveryQuerySet(models.QuerySet["Delivery"]):
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
        connection = _connection(self.model)
        deliveries, table = (
            _table(self.model),
            _table(self.model._meta.get_field("endpoint").related_model),
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
            cursor.execute(sql, [each, *(_id(connection, endpoint) for endpoint in found)])
            for endpoint, state, attempts in cursor.fetchall():
                found[_uuid(endpoint)].append((state, attempts))
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

    def claim(
        self,
        lanes: Sequence[LaneClaim],
        *,
        share: int,
        full: Iterable[UUID],
        now: datetime,
        lease_until: datetime,
    ) -> list[Claimed]:
        """Take due deliveries lane by lane, at most `share` for one endpoint in each lane.

        Goes round the endpoints with work in the lane, in order of id, and leaves out those in `full`:
        the backlog of one endpoint costs the others nothing, and deliveries that are done cost nobody.
        Rows that another deliverer is taking are skipped, paced endpoints left to `claim_for`. One
        statement on PostgreSQL; two on SQLite, whose UPDATE cannot return columns of other tables.
        """
        connection = _connection(self.model)
        full = [_id(connection, endpoint) for endpoint in full] or [_id(connection, NIL)]
        at = _moment(connection, now)
        values: list[Any] = []
        if connection.vendor == "postgresql":
            for one in lanes:
                values += [one.lane, one.after, one.limit]
            rows = ", ".join(["(%s::smallint, %s::uuid, %s::int)"] * len(lanes))
            lane = self._round(connection, full, lane="asked.lane", after="asked.after", most="asked.most")
            picked = (
                f"SELECT w.id FROM (VALUES {rows}) AS asked(lane, after, most) CROSS JOIN LATERAL ({lane}) w"
            )
            values += [at, *full, at, share]
        else:
            lane = self._round(connection, full, lane="%s", after="%s", most="%s")
            picked = " UNION ALL ".join([f"SELECT * FROM ({lane})"] * len(lanes))
            for one in lanes:
                after = _id(connection, one.after)
                values += [one.lane, after, one.lane, after, after, after]
                values += [at, *full, one.lane, at, share, one.limit]
        return self._take(picked, values, now=now, lease_until=lease_until)

    def _round(self, connection: Any, full: Sequence[Any], *, lane: str, after: str, most: str) -> str:
        """A walk round the endpoints with work in a lane, from the one behind `after` up to it again."""
        deliveries, endpoints = self._tables
        kind = "UUID " if connection.vendor == "postgresql" else ""
        nil, last = (f"{kind}'{_id(connection, one)}'" for one in (NIL, LAST))
        ahead = f"SELECT q.endpoint_id FROM {deliveries} q WHERE q.state = 'pending' AND q.lane = {lane}"
        due = (
            f"SELECT w.id FROM {deliveries} w WHERE w.state = 'pending' AND w.lane = {lane}"
            " AND w.endpoint_id = e.id AND w.due_at <= %s ORDER BY w.due_at LIMIT %s"
        )
        well = f"""e.id = walk.endpoint_id AND e.state = 'enabled'
            AND (e.held_until IS NULL OR e.held_until <= %s)
            AND e.rate_limit IS NULL AND e.max_in_flight IS NULL AND e.breaker_trips = 0
            AND e.id NOT IN ({", ".join(["%s"] * len(full))})"""
        if connection.vendor == "postgresql":
            # OFFSET 0 keeps the planner from a hash join, which would walk to the end and lose the order.
            served = f"CROSS JOIN LATERAL (SELECT e.id FROM {endpoints} e WHERE {well} OFFSET 0) e"
            taken = f"CROSS JOIN LATERAL ({due} FOR UPDATE SKIP LOCKED) w"
        else:
            served = f"JOIN {endpoints} e ON {well}"
            taken = f"JOIN {deliveries} w ON w.id IN ({due})"
        # At the end of the ids stands NIL, the id of no endpoint, and those after it are the ones behind.
        return f"""
            WITH RECURSIVE walk(endpoint_id) AS (
                SELECT COALESCE(({ahead} AND q.endpoint_id > {after} ORDER BY q.endpoint_id LIMIT 1), {nil})
                UNION ALL
                SELECT COALESCE((
                    {ahead} AND q.endpoint_id > walk.endpoint_id
                    AND q.endpoint_id <= CASE WHEN walk.endpoint_id > {after} THEN {last} ELSE {after} END
                    ORDER BY q.endpoint_id LIMIT 1
                ), CASE WHEN walk.endpoint_id > {after} THEN {nil} END)
                FROM walk WHERE walk.endpoint_id IS NOT NULL
            )
            SELECT w.id FROM walk {served} {taken} LIMIT {most}
        """

    def claim_for(self, shares: Mapping[UUID, int], *, now: datetime, lease_until: datetime) -> list[Claimed]:
        """Take up to so many due deliveries for each of these endpoints, first attempts first."""
        connection = _connection(self.model)
        deliveries, _ = self._tables
        rows = orjson.dumps([[_id(connection, pk), share] for pk, share in shares.items()]).decode()
        at = _moment(connection, now)
        due = "w.state = 'pending' AND w.endpoint_id = s.endpoint AND w.due_at <= %s"
        if connection.vendor == "postgresql":
            lane = (
                f"SELECT * FROM (SELECT w.id, w.lane, w.due_at FROM {deliveries} w WHERE {due}"
                " AND w.lane = %s ORDER BY w.due_at LIMIT s.share FOR UPDATE SKIP LOCKED) locked"
            )
            picked = f"""
                SELECT w.id FROM (
                    SELECT (value->>0)::uuid AS endpoint, (value->>1)::int AS share
                    FROM json_array_elements(%s::json)
                ) s CROSS JOIN LATERAL (
                    SELECT both_lanes.id FROM ({lane} UNION ALL {lane}) both_lanes
                    ORDER BY both_lanes.lane, both_lanes.due_at LIMIT s.share
                ) w
            """
            values = [rows, at, 0, at, 1]
        else:
            picked = f"""
                SELECT ranked.id FROM (
                    SELECT w.id, s.share, row_number() OVER (
                        PARTITION BY w.endpoint_id ORDER BY w.lane, w.due_at
                    ) AS place
                    FROM (
                        SELECT json_extract(value, '$[0]') AS endpoint, json_extract(value, '$[1]') AS share
                        FROM json_each(%s)
                    ) s JOIN {deliveries} w ON {due}
                ) ranked WHERE ranked.place <= ranked.share
            """
            values = [rows, at]
        return self._take(picked, values, now=now, lease_until=lease_until)

    def _take(
        self,
        picked: str,
        values: Sequence[Any],
        *,
        now: datetime,
        lease_until: datetime,
    ) -> list[Claimed]:
        """Claim the ids that `picked` selects with these values, and locks as pending."""
        connection = _connection(self.model)
        deliveries, _ = self._tables
        at = _moment(connection, now)
        facts_values = [_moment(connection, now - timedelta(seconds=HEALTHY_SECONDS)), at, at]
        values = [_moment(connection, lease_until), *values]
        become = "SET state = 'sending', lease_until = %s, epoch = epoch + 1"
        take = f"UPDATE {deliveries} {become} WHERE id"
        with connection.cursor() as cursor:
            if connection.vendor == "postgresql":
                # By an array of ids, since a join may be planned as a walk through all that waits.
                take += f" = ANY(ARRAY({picked})) RETURNING *"
            else:
                cursor.execute(f"{take} IN ({picked}) RETURNING id", values)
                values = [orjson.dumps([pk for (pk,) in cursor.fetchall()]).decode()]
                take = f"SELECT * FROM {deliveries} WHERE id IN (SELECT value FROM json_each(%s))"
            steps = ", ".join([f"taken AS ({take})", *self._facts(connection)])
            cursor.execute(f"WITH {steps} SELECT * FROM facts", [*values, *facts_values])
            return [_claimed(row) for row in cursor.fetchall()]

    def _facts(self, connection: Any) -> tuple[str, ...]:
        """Steps from `taken` to the columns of Claimed. What is an endpoint's is read once for each."""
        _, endpoints = self._tables
        endpoint = self.model._meta.get_field("endpoint").related_model
        keys = _table(endpoint._meta.get_field("signing_keys").related_model)
        types = _table(apps.get_model("svc_webhooks", "EventType"))
        messages = _table(self.model._meta.get_field("message").related_model)
        if connection.vendor == "postgresql":
            pairs = "json_agg(json_build_array(k.id, k.sealed_secret))::text"
            lag = "extract(epoch FROM %s - d.due_at)::float8"
        else:
            pairs = "json_group_array(json_array(k.id, k.sealed_secret))"
            lag = "(julianday(%s) - julianday(d.due_at)) * 86400"
        served = f"""served AS MATERIALIZED (
            SELECT e.id, e.url, e.sealed_headers, e.retry_schedule, e.timeout_seconds,
                e.consecutive_failures = 0 AND COALESCE(e.last_success_at > %s, FALSE) AS is_healthy,
                (SELECT {pairs} FROM (
                    SELECT id, sealed_secret FROM {keys}
                    WHERE endpoint_id = e.id AND (expires_at IS NULL OR expires_at > %s)
                    ORDER BY created_at DESC
                ) k) AS keys
            FROM {endpoints} e WHERE e.id IN (SELECT endpoint_id FROM taken)
        )"""
        facts = f"""facts AS (
            SELECT d.id, d.lane, d.epoch, d.attempts, d.attempts_before, d.trigger, {lag} AS lag,
                m.uid, m.event_type, m.context, m.body, e.id AS endpoint_id, e.url, e.sealed_headers,
                COALESCE(e.retry_schedule, t.retry_schedule) AS retry_schedule,
                e.timeout_seconds, e.is_healthy, e.keys
            FROM taken d JOIN served e ON e.id = d.endpoint_id JOIN {messages} m ON m.id = d.message_id
            LEFT JOIN {types} t ON t.name = m.event_type AND t.retry_schedule IS NOT NULL
        )"""
        return served, facts

    @property
    def _tables(self) -> tuple[str, str]:
        return _table(self.model), _table(self.model._meta.get_field("endpoint").related_model)

    def settle(self, settlements: Sequence[Settlement], *, now: datetime) -> dict[UUID, int]:
        """Write what became of claimed deliveries, and their attempts; attempts so far by id.

        What another deliverer has claimed since, or somebody has deleted, is left alone and left out.
        One statement on PostgreSQL. SQLite changes one table in a statement: two.
        """
        connection = _connection(self.model)
        deliveries, endpoints = self._tables
        attempts = _table(self.model._meta.get_field("attempt_set").related_model)
        is_native = connection.vendor == "postgresql"
        rows = orjson.dumps([_settlement_row(connection, one) for one in settlements]).decode()
        values = [_moment(connection, now), rows]
        if is_native:
            columns = ", ".join(f"{name} {kind}" for name, kind in SETTLEMENT)
            source = f"SELECT *, %s::timestamptz AS now FROM jsonb_to_recordset(%s::jsonb) AS r({columns})"
        else:
            fields = ", ".join(f"json_extract(value, '$.{name}') AS {name}" for name, _ in SETTLEMENT)
            source = f"SELECT {fields}, %s AS now FROM json_each(%s)"
        messages = _table(self.model._meta.get_field("message").related_model)
        # Whoever was disabled, and what was expunged, while this was under way gets no retry.
        is_over = (
            f"r.state = 'pending' AND (EXISTS (SELECT 1 FROM {endpoints} e"
            " WHERE e.id = d.endpoint_id AND e.state = 'disabled')"
            f" OR EXISTS (SELECT 1 FROM {messages} m"
            " WHERE m.id = d.message_id AND m.expunged_at IS NOT NULL))"
        )
        # `lease_until` says what `state` would, and tempts no planner to go through all that is being sent.
        update = f"""
            UPDATE {deliveries} AS d SET
                state = CASE WHEN {is_over} THEN 'cancelled' ELSE r.state END,
                settled_at = CASE WHEN r.state <> 'pending' OR {is_over} THEN r.now END,
                due_at = COALESCE(r.due_at, r.now), last_status = r.status, last_error = r.error,
                attempts = d.attempts + 1, lease_until = NULL,
                lane = CASE WHEN r.state = 'pending' AND r.due_at > r.now THEN 2 ELSE 1 END,
                trigger = CASE WHEN r.state = 'pending' THEN 'retry' ELSE d.trigger END
            FROM r WHERE d.id = r.id AND d.epoch = r.epoch AND d.lease_until IS NOT NULL
        """
        insert = f"""
            INSERT INTO {attempts} (id, delivery_id, n, at, trigger, status_code, error, duration_ms,
                response_head, response_headers)
            SELECT r.attempt, done.id, done.attempts, r.at, r.trigger, r.status, r.error, r.duration,
                r.head, r.headers
        """
        with connection.cursor() as cursor:
            if is_native:
                cursor.execute(
                    f"WITH r AS ({source}),"
                    f" done AS ({update} AND d.id = ANY(ARRAY(SELECT id FROM r))"
                    " RETURNING d.id, d.attempts),"
                    f" written AS ({insert} FROM done JOIN r ON r.id = done.id)"
                    " SELECT id, attempts FROM done",
                    values,
                )
                return {_uuid(found): attempts for found, attempts in cursor.fetchall()}
            cursor.execute(f"WITH r AS ({source}) {update} RETURNING id, attempts", values)
            done = cursor.fetchall()
            cursor.execute(
                f"WITH r AS ({source}), done AS ("
                " SELECT json_extract(value, '$[0]') AS id, json_extract(value, '$[1]') AS attempts"
                f" FROM json_each(%s)) {insert} FROM done JOIN r ON r.id = done.id",
                [*values, orjson.dumps(done).decode()],
            )
            return {_uuid(found): attempts for found, attempts in done}

    def sending_by_endpoint(self, endpoint_ids: Iterable[UUID]) -> Counter[UUID]:
        """How many requests are under way to each of these endpoints, of all deliverers."""
        sending = self.filter(state="sending", endpoint__in=list(endpoint_ids)).order_by()
        return Counter(dict(sending.values_list("endpoint_id").annotate(n=models.Count("pk"))))

    def cancel_stranded(self, *, now: datetime) -> int:
        """Cancel what came to wait in the moment its endpoint was disabled or its message expunged."""
        then = now - STRANDING_TIME
        lately = Q(endpoint__state="disabled", endpoint__disabled_at__gt=then)
        lately |= Q(message__expunged_at__gt=then)
        return self.waiting().filter(lately).update(state="cancelled", settled_at=now)

    def promote(self, *, now: datetime, limit: int) -> int:
        """Bring up to `limit` whose time has come to the lanes that are served.

        So a claim walks only where there is work, however many wait for a retry.
        """
        come = self.filter(state="pending", lane=2, due_at__lte=now).order_by("due_at")
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

    def release_expired(self, *, now: datetime) -> int:
        """Make what a lost deliverer held due again, behind the first attempts."""
        expired = self.filter(state="sending", lease_until__lt=now)
        return expired.update(state="pending", lease_until=None, lane=1, due_at=now)


SETTLEMENT = (
    ("id", "uuid"), ("epoch", "int"), ("state", "text"), ("due_at", "timestamptz"), ("status", "smallint"),
    ("error", "text"), ("attempt", "uuid"), ("at", "timestamptz"), ("trigger", "text"), ("duration", "int"),
    ("head", "text"), ("headers", "jsonb"),
)  # fmt: skip


def _settlement_row(connection: Any, one: Settlement) -> dict[str, Any]:
    return {
        "id": _id(connection, one.delivery_id),
        "epoch": one.epoch,
        "state": one.state,
        "due_at": _moment(connection, one.due_at) if one.state == "pending" else None,
        "status": one.status,
        "error": one.error,
        "attempt": _id(connection, uuid7()),
        "at": _moment(connection, one.at),
        "trigger": one.trigger,
        "duration": one.duration_ms,
        "head": one.response_head,
        "headers": one.response_headers,
    }


def _claimed(row: tuple[Any, ...]) -> Claimed:
    pk, lane, epoch, attempts, before, trigger, lag, uid, event_type, context, body, *rest = row
    endpoint, url, headers, schedule, timeout, is_healthy, keys = rest
    return Claimed(
        _uuid(pk), lane, epoch, attempts, before, trigger, lag, uid, event_type, orjson.loads(context),
        bytes(body), _uuid(endpoint), url, headers, None if schedule is None else orjson.loads(schedule),
        timeout, bool(is_healthy), _read_keys(keys or "[]"),
    )  # fmt: skip


@lru_cache(maxsize=KNOWN_KEYS)
def _read_keys(text: str) -> tuple[tuple[UUID, str], ...]:
    # Every delivery to an endpoint brings the same.
    return tuple((_uuid(key), sealed) for key, sealed in orjson.loads(text))


def _connection(model: Any) -> Any:
    return connections[router.db_for_write(model)]


def _table(model: Any) -> str:
    return f'"{model._meta.db_table}"'


def _moment(connection: Any, moment: datetime) -> Any:
    return connection.ops.adapt_datetimefield_value(moment)


def _id(connection: Any, value: UUID) -> Any:
    return value if connection.features.has_native_uuid_field else value.hex


def _uuid(value: Any) -> UUID:
    return value if isinstance(value, UUID) else UUID(value)

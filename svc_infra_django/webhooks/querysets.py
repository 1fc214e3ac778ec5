"""Questions about endpoints, messages and deliveries, and the few statements that must be one.

The queue's statements are SQL by hand: PostgreSQL and SQLite share all but a clause, and the ORM can
say neither "at most so many for each endpoint" nor UPDATE … FROM … RETURNING.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson
from django.db import connections, models, router
from django.db.models import Q

from ..rows import OwnedQuerySet

if TYPE_CHECKING:
    from .models import Delivery, Endpoint, Message  # noqa: F401 - the type parameters below

NIL = UUID(int=0)

INSERT_BATCH = 1_000

STRANDING_TIME = timedelta(hours=1)
"""Longer than any transaction that saw the endpoint enabled."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a delivery becomes after an attempt, if its epoch is still the one it was sent under."""

    delivery_id: UUID
    epoch: int
    state: str
    due_at: datetime
    status: int | None
    error: str


class EndpointQuerySet(OwnedQuerySet["Endpoint"]):
    def listening(self, *, tenants: Iterable[str], owner_ids: Iterable[Any]) -> EndpointQuerySet:
        """Endpoints of these tenants that are nobody's or belong to one of these owners."""
        theirs = Q(owner=None) | Q(owner__in=list(owner_ids))
        return self.filter(theirs, tenant__in=list(tenants), state__in=["enabled", "paused"]).order_by()


class MessageQuerySet(OwnedQuerySet["Message"]):
    def insert_new(self, messages: Sequence[Message]) -> set[UUID]:
        """Insert, leaving out those whose idempotency key is taken; returns the ids of the inserted.

        One statement for every thousand: SQLite takes 32,766 values in one.
        """
        if len(messages) > INSERT_BATCH:
            return self.insert_new(messages[:INSERT_BATCH]) | self.insert_new(messages[INSERT_BATCH:])
        connection = _connection(self.model)
        fields = self.model._meta.concrete_fields
        columns = ", ".join(connection.ops.quote_name(field.column) for field in fields)
        row = f"({', '.join(['%s'] * len(fields))})"
        values = [
            field.get_db_prep_save(getattr(message, field.attname), connection)
            for message in messages
            for field in fields
        ]
        with connection.cursor() as cursor:
            cursor.execute(
                f"INSERT INTO {_table(self.model)} ({columns}) VALUES {', '.join([row] * len(messages))}"  # noqa: S608 -- names from the model, values as parameters
                " ON CONFLICT DO NOTHING RETURNING id",
                values,
            )
            return {_uuid(found) for (found,) in cursor.fetchall()}

    def having_key_of(self, digests: Iterable[str | None]) -> MessageQuerySet:
        """The messages that took these idempotency keys."""
        return self.filter(idempotency_digest__in=list(digests))

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

    def waiting(self) -> DeliveryQuerySet:
        """Still to be sent."""
        return self.filter(state="pending")

    def insert_for(
        self, rows: Iterable[tuple[UUID, UUID, UUID, datetime]], *, trigger: str, now: datetime
    ) -> None:
        """Insert (id, message, endpoint, due) rows, however many, in one statement.

        An endpoint that somebody deletes in this moment is left out: whoever publishes must not fail
        for it when they commit.
        """
        connection = _connection(self.model)
        rows = list(rows)
        if not rows:
            return
        if connection.vendor == "postgresql":
            arrays = ", ".join(f"%s::{kind}[]" for kind in ("uuid", "uuid", "uuid", "timestamptz"))
            endpoints = _table(self.model._meta.get_field("endpoint").related_model)
            fresh = (
                f"unnest({arrays}) AS fresh(id, message, endpoint, due)"
                f" JOIN {endpoints} e ON e.id = fresh.endpoint FOR KEY SHARE OF e"
            )
            values: list[Any] = [list(column) for column in zip(*rows, strict=True)]
        else:
            fields = ", ".join(f"json_extract(value, '$[{n}]')" for n in range(4))
            fresh = f"(SELECT {fields} FROM json_each(%s)) AS fresh"  # noqa: S608 -- our own fragments
            values = [
                orjson.dumps(
                    [[*(_id(connection, one) for one in ids), _moment(connection, due)] for *ids, due in rows]
                ).decode()
            ]
        with connection.cursor() as cursor:
            cursor.execute(
                f"""
                INSERT INTO {_table(self.model)} (id, message_id, endpoint_id, due_at, state, lane, trigger,
                    attempts, attempts_before, epoch, last_error, created_at)
                SELECT fresh.*, 'pending', 0, %s, 0, 0, 0, '', %s FROM {fresh}
                """,  # noqa: S608 -- our own fragments, values as parameters
                [trigger, _moment(connection, now), *values],
            )

    def claim(
        self,
        *,
        lane: int,
        limit: int,
        share: int,
        full: Iterable[UUID],
        after: UUID,
        now: datetime,
        lease_until: datetime,
    ) -> list[tuple[UUID, UUID]]:
        """Take up to `limit` due deliveries of a lane, at most `share` an endpoint; (id, endpoint) pairs.

        Goes from endpoint to endpoint with work in the lane, in order of id, beginning behind `after`
        and leaving out those in `full`: the backlog of one endpoint costs the others nothing, and
        deliveries that are done cost nobody. Rows that another deliverer is taking are skipped.
        """
        connection = _connection(self.model)
        deliveries, endpoints = (
            _table(self.model),
            _table(self.model._meta.get_field("endpoint").related_model),
        )
        full = [_id(connection, endpoint) for endpoint in full] or [_id(connection, NIL)]
        due = (
            f"SELECT w.id FROM {deliveries} w WHERE w.state = 'pending' AND w.lane = %s"  # noqa: S608 -- our own fragments
            " AND w.endpoint_id = e.id AND w.due_at <= %s ORDER BY w.due_at LIMIT %s"
        )
        if connection.vendor == "postgresql":
            taken = f"CROSS JOIN LATERAL ({due} FOR UPDATE SKIP LOCKED) d"
        else:
            taken = f"JOIN {deliveries} d ON d.id IN ({due})"
        first = f"SELECT q.endpoint_id FROM {deliveries} q WHERE q.state = 'pending' AND q.lane = %s"  # noqa: S608 -- our own fragments
        sql = f"""
            WITH RECURSIVE walk(endpoint_id) AS (
                SELECT * FROM ({first} AND q.endpoint_id > %s ORDER BY q.endpoint_id LIMIT 1) begun
                UNION ALL
                SELECT ({first} AND q.endpoint_id > walk.endpoint_id ORDER BY q.endpoint_id LIMIT 1)
                FROM walk WHERE walk.endpoint_id IS NOT NULL
            ), picked AS MATERIALIZED (
                SELECT d.id FROM walk
                JOIN {endpoints} e ON e.id = walk.endpoint_id AND e.state = 'enabled'
                    AND (e.held_until IS NULL OR e.held_until <= %s)
                    AND e.id NOT IN ({", ".join(["%s"] * len(full))})
                {taken}
                LIMIT %s
            )
            UPDATE {deliveries} SET state = 'sending', lease_until = %s, epoch = epoch + 1
            WHERE id IN (SELECT id FROM picked) AND state = 'pending'
            RETURNING id, endpoint_id
        """  # noqa: S608 -- our own fragments, values as parameters
        at = _moment(connection, now)
        values = [lane, _id(connection, after), lane, at, *full, lane, at, share, limit]
        with connection.cursor() as cursor:
            cursor.execute(sql, [*values, _moment(connection, lease_until)])
            return [(_uuid(found), _uuid(endpoint)) for found, endpoint in cursor.fetchall()]

    def settle(self, settlements: Sequence[Settlement], *, now: datetime) -> dict[UUID, int]:
        """Write what became of claimed deliveries, in one statement; attempts so far by id.

        What another deliverer has claimed since, or somebody has deleted, is left alone and left out.
        """
        connection = _connection(self.model)
        row = ["%s"] * 7
        typed = (
            [
                f"%s::{kind}"
                for kind in ("uuid", "int", "text", "timestamptz", "smallint", "text", "timestamptz")
            ]
            if connection.vendor == "postgresql"
            else row
        )
        values: list[Any] = []
        for one in settlements:
            settled_at = None if one.state == "pending" else _moment(connection, now)
            due_at = _moment(connection, one.due_at)
            values += [_id(connection, one.delivery_id), one.epoch, one.state, due_at]
            values += [one.status, one.error, settled_at]
        rows = ", ".join(f"({', '.join(typed if n == 0 else row)})" for n in range(len(settlements)))
        endpoints = _table(self.model._meta.get_field("endpoint").related_model)
        # Whoever was disabled while this was under way gets no retry.
        is_over = (
            f"becomes = 'pending' AND EXISTS (SELECT 1 FROM {endpoints} e"  # noqa: S608 -- our own fragments
            " WHERE e.id = endpoint_id AND e.state = 'disabled')"
        )
        sql = f"""
            WITH result(of, of_epoch, becomes, due, status, error, settled) AS (VALUES {rows})
            UPDATE {_table(self.model)} SET
                state = CASE WHEN {is_over} THEN 'cancelled' ELSE becomes END,
                settled_at = CASE WHEN {is_over} THEN {typed[6]} ELSE settled END,
                due_at = due, last_status = status, last_error = error,
                attempts = attempts + 1, lease_until = NULL, lane = 1,
                trigger = CASE WHEN becomes = 'pending' THEN 'retry' ELSE trigger END
            FROM result WHERE id = of AND epoch = of_epoch AND {_table(self.model)}.state = 'sending'
            RETURNING id, attempts
        """  # noqa: S608 -- our own fragments, values as parameters
        with connection.cursor() as cursor:
            cursor.execute(sql, [*values, _moment(connection, now)])
            return {_uuid(found): attempts for found, attempts in cursor.fetchall()}

    def cancel_stranded(self, *, now: datetime) -> int:
        """Cancel what came to wait for an endpoint in the moment it was disabled."""
        lately = Q(endpoint__state="disabled", endpoint__disabled_at__gt=now - STRANDING_TIME)
        return self.waiting().filter(lately).update(state="cancelled", settled_at=now)

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


def _connection(model: Any) -> Any:
    return connections[router.db_for_write(model)]


def _table(model: Any) -> str:
    return f'"{model._meta.db_table}"'


def _moment(connection: Any, moment: datetime) -> Any:
    return connection.ops.adapt_datetimefield_value(moment)


def _id(connection: Any, value: UUID) -> Any:
    return value if connection.features.has_native_uuid_field else value.hex


def _uuid(value: Any) -> UUID:
    return value if isinstance(value, UUID) else UUID(hex=value)

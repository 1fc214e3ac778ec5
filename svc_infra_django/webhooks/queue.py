"""The queue: what is due is claimed and what came of it is settled, each in a statement or two by hand.

PostgreSQL and SQLite share all but a clause, and the ORM can say neither "at most so many for each
endpoint" nor UPDATE … FROM … RETURNING.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import orjson
from django.apps import apps
from django.db import models

from ..identifiers import uuid7
from .statements import connection_of, fetched, read_id, stored_id, stored_moment, table_of

if TYPE_CHECKING:
    from .models import Delivery  # noqa: F401 - the type parameter below

NIL = UUID(int=0)
LAST = UUID(int=2**128 - 1)

HEALTHY_SECONDS = 60
KNOWN_KEYS = 4_096


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


@dataclass(frozen=True, slots=True)
class LaneClaim:
    """How many deliveries of a lane to take, beginning behind the endpoint `after`."""

    lane: int
    limit: int
    after: UUID


class Settlement(NamedTuple):
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


class DeliveryQueue(models.QuerySet["Delivery"]):
    """Deliveries as the deliverer takes them and writes them back."""

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
        connection = connection_of(self.model)
        full = [stored_id(connection, endpoint) for endpoint in full] or [stored_id(connection, NIL)]
        at = stored_moment(connection, now)
        values: list[Any] = []
        if connection.vendor == "postgresql":
            for one in lanes:
                values += [one.lane, one.after, one.limit]
            rows = ", ".join(["(%s::smallint, %s::uuid, %s::int)"] * len(lanes))
            lane = self._round(connection, full, lane="asked.lane", after="asked.after", most="asked.most")
            picked = (
                f"SELECT w.id FROM (VALUES {rows}) AS asked(lane, after, most) CROSS JOIN LATERAL ({lane}) w"
            )
            values += [at, full, at, share]
        else:
            lane = self._round(connection, full, lane="%s", after="%s", most="%s")
            picked = " UNION ALL ".join([f"SELECT * FROM ({lane})"] * len(lanes))
            for one in lanes:
                after = stored_id(connection, one.after)
                values += [one.lane, after, one.lane, after, after, after]
                values += [at, *full, one.lane, at, share, one.limit]
        return self._take(picked, values, now=now, lease_until=lease_until)

    def _round(self, connection: Any, full: Sequence[Any], *, lane: str, after: str, most: str) -> str:
        """A walk round the endpoints with work in a lane, from the one behind `after` up to it again."""
        deliveries, endpoints = self._tables
        kind = "UUID " if connection.vendor == "postgresql" else ""
        nil, last = (f"{kind}'{stored_id(connection, one)}'" for one in (NIL, LAST))
        ahead = f"SELECT q.endpoint_id FROM {deliveries} q WHERE q.state = 'pending' AND q.lane = {lane}"
        due = (
            f"SELECT w.id FROM {deliveries} w WHERE w.state = 'pending' AND w.lane = {lane}"
            " AND w.endpoint_id = e.id AND w.due_at <= %s ORDER BY w.due_at LIMIT %s"
        )
        well = """e.id = walk.endpoint_id AND e.state = 'enabled'
            AND (e.held_until IS NULL OR e.held_until <= %s)
            AND e.rate_limit IS NULL AND e.max_in_flight IS NULL AND e.breaker_trips = 0"""
        if connection.vendor == "postgresql":
            well += " AND e.id <> ALL(%s::uuid[])"
            # OFFSET 0 keeps the planner from a hash join, which would walk to the end and lose the order.
            served = f"CROSS JOIN LATERAL (SELECT e.id FROM {endpoints} e WHERE {well} OFFSET 0) e"
            taken = f"CROSS JOIN LATERAL ({due} FOR UPDATE SKIP LOCKED) w"
        else:
            well += f" AND e.id NOT IN ({', '.join(['%s'] * len(full))})"
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

    def is_any_due(self, *, now: datetime) -> bool:
        """Whether anything waits whose time has come: a read of the first entries of the queue's indexes."""
        connection = connection_of(self.model)
        deliveries, _ = self._tables
        first = [
            f"SELECT * FROM (SELECT w.id FROM {deliveries} w WHERE w.state = 'pending' AND w.lane = {lane}"
            f" AND w.due_at <= %s ORDER BY {order} LIMIT 1) AS lane{lane}"
            for lane, order in ((0, "w.endpoint_id"), (1, "w.endpoint_id"), (2, "w.due_at"))
        ]
        with connection.cursor() as cursor:
            cursor.execute(f"{' UNION ALL '.join(first)} LIMIT 1", [stored_moment(connection, now)] * 3)
            return cursor.fetchone() is not None

    def claim_for(self, shares: Mapping[UUID, int], *, now: datetime, lease_until: datetime) -> list[Claimed]:
        """Take up to so many due deliveries for each of these endpoints, first attempts first."""
        connection = connection_of(self.model)
        deliveries, _ = self._tables
        rows = orjson.dumps([[stored_id(connection, pk), share] for pk, share in shares.items()]).decode()
        at = stored_moment(connection, now)
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
        connection = connection_of(self.model)
        deliveries, _ = self._tables
        at = stored_moment(connection, now)
        facts_values = [stored_moment(connection, now - timedelta(seconds=HEALTHY_SECONDS)), at, at]
        values = [stored_moment(connection, lease_until), *values]
        become = "SET state = 'sending', lease_until = %s, epoch = epoch + 1"
        take = f"UPDATE {deliveries} {become} WHERE id"
        if connection.vendor == "postgresql":
            # By an array of ids, since a join may be planned as a walk through all that waits.
            take += f" = ANY(ARRAY({picked})) RETURNING *"
        else:
            ids = [pk for (pk,) in fetched(connection, f"{take} IN ({picked}) RETURNING id", values)]
            values = [orjson.dumps(ids).decode()]
            take = f"SELECT * FROM {deliveries} WHERE id IN (SELECT value FROM json_each(%s))"
        steps = ", ".join([f"taken AS ({take})", *self._facts(connection)])
        rows = fetched(connection, f"WITH {steps} SELECT * FROM facts", [*values, *facts_values])
        return [_claimed(row) for row in rows]

    def _facts(self, connection: Any) -> tuple[str, ...]:
        """Steps from `taken` to the columns of Claimed. What is an endpoint's is read once for each."""
        _, endpoints = self._tables
        endpoint = self.model._meta.get_field("endpoint").related_model
        keys = table_of(endpoint._meta.get_field("signing_keys").related_model)
        types = table_of(apps.get_model("svc_webhooks", "EventType"))
        messages = table_of(self.model._meta.get_field("message").related_model)
        if connection.vendor == "postgresql":
            pairs = "json_agg(json_build_array(k.id, k.sealed_secret))::text"
            lag = "extract(epoch FROM %s::timestamptz - d.due_at)::float8"
            text = "::text"
        else:
            pairs = "json_group_array(json_array(k.id, k.sealed_secret))"
            lag = "(julianday(%s) - julianday(d.due_at)) * 86400"
            text = ""
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
                m.uid, m.event_type, m.context{text}, m.body, e.id AS endpoint_id, e.url, e.sealed_headers,
                COALESCE(e.retry_schedule, t.retry_schedule){text} AS retry_schedule,
                e.timeout_seconds, e.is_healthy, e.keys
            FROM taken d JOIN served e ON e.id = d.endpoint_id JOIN {messages} m ON m.id = d.message_id
            LEFT JOIN {types} t ON t.name = m.event_type AND t.retry_schedule IS NOT NULL
        )"""
        return served, facts

    @property
    def _tables(self) -> tuple[str, str]:
        return table_of(self.model), table_of(self.model._meta.get_field("endpoint").related_model)

    def settle(self, settlements: Sequence[Settlement], *, now: datetime) -> dict[UUID, int]:
        """Write what became of claimed deliveries, and their attempts; attempts so far by id.

        What another deliverer has claimed since, or somebody has deleted, is left alone and left out.
        One statement on PostgreSQL. SQLite changes one table in a statement: two.
        """
        connection = connection_of(self.model)
        deliveries, endpoints = self._tables
        attempts = table_of(self.model._meta.get_field("attempt_set").related_model)
        is_native = connection.vendor == "postgresql"
        rows = orjson.dumps([_settlement_row(connection, one) for one in settlements]).decode()
        values = [stored_moment(connection, now), rows]
        if is_native:
            columns = ", ".join(f"{name} {kind}" for name, kind in SETTLEMENT)
            source = f"SELECT *, %s::timestamptz AS now FROM json_to_recordset(%s::json) AS r({columns})"
        else:
            fields = ", ".join(f"json_extract(value, '$.{name}') AS {name}" for name, _ in SETTLEMENT)
            source = f"SELECT {fields}, %s AS now FROM json_each(%s)"
        messages = table_of(self.model._meta.get_field("message").related_model)
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
                due_at = COALESCE(r.due_at, r.now), attempts = d.attempts + 1, lease_until = NULL,
                last_status = r.status, last_error = COALESCE(r.error, ''),
                lane = CASE WHEN r.state = 'pending' AND r.due_at > r.now THEN 2 ELSE 1 END,
                trigger = CASE WHEN r.state = 'pending' THEN 'retry' ELSE d.trigger END
            FROM r WHERE d.id = r.id AND d.epoch = r.epoch AND d.lease_until IS NOT NULL
        """
        insert = f"""
            INSERT INTO {attempts} (id, delivery_id, n, at, trigger, status_code, error, duration_ms,
                response_head, response_headers)
            SELECT r.attempt, done.id, done.attempts, r.at, r.trigger, r.status, COALESCE(r.error, ''),
                r.duration, COALESCE(r.head, ''), COALESCE(r.headers, '{{}}')
        """
        if is_native:
            sql = (
                f"WITH r AS ({source}),"
                f" done AS ({update} AND d.id = ANY(ARRAY(SELECT id FROM r)) RETURNING d.id, d.attempts),"
                f" written AS ({insert} FROM done JOIN r ON r.id = done.id)"
                " SELECT id, attempts FROM done"
            )
            return {read_id(found): attempts for found, attempts in fetched(connection, sql, values)}
        done = fetched(connection, f"WITH r AS ({source}) {update} RETURNING id, attempts", values)
        with connection.cursor() as cursor:
            cursor.execute(
                f"WITH r AS ({source}), done AS ("
                " SELECT json_extract(value, '$[0]') AS id, json_extract(value, '$[1]') AS attempts"
                f" FROM json_each(%s)) {insert} FROM done JOIN r ON r.id = done.id",
                [*values, orjson.dumps(done).decode()],
            )
        return {read_id(found): attempts for found, attempts in done}


SETTLEMENT = (
    ("id", "uuid"), ("epoch", "int"), ("state", "text"), ("due_at", "timestamptz"), ("status", "smallint"),
    ("error", "text"), ("attempt", "uuid"), ("at", "timestamptz"), ("trigger", "text"), ("duration", "int"),
    ("head", "text"), ("headers", "jsonb"),
)  # fmt: skip


def _settlement_row(connection: Any, one: Settlement) -> dict[str, Any]:
    row = {
        "id": stored_id(connection, one.delivery_id),
        "epoch": one.epoch,
        "state": one.state,
        "status": one.status,
        "attempt": stored_id(connection, uuid7()),
        "at": stored_moment(connection, one.at),
        "trigger": one.trigger,
        "duration": one.duration_ms,
    }
    # To read a row costs the database as much as to write it, so what is empty is left out.
    if one.state == "pending":
        row["due_at"] = stored_moment(connection, one.due_at)
    for name, value in (
        ("error", one.error), ("head", one.response_head), ("headers", one.response_headers),
    ):  # fmt: skip
        if value:
            row[name] = value
    return row


def _claimed(row: tuple[Any, ...]) -> Claimed:
    pk, lane, epoch, attempts, before, trigger, lag, uid, event_type, context, body, *rest = row
    endpoint, url, headers, schedule, timeout, is_healthy, keys = rest
    return Claimed(
        read_id(pk), lane, epoch, attempts, before, trigger, lag, uid, event_type, orjson.loads(context),
        bytes(body), read_id(endpoint), url, headers, None if schedule is None else orjson.loads(schedule),
        timeout, bool(is_healthy), _read_keys(keys or "[]"),
    )  # fmt: skip


@lru_cache(maxsize=KNOWN_KEYS)
def _read_keys(text: str) -> tuple[tuple[UUID, str], ...]:
    # Every delivery to an endpoint brings the same.
    return tuple((read_id(key), sealed) for key, sealed in orjson.loads(text))

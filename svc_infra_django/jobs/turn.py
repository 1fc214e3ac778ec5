"""One turn against the database: acknowledge what is done, claim what is ready, in one commit.

Every statement is guarded by state and epoch, so whoever lost a job cannot write to it any more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import groupby
from time import time
from typing import Any
from uuid import UUID

from django.db import connections
from django.db.models import F
from django.db.models.base import ModelState
from django.db.models.functions import Now
from django.utils import timezone

from ..observability.logging import get_logger
from ..observability.metrics import metrics
from .database import database as database
from .database import database_now as database_now
from .database import immediate as immediate
from .limits import admit, promote
from .models import Effect, Job, JobAttempt, Queue

logger = get_logger("svc_infra_django.jobs")

FRUITLESS_CLAIMS = 50
"""So often a turn claims again when rates held up all that it had claimed."""


@dataclass(slots=True)
class Outcome:
    """How an attempt ended, to be written down by the next turn."""

    job: Job
    state: Job.State
    """SUCCEEDED, FAILED, CANCELLED (discarded), SCHEDULED (again after `delay`) or READY (handed back, for
    after `delay`)."""

    result: Any = None
    error: str = ""
    traceback: str = ""
    delay: float = 0.0
    seconds: float = 0.0
    is_settled: bool = False
    """The job wrote its own end already, inside its transaction."""

    ended: float = field(default_factory=time)
    """Seconds since 1970."""

    @property
    def ended_at(self) -> datetime:
        return datetime.fromtimestamp(self.ended, tz=connections[database()].timezone)


@dataclass(frozen=True, slots=True)
class Wish:
    """The jobs that a worker would have: up to `room` of `queues`, in this order, or those of `ids`."""

    worker: UUID
    queues: Sequence[str] = ()
    room: int = 0
    excluding: Sequence[str] = ()
    """Tasks to leave alone."""

    ids: Sequence[UUID] = ()

    def __bool__(self) -> bool:
        return bool(self.ids or (self.queues and self.room > 0))


def take_turn(
    outcomes: Sequence[Outcome],
    *,
    worker: UUID,
    queues: Sequence[str],
    room: int,
    excluding: Sequence[str] = (),
    now: datetime | None = None,
) -> list[Job]:
    """Write `outcomes` and claim up to `room` jobs of `queues`, in this order, for `worker`.

    Jobs of paused queues, of the tasks in `excluding`, and those whose rate does not let them start `now`
    are left. One transaction: either all of it happens or nothing. Writing the same outcomes again is
    harmless.
    """
    wish = Wish(worker, queues=queues, room=room, excluding=excluding)
    return _take_turn(outcomes, wish, now=now)


def claim_these(ids: Sequence[UUID], *, worker: UUID, outcomes: Sequence[Outcome] = ()) -> list[Job]:
    """The same for jobs that are known: claim those of `ids` that are ready, and write `outcomes`."""
    return _take_turn(outcomes, Wish(worker, ids=ids))


def _take_turn(outcomes: Sequence[Outcome], wish: Wish, *, now: datetime | None = None) -> list[Job]:
    claimed = _turn(outcomes, wish)
    promote(outcome.job.concurrency_key for outcome in outcomes if outcome.job.concurrency_key)
    admitted = admit(claimed, now=now)
    for _ in range(FRUITLESS_CLAIMS):
        if admitted or not claimed:
            break
        # Their rates held up all of them, and not those behind them.
        claimed = _turn((), wish)
        admitted = admit(claimed, now=now)
    _tell_waits(admitted)
    return admitted


def _tell_waits(claimed: Iterable[Job]) -> None:
    now = timezone.now()
    for queue, jobs in groupby(claimed, key=lambda job: job.queue):
        waits = metrics.series("timer", "jobs.wait", queue=queue)
        for job in jobs:
            fell_due_at = max(job.created_at, job.run_at or job.created_at)
            waits.observe(max(0.0, (now - fell_due_at).total_seconds()))


def _turn(outcomes: Sequence[Outcome], wish: Wish) -> list[Job]:
    alias = database()
    wins = [
        outcome for outcome in outcomes if outcome.state == Job.State.SUCCEEDED and not outcome.is_settled
    ]
    rest = [outcome for outcome in outcomes if outcome.state != Job.State.SUCCEEDED]
    if connections[alias].vendor == "postgresql":
        if not rest:
            # The common turn: one statement, so one commit.
            return _acknowledge_and_claim(alias, wins, wish)
        with immediate(alias):
            settle(rest)
            return _acknowledge_and_claim(alias, wins, wish)
    if not outcomes and not (wish and (wish.ids or Job.objects.using(alias).ready().exists())):
        # An idle worker does not take the lock that all writers share.
        return []
    with immediate(alias):
        settle(rest)
        _acknowledge(alias, wins)
        return _claim(alias, wish)


def settle_one(outcome: Outcome) -> bool:
    """Write one outcome inside the caller's transaction; False if the job is no longer ours."""
    if outcome.state == Job.State.SUCCEEDED:
        return bool(owned(outcome.job).update(**_end(outcome), result=outcome.result, error="", traceback=""))
    return not settle([outcome])


def owned(job: Job) -> Any:
    """The row of the job while it is still in the hands that claimed it, as a queryset to update."""
    return Job.objects.using(database()).filter(pk=job.pk, state=Job.State.RUNNING, epoch=job.epoch)


def _end(outcome: Outcome) -> dict[str, Any]:
    let_go = outcome.job.unique_until == Job.UniqueUntil.FINISHED
    return {"state": outcome.state, "finished_at": Now()} | ({"unique_key": None} if let_go else {})


def settle(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Write everything but success; returns the outcomes of jobs that had been taken away."""
    back = [outcome for outcome in outcomes if outcome.state == Job.State.READY]
    lost = _hand_back(back) if back else []
    for outcome in outcomes:
        job = outcome.job
        failure = {"error": outcome.error, "traceback": outcome.traceback}
        if outcome.state == Job.State.READY:
            continue
        if outcome.state == Job.State.SCHEDULED:
            run_at = Now() + timedelta(seconds=outcome.delay)
            changes = {"state": Job.State.SCHEDULED, "run_at": run_at, "worker_id": None, **failure}
        else:
            changes = {**_end(outcome), **failure}
        if not owned(job).update(**changes):
            lost.append(outcome)
        else:
            write_attempt(job, _ATTEMPT_OUTCOMES[outcome.state], outcome.ended_at, **failure)
    _report_lost(lost)
    return lost


def _unclaimed() -> dict[str, Any]:
    return {"attempt": F("attempt") - 1, "epoch": F("epoch") + 1}


def _hand_back(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Make jobs ready again as if they had never been claimed; returns those that were taken away."""
    epochs = {outcome.job.pk: outcome.job.epoch for outcome in outcomes}
    jobs = Job.objects.using(database())
    mine = jobs.running().filter(pk__in=list(epochs)).select_for_update()
    kept = {pk for pk, epoch in mine.values_list("pk", "epoch") if epochs[pk] == epoch}
    at_once = [outcome.job.pk for outcome in outcomes if outcome.job.pk in kept and not outcome.delay]
    jobs.filter(pk__in=at_once).update(**_unclaimed(), **Job.ready_again())
    for outcome in outcomes:
        if outcome.job.pk in kept and outcome.delay:
            jobs.filter(pk=outcome.job.pk).update(
                state=Job.State.SCHEDULED,
                run_at=Now() + timedelta(seconds=outcome.delay),
                worker_id=None,
                **_unclaimed(),
            )
    return [outcome for outcome in outcomes if outcome.job.pk not in kept]


_ATTEMPT_OUTCOMES = {
    Job.State.SCHEDULED: JobAttempt.Outcome.RETRIED,
    Job.State.FAILED: JobAttempt.Outcome.FAILED,
    Job.State.CANCELLED: JobAttempt.Outcome.DISCARDED,
}


def write_attempt(
    job: Job, outcome: str, ended_at: datetime, *, error: str = "", traceback: str = ""
) -> None:
    JobAttempt.objects.using(database()).create(
        job_id=job.pk,
        attempt=job.attempt,
        worker_id=job.worker_id,
        started_at=job.attempted_at,
        finished_at=ended_at,
        outcome=outcome,
        error=error,
        traceback=traceback,
    )


def _report_lost(outcomes: Sequence[Outcome]) -> None:
    """Tell of work whose job had changed hands; what we ourselves wrote before is no loss."""
    if not outcomes:
        return
    epochs = dict(
        Job.objects.using(database())
        .filter(pk__in=[outcome.job.pk for outcome in outcomes])
        .exclude(state=Job.State.RUNNING)
        .values_list("pk", "epoch")
    )
    for outcome in outcomes:
        if epochs.get(outcome.job.pk) != outcome.job.epoch:
            metrics.increment("jobs.fenced", queue=outcome.job.queue)
            logger.warning(
                "job was taken away before its end",
                job_id=str(outcome.job.pk),
                task=outcome.job.task,
                epoch=outcome.job.epoch,
            )


# The literals 0, 1 and 2 are Job.State.READY, RUNNING and SUCCEEDED: only from constants does the planner
# prove a partial index. Where the keys are known it must not: it would rather read all of an index that held
# nothing when it was last analyzed, however long it is by now. So there it says `state + 0`.
_ACKNOWLEDGE = """
    UPDATE {table} AS j SET
           state = 2, finished_at = {now}, result = {result}, error = '', traceback = '',
           unique_key = CASE WHEN j.unique_until = 2 THEN NULL ELSE j.unique_key END
    FROM {done} WHERE j.id = d.id AND j.state + 0 = 1 AND j.epoch = d.epoch
"""


def _acknowledge(alias: str, wins: Sequence[Outcome]) -> None:
    """Write the successes, on SQLite."""
    if not wins:
        return
    connection = connections[alias]
    # As one text, here and in the claim: at every step to another row Python's threads would fight for the
    # interpreter, which takes them longer than it takes SQLite to write the row.
    done = """
        (SELECT json_extract(value, '$[0]') AS id, json_extract(value, '$[1]') AS epoch,
                json_extract(value, '$[2]') AS result FROM json_each(%s)) AS d
    """
    sql = _ACKNOWLEDGE.format(**_names(connection), now="%s", result="d.result", done=done)
    written = json.dumps([(win.job.id.hex, win.job.epoch, _as_json(win.result)) for win in wins])
    with connection.cursor() as cursor:
        cursor.execute(sql, [_now(connection), written])
        if cursor.rowcount == len(wins):
            return
    done_before = set(
        Job.objects.using(alias).filter(pk__in=[win.job.pk for win in wins], state=Job.State.SUCCEEDED)
        .values_list("pk", "epoch")
    )  # fmt: skip
    _report_lost([win for win in wins if (win.job.pk, win.job.epoch) not in done_before])


def _now(connection: Any) -> Any:
    """Bound and not the database's own: for SQLite this process is the database."""
    return connection.ops.adapt_datetimefield_value(timezone.now())


def _as_json(result: Any) -> str | None:
    return None if result is None else json.dumps(result)


NOT_CLAIMED = {
    "owner_id",
    "tenant",
    "worker_id",
    "publish_at",
    "publishes",
    "unique_key",
    "result",
    "progress",
    "error",
    "traceback",
    "unique_expires_at",
    "concurrency_limit",
    "rate_seconds",
    "rate_burst",
}
_CLAIMED_FIELDS: list[Any] = [field for field in Job._meta.concrete_fields if field.column not in NOT_CLAIMED]
CLAIMED: tuple[str, ...] = tuple(str(field.column) for field in _CLAIMED_FIELDS)
"""What a worker has to know of a job: all but whose it is, how it ended and what its limits are."""
_AS_JSON = ", ".join(
    f"json({field.column})" if field.get_internal_type() == "JSONField" else field.column
    for field in _CLAIMED_FIELDS
)

_CLAIM_SET = """
state = 1, epoch = {table}.epoch + 1, attempt = {table}.attempt + 1, attempted_at = {now},
started_at = COALESCE({table}.started_at, {now}), worker_id = %s,
unique_key = CASE WHEN {table}.unique_until = 1 THEN NULL ELSE {table}.unique_key END
"""


def _claim(alias: str, wish: Wish) -> list[Job]:
    """On SQLite, inside a transaction that may write, so what is read is still so when it is written."""
    connection = connections[alias]
    names, now = _names(connection), timezone.now()
    if wish.ids:
        choices = [("id IN (SELECT value FROM json_each(%s))", _keys(wish.ids), len(wish.ids))]
    else:
        choices = [("queue = %s", queue, wish.room) for queue in wish.queues]
    claimed: list[Job] = []
    for condition, of, room in choices:
        if len(claimed) < room:
            chosen = f"""
                SELECT {", ".join(CLAIMED)} FROM {names["table"]} WHERE state = 0 AND {condition}
                AND queue NOT IN (SELECT name FROM {names["queues"]} WHERE paused_at IS NOT NULL)
                AND task NOT IN (SELECT value FROM json_each(%s))
                ORDER BY priority DESC, id LIMIT %s
            """  # noqa: S608 - made of constants
            # One text for all of them: see `_acknowledge`.
            sql = f"SELECT json_group_array(json_array({_AS_JSON})) FROM ({chosen})"  # noqa: S608 - likewise
            (text,) = _rows(alias, sql, [of, json.dumps(list(wish.excluding)), room - len(claimed)])[0]
            claimed += _jobs(alias, json.loads(text), wish.worker)
    for job in claimed:
        job.state, job.epoch, job.attempt = Job.State.RUNNING, job.epoch + 1, job.attempt + 1
        job.started_at, job.attempted_at = job.started_at or now, now
    if claimed:
        sql = f"""
            UPDATE {names["table"]} SET {_CLAIM_SET.format(**names, now="%s")}
            WHERE id IN (SELECT value FROM json_each(%s))
        """  # noqa: S608 - made of constants
        moment = connection.ops.adapt_datetimefield_value(now)
        with connection.cursor() as cursor:
            cursor.execute(sql, [moment, moment, wish.worker.hex, _keys(job.id for job in claimed)])
    return claimed


def _keys(ids: Iterable[UUID]) -> str:
    return json.dumps([pk.hex for pk in ids])


def _acknowledge_and_claim(alias: str, wins: Sequence[Outcome], wish: Wish) -> list[Job]:
    acknowledge, acknowledged = _acknowledging(alias, wins) if wins else ("", [])
    claim, claimed = _claiming(alias, wish) if wish else ("", [])
    if acknowledge and claim:
        sql = f"""
            WITH done AS ({acknowledge}), {claim}
            SELECT written.count, took.* FROM (SELECT count(*) FROM done) AS written LEFT JOIN took ON true
        """  # noqa: S608 - made of constants
    elif acknowledge:
        sql = f"WITH done AS ({acknowledge}) SELECT count(*) FROM done"  # noqa: S608
    elif claim:
        sql = f"WITH {claim} SELECT 0, took.* FROM took"  # noqa: S608
    else:
        return []
    rows = _rows(alias, sql, [*acknowledged, *claimed])
    if wins and rows[0][0] < len(wins):
        _report_lost(wins)
    jobs = _jobs(alias, (row[1:] for row in rows if row[1:] and row[1] is not None), wish.worker)
    # RETURNING has no order.
    return sorted(jobs, key=lambda job: (-job.priority, job.id.int))


def _acknowledging(alias: str, wins: Sequence[Outcome]) -> tuple[str, list[Any]]:
    ids, epochs = _listed(win.job.id.hex for win in wins), _listed(win.job.epoch for win in wins)
    results = [] if all(win.result is None for win in wins) else [[_as_json(win.result) for win in wins]]
    written = _ACKNOWLEDGE.format(
        **_names(connections[alias]),
        now="clock_timestamp()",
        result="d.result" if results else "NULL",
        done=f"unnest(%s::uuid[], %s::int[]{', %s::jsonb[]' if results else ''}) "
        f"AS d(id, epoch{', result' if results else ''})",
    )
    return f"{written} RETURNING j.id", [ids, epochs, *results]


def _claiming(alias: str, wish: Wish) -> tuple[str, list[Any]]:
    # MATERIALIZED: otherwise the planner may run the choice again and take more than there is room for.
    sql = """
        pick AS MATERIALIZED ({chosen}), took AS (
            UPDATE {table} SET {changes} FROM pick WHERE {table}.id = pick.id
            RETURNING {columns}
        )
    """
    names = _names(connections[alias])
    columns = ", ".join(f"{names['table']}.{column}" for column in CLAIMED)
    changes = _CLAIM_SET.format(**names, now="clock_timestamp()")
    chosen, params = (_choosing_these if wish.ids else _choosing)(names, wish)
    return sql.format(**names, chosen=chosen, columns=columns, changes=changes), [*params, wish.worker]


def _choosing(names: dict[str, str], wish: Wish) -> tuple[str, list[Any]]:
    # Queue by queue, as far as there is room: over several queues at once no index gives the order.
    sql = """
        SELECT p.id
        FROM (SELECT u.name FROM unnest(%s::text[]) WITH ORDINALITY AS u(name, n)
              WHERE NOT EXISTS (SELECT 1 FROM {queues} q WHERE q.name = u.name AND q.paused_at IS NOT NULL)
              ORDER BY u.n) AS open
        CROSS JOIN LATERAL (
            SELECT id FROM {table} WHERE state = 0 AND queue = open.name {known}
            ORDER BY priority DESC, id LIMIT %s FOR UPDATE SKIP LOCKED
        ) AS p
        LIMIT %s
    """
    known = "AND task <> ALL(%s::text[])" if wish.excluding else ""
    params = [list(wish.queues), *([list(wish.excluding)] if wish.excluding else []), wish.room, wish.room]
    return sql.format(**names, known=known), params


def _choosing_these(names: dict[str, str], wish: Wish) -> tuple[str, list[Any]]:
    # One that somebody has locked is being claimed, or is published anew.
    sql = """
        SELECT id FROM {table} WHERE state + 0 = 0 AND id = ANY(%s::uuid[])
        AND queue NOT IN (SELECT name FROM {queues} WHERE paused_at IS NOT NULL)
        FOR UPDATE SKIP LOCKED
    """
    return sql.format(**names), [_listed(pk.hex for pk in wish.ids)]


def _listed(values: Iterable[object]) -> str:
    """A list as one text: psycopg would put it together element by element."""
    return f"{{{','.join(map(str, values))}}}"


def _rows(alias: str, sql: str, params: Sequence[Any]) -> list[Any]:
    connection = connections[alias]
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            from psycopg.types.datetime import TimestamptzLoader  # only PostgreSQL's users have it

            # Django's own loader is written in Python, and takes as long as all other columns together.
            cursor.cursor.adapters.register_loader("timestamptz", TimestamptzLoader)
        cursor.execute(sql, params)
        return list(cursor.fetchall())


def _jobs(alias: str, rows: Iterable[Sequence[Any]], worker: UUID) -> list[Job]:
    """The jobs of `rows`, each with the values of CLAIMED, in the hands of `worker`."""
    zone = connections[alias].timezone
    # What the driver has not made of a value itself. The converters of the fields look at each much longer.
    loaders: dict[str, Callable[[str], Any]] = {
        "UUIDField": UUID,
        "JSONField": json.loads,
        # With the offset in the text it takes an eighth of the time that `replace` takes.
        "DateTimeField": lambda text: (
            datetime.fromisoformat(f"{text}+00:00")
            if zone is UTC
            else datetime.fromisoformat(text).replace(tzinfo=zone)
        ),
    }
    kinds = [(field.attname, loaders.get(field.get_internal_type())) for field in _CLAIMED_FIELDS]
    names = [name for name, _ in kinds]
    loading = [(name, load) for name, load in kinds if load]
    jobs = []
    for row in rows:
        # As `Model.from_db` makes it, without the signals and checks that take longer than the job may.
        job = Job.__new__(Job)
        values = job.__dict__
        values.update(zip(names, row, strict=True))
        for name, load in loading:
            if isinstance(values[name], str):
                values[name] = load(values[name])
        values["worker_id"] = worker
        job._state = ModelState()
        job._state.adding, job._state.db = False, alias
        jobs.append(job)
    return jobs


def _names(connection: Any) -> dict[str, str]:
    quote = connection.ops.quote_name
    return {"table": quote(Job._meta.db_table), "queues": quote(Queue._meta.db_table)}


def ready_queues() -> list[str]:
    """The queues that have ready jobs: one probe of the index for each, however many jobs wait."""
    ready = Job.objects.using(database()).ready()
    found: list[str] = []
    while True:
        rest = ready.filter(queue__gt=found[-1]) if found else ready
        name = rest.order_by("queue").values_list("queue", flat=True).first()
        if name is None:
            return found
        found.append(name)


def hand_back_strays(*, worker: UUID, known: Iterable[UUID]) -> int:
    """Make ready what the database says `worker` runs and it does not know of.

    A claim whose answer was lost with the connection leaves such jobs.
    """
    strays = Job.objects.using(database()).running().filter(worker_id=worker).exclude(pk__in=list(known))
    return strays.update(**_unclaimed(), **Job.ready_again())


def still_owned(jobs: Iterable[Job]) -> set[UUID]:
    """Those of `jobs` that nobody took since they were claimed: a change of hands raises the epoch."""
    epochs = {job.pk: job.epoch for job in jobs}
    rows = Job.objects.using(database()).filter(pk__in=list(epochs)).values_list("pk", "epoch")
    return {pk for pk, epoch in rows if epochs[pk] == epoch}


def write_progress(reports: Iterable[tuple[Job, dict[str, Any]]]) -> None:
    """Write how far running jobs say they are; of one that changed hands nothing is written."""
    for job, progress in reports:
        owned(job).update(progress={**progress, "attempt": job.attempt})


@contextmanager
def first_effect(job: Job, key: str) -> Iterator[bool]:
    """A transaction in which it is known whether a job of this task had this key before."""
    effects = Effect.objects.using(database())
    with immediate(database()):
        _, is_first = effects.get_or_create(task=job.task, key=key, defaults={"job_id": job.pk})
        yield is_first

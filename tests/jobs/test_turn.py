from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from threading import Thread
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import Group
from django.db import connection, connections, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from prometheus_client import REGISTRY

from svc_infra_django.identifiers import uuid7
from svc_infra_django.jobs import enqueue_many, tending, turn
from svc_infra_django.jobs.models import Job, JobAttempt, Worker
from svc_infra_django.jobs.rescue import CRASHED, bury, rescue, workers_overrun
from svc_infra_django.jobs.runner import run
from svc_infra_django.jobs.services.operating import cancel
from svc_infra_django.jobs.tending import measure_depth
from svc_infra_django.jobs.turn import Outcome
from svc_infra_django.observability.context import bound
from tests.jobs import work

pytestmark = pytest.mark.django_db


def claim(worker: UUID | None = None, *, room: int = 10, outcomes: Any = (), **options: Any) -> list[Job]:
    return turn.take_turn(list(outcomes), worker=worker or uuid7(), queues=["default"], room=room, **options)


def succeed(job: Job, result: Any = None) -> Outcome:
    return Outcome(job, Job.State.SUCCEEDED, result=result)


def test_a_turn_claims_no_more_than_there_is_room_for() -> None:
    enqueue_many(work.add, [[number] for number in range(5)])

    assert len(claim(room=2)) == 2
    assert len(claim(room=0)) == 0
    assert len(claim(room=10)) == 3
    assert claim() == []


def test_a_claim_tells_how_long_its_jobs_had_been_due() -> None:
    ids = enqueue_many(work.add, [[number] for number in range(3)])
    hour = timedelta(hours=1)
    Job.objects.filter(pk=ids[0]).update(created_at=timezone.now() - 3 * hour)
    Job.objects.filter(pk=ids[1]).update(created_at=timezone.now() - 3 * hour, run_at=timezone.now() - hour)
    before = _waited()

    claim()

    waits, seconds = (after - then for after, then in zip(_waited(), before, strict=True))
    assert waits == 3
    assert 4 * 3600 <= seconds < 4.5 * 3600


def _waited() -> tuple[float, float]:
    count, seconds = (
        REGISTRY.get_sample_value(f"jobs_wait_seconds_{part}", {"queue": "default"}) or 0.0
        for part in ("count", "sum")
    )
    return count, seconds


def test_a_turn_writes_and_claims_at_once() -> None:
    enqueue_many(work.add, [[number] for number in range(3)])
    first, second = claim(room=2)

    third = claim(outcomes=[succeed(first, {"x": [1, None]}), succeed(second)])

    assert len(third) == 1
    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.state, first.result) == (Job.State.SUCCEEDED, {"x": [1, None]})
    assert second.result is None


@pytest.mark.parametrize(
    "value",
    [10**30, -0.5, 1e-320, 1e22, "", 'é\u2028"\\/\n\U0001f600', {"a": [None, True, {"": []}]}, "[1]"],
    ids=repr,
)
def test_arguments_come_out_of_a_claim_as_they_went_in(value: Any) -> None:
    with bound(request_id='quoted "and" é'):
        work.add.enqueue(value)

    (job,) = claim()

    assert job.args == {"args": [value], "kwargs": {}}
    assert job.headers["request_id"] == 'quoted "and" é'
    stored = Job.objects.get()
    assert {name: getattr(stored, name) for name in vars(job) if name != "_state"} == {
        name: found for name, found in vars(job).items() if name != "_state"
    }


def test_several_queues_share_the_room_in_order(ledger: str) -> None:
    work.mail.enqueue(ledger, "x")
    enqueue_many(work.add, [[1], [2]])

    jobs = turn.take_turn([], worker=uuid7(), queues=["mail", "default"], room=2)

    assert [job.queue for job in jobs] == ["mail", "default"]


def test_writing_the_same_outcome_again_is_harmless_and_no_alarm(caplog: pytest.LogCaptureFixture) -> None:
    work.add.enqueue(1)
    work.fail.enqueue()
    good, bad = claim()
    outcomes = [succeed(good, 5), Outcome(bad, Job.State.SCHEDULED, error="x.Y", delay=60)]

    claim(outcomes=outcomes)
    first = list(Job.objects.order_by("pk").values())
    claim(outcomes=outcomes)

    assert list(Job.objects.order_by("pk").values()) == first
    assert bad.attempts.count() == 1
    assert "taken away" not in caplog.text


@pytest.mark.parametrize(
    "state", [Job.State.SUCCEEDED, Job.State.FAILED, Job.State.SCHEDULED, Job.State.READY]
)
def test_whoever_lost_a_job_cannot_write_to_it(state: Job.State, caplog: pytest.LogCaptureFixture) -> None:
    work.add.enqueue(1)
    (stale,) = claim()
    rescue(lease=timedelta(seconds=30), max_crashes=3)
    (fresh,) = claim()
    assert (fresh.pk, fresh.epoch) == (stale.pk, stale.epoch + 2)

    before = fenced()
    claim(outcomes=[Outcome(stale, state, error="x.Y")])

    fresh.refresh_from_db()
    assert (fresh.state, fresh.attempt) == (Job.State.RUNNING, 2)
    assert "taken away" in caplog.text
    assert fenced() == before + 1


def fenced() -> float:
    return REGISTRY.get_sample_value("jobs_fenced_total", {"queue": "default"}) or 0.0


def test_the_jobs_of_a_living_worker_are_left_alone() -> None:
    worker = Worker.objects.create(name="w", host="h", pid=1, concurrency=1)
    work.add.enqueue(1)
    (job,) = claim(worker.pk)

    assert rescue(lease=timedelta(seconds=30), max_crashes=3) == 0

    Worker.objects.update(heartbeat_at=timezone.now() - timedelta(seconds=31))
    assert rescue(lease=timedelta(seconds=30), max_crashes=3) == 1
    job.refresh_from_db()
    assert (job.state, job.crashes, job.worker_id) == (Job.State.READY, 1, None)
    assert not Worker.objects.exists()


def test_a_crash_counts_as_an_attempt() -> None:
    work.add.enqueue(1)
    Job.objects.update(max_attempts=1)
    (job,) = claim()

    rescue(lease=timedelta(seconds=30), max_crashes=3)

    job.refresh_from_db()
    assert (job.state, job.error) == (Job.State.FAILED, CRASHED)


def test_of_a_dead_workers_jobs_the_one_that_overran_its_timeout_is_to_blame() -> None:
    for task, args in ((work.slow, ["x"]), (work.ignore_the_timeout, ["x", "y"]), (work.add, [1])):
        task.enqueue(*args)
    dead = Worker.objects.create(name="dead", host="dead", pid=1, concurrency=3)
    turn.take_turn([], worker=dead.pk, queues=["default"], room=3)
    Job.objects.update(attempted_at=timezone.now() - timedelta(seconds=6))

    assert workers_overrun([dead.pk]) == {dead.pk}
    assert bury(dead.pk, max_crashes=3) == 3

    found = {job.task.rsplit(".", 1)[1]: (job.state, job.attempt, job.crashes) for job in Job.objects.all()}
    assert found == {
        "slow": (Job.State.FAILED, 1, 0),  # it has one attempt
        "ignore_the_timeout": (Job.State.SCHEDULED, 1, 0),
        "add": (Job.State.READY, 0, 0),
    }
    outcomes = set(JobAttempt.objects.values_list("outcome", "error"))
    assert {error.rsplit(".", 1)[1] for _, error in outcomes} == {"JobTimeout"}
    assert {outcome for outcome, _ in outcomes} == {"retried", "failed"}


@pytest.mark.parametrize(("heard_of_after", "told"), [(3, "JobCrashed"), (6, "JobTimeout")])
def test_a_dead_workers_job_is_timed_out_only_if_the_worker_lived_to_see_it(
    heard_of_after: float, told: str
) -> None:
    """A lease may be longer than a timeout: when it is over, the clock alone says nothing of the job."""
    began = timezone.now() - timedelta(minutes=5)
    dead = Worker.objects.create(
        name="dead", host="dead", pid=1, concurrency=1,
        heartbeat_at=began + timedelta(seconds=heard_of_after),
    )  # fmt: skip
    work.ignore_the_timeout.enqueue("x", "y")
    claim(dead.pk)
    Job.objects.update(attempted_at=began)

    assert rescue(lease=timedelta(seconds=30), max_crashes=3) == 1

    (attempt,) = JobAttempt.objects.all()
    assert attempt.error.rsplit(".", 1)[1] == told
    assert Job.objects.get().crashes == (1 if told == "JobCrashed" else 0)


def test_claims_whose_answer_was_lost_are_handed_back() -> None:
    worker = uuid7()
    enqueue_many(work.add, [[1], [2]])
    known, lost = claim(worker)

    assert turn.hand_back_strays(worker=worker, known=[known.pk]) == 1

    lost.refresh_from_db()
    known.refresh_from_db()
    assert (lost.state, lost.attempt) == (Job.State.READY, 0)
    assert known.state == Job.State.RUNNING


def test_excluded_tasks_are_left() -> None:
    work.add.enqueue(1)

    assert claim(excluding=["tests.jobs.work.add", "b"]) == []
    assert len(claim(excluding=["other"])) == 1


def test_due_jobs_are_made_ready_by_the_clock_of_the_database() -> None:
    now = timezone.now()
    work.add.using(run_after=now + timedelta(minutes=1)).enqueue(1)
    work.add.using(run_after=now + timedelta(minutes=2)).enqueue(2)

    assert 55 < (tending.next_due_in() or 0) < 60
    assert tending.stage() == 0
    Job.objects.filter(args__args=[1]).update(run_at=now - timedelta(seconds=1))
    assert tending.stage() == 1
    assert tending.stage(now=now + timedelta(minutes=3)) == 1


def test_an_atomic_job_and_its_acknowledgement_are_one() -> None:
    work.make_group.enqueue("ops")
    (job,) = claim()

    outcome = run(job, work.make_group)

    job.refresh_from_db()
    assert outcome.is_settled and job.state == Job.State.SUCCEEDED
    assert Group.objects.count() == 1


def test_an_atomic_job_that_was_lost_leaves_no_effect() -> None:
    work.make_group.enqueue("ops")
    (job,) = claim()
    cancel(job.pk)

    run(job, work.make_group)

    assert not Group.objects.exists()
    job.refresh_from_db()
    assert job.state == Job.State.CANCELLED


def test_an_atomic_job_that_fails_leaves_no_effect() -> None:
    work.make_group.enqueue("ops", fail=True)
    (job,) = claim()

    outcome = run(job, work.make_group)

    assert outcome.state == Job.State.SCHEDULED
    assert not Group.objects.exists()


@pytest.mark.parametrize("kind", ["object", "nul", "nan", "surrogate", "big"])
def test_a_result_that_cannot_be_stored_fails_the_job_without_another_try(kind: str) -> None:
    work.return_odd.enqueue(kind)
    (job,) = claim()

    outcome = run(job, work.return_odd)
    claim(outcomes=[outcome])

    job.refresh_from_db()
    assert (job.state, job.attempt) == (Job.State.FAILED, 1)
    assert job.error.endswith("BadResult")


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("Shaky", Job.State.SCHEDULED),
        ("Other", Job.State.FAILED),
        ("Gone", Job.State.CANCELLED),
        ("Unprintable", Job.State.FAILED),
    ],
)
def test_the_policy_decides_what_becomes_of_a_failure(name: str, state: Job.State) -> None:
    work.raise_named.enqueue(name)
    (job,) = claim()

    claim(outcomes=[run(job, work.raise_named)])

    job.refresh_from_db()
    assert job.state == state


def test_what_a_job_binds_and_forgets_does_not_reach_the_next_one() -> None:
    enqueue_many(work.leave_behind, [[], []])
    first, second = claim()

    with bound(request_id="of-the-caller"):
        run(first, work.leave_behind)
        outcome = run(second, work.leave_behind)

    assert outcome.result.keys() == {"job_id", "task", "attempt"}


def test_a_job_whose_row_makes_no_sense_is_failed_and_not_left_running() -> None:
    work.add.enqueue(1)
    Job.objects.update(args=["not", "a", "mapping"], headers=[])
    (job,) = claim()

    claim(outcomes=[run(job, work.add)])

    job.refresh_from_db()
    assert (job.state, job.error) == (Job.State.SCHEDULED, "builtins.TypeError")


@pytest.mark.parametrize("delay", [float("inf"), float("nan"), "soon"])
def test_a_backoff_that_is_no_time_fails_the_job_and_not_the_worker(delay: Any) -> None:
    work.fail_with_delay.enqueue(str(delay))
    (job,) = claim()

    claim(outcomes=[run(job, work.fail_with_delay)])

    job.refresh_from_db()
    assert (job.state, job.error) == (Job.State.FAILED, "tests.jobs.work.Shaky")


def plan_of(ask: Callable[[], Any], *, containing: str) -> str:
    """The plan of the first statement of `ask` with these words in it, its values bound as it binds them."""
    statement, params = statement_of(ask, containing=containing)
    explain = "EXPLAIN" if connection.vendor == "postgresql" else "EXPLAIN QUERY PLAN"
    with connection.cursor() as cursor:
        cursor.execute(f"{explain} {statement}", params)
        return str(cursor.fetchall())


def statement_of(ask: Callable[[], Any], *, containing: str) -> tuple[str, Any]:
    asked: list[tuple[str, Any]] = []

    def listen(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        asked.append((sql, params))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(listen):
        ask()
    return next((sql, params) for sql, params in asked if containing in sql)


def test_ten_thousand_waiting_jobs_cost_the_claim_nothing() -> None:
    now = timezone.now()
    for state, extra in (
        (Job.State.SCHEDULED, {"run_at": now + timedelta(days=1)}),
        (Job.State.BLOCKED, {"concurrency_key": "k", "concurrency_limit": 1}),
        (Job.State.SUCCEEDED, {"finished_at": now}),
    ):
        Job.objects.bulk_create(
            [
                Job(queue="default", task="x", args={}, created_at=now, state=state, **extra)
                for _ in range(5000)
            ]
        )
    enqueue_many(work.add, [[number] for number in range(10)])
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE svc_jobs_job" if connection.vendor == "postgresql" else "ANALYZE")

    plan = plan_of(lambda: claim(room=5), containing="ORDER BY priority DESC")

    assert "svc_jobs_job_ready" in plan
    if connection.vendor == "postgresql":
        # What is sorted and read from end to end are the queues, a handful.
        assert "Seq Scan on svc_jobs_job" not in plan
        assert plan.count("Sort Key:") == plan.count("Sort Key: u.n")
    else:
        assert "TEMP B-TREE" not in plan


@pytest.mark.postgresql
def test_jobs_whose_keys_are_known_are_found_by_them() -> None:
    """An index that was empty when it was last analyzed looks cheap to read from end to end."""
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE svc_jobs_job")
    ids = [UUID(pk) for pk in enqueue_many(work.add, [[number] for number in range(5000)])]
    running = turn.claim_these(ids[:100], worker=uuid7())

    plan = plan_of(
        lambda: turn.claim_these(ids[100:104], worker=uuid7(), outcomes=[succeed(running[0])]),
        containing="UPDATE",
    )

    assert "svc_jobs_job_pkey" in plan
    assert not {"svc_jobs_job_ready", "svc_jobs_job_running", "Seq Scan on svc_jobs_job"} & set(
        re.findall(r"svc_jobs_job_\w+|Seq Scan on svc_jobs_job", plan)
    )


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_what_an_old_snapshot_keeps_from_being_cleaned_away_costs_a_claim_a_look_at_its_pages() -> None:
    """Every version of every row is still there, and the index of what is ready leads to those of old."""
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE svc_jobs_job CASCADE")  # earlier tests have left their own dead rows there
    with old_snapshot():
        *over, next_one = enqueue_many(work.add, [[number] for number in range(2001)])
        done: list[Job] = []
        for _ in range(10):
            done = claim(room=200, outcomes=map(succeed, done))
        claim(room=0, outcomes=map(succeed, done))
        assert Job.objects.filter(state=Job.State.SUCCEEDED).count() == len(over)

        by_queue, plan = work_of(lambda: claim(room=1))
        by_key, _ = work_of(lambda: turn.claim_these([UUID(next_one)], worker=uuid7()))

    assert "svc_jobs_job_ready" in plan
    assert by_queue < len(over) / 10, "many rows lie on a page"
    assert by_key < 40, "whatever else is in the table"


@contextmanager
def old_snapshot() -> Iterator[None]:
    """Another session began to read before all that happens in the block, and goes on after it."""
    other = connection.copy()
    try:
        with other.cursor() as cursor:
            cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            cursor.execute("SELECT count(*) FROM svc_jobs_job")
            yield
    finally:
        other.close()


def work_of(ask: Callable[[], Any]) -> tuple[int, str]:
    """How many pages the UPDATE that `ask` makes looks at, and its plan. Nothing is changed by it."""
    with transaction.atomic():
        statement, params = statement_of(ask, containing="UPDATE")
        transaction.set_rollback(True)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", params)
        plan = cursor.fetchone()[0][0]["Plan"]
        transaction.set_rollback(True)
    return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"], str(plan)


@pytest.mark.postgresql
def test_a_turn_over_many_queues_is_one_statement(ledger: str, django_assert_num_queries: Any) -> None:
    enqueue_many(work.add, [[1], [2]])
    work.mail.enqueue(ledger, "x")
    (done,) = claim(room=1)

    with django_assert_num_queries(1):
        jobs = turn.take_turn([succeed(done)], worker=uuid7(), queues=["none", "mail", "default"], room=2)

    assert sorted(job.queue for job in jobs) == ["default", "mail"]


@pytest.mark.sqlite
def test_a_turn_on_sqlite_has_no_more_statements_for_more_jobs() -> None:
    enqueue_many(work.add, [[number] for number in range(102)])
    one, fifty = claim(room=1), claim(room=50)

    def statements_of(jobs: list[Job]) -> list[str]:
        told: list[str] = []
        connection.connection.set_trace_callback(told.append)
        try:
            assert len(claim(room=len(jobs), outcomes=[succeed(job, 1) for job in jobs])) == len(jobs)
        finally:
            connection.connection.set_trace_callback(None)
        return told

    assert len(statements_of(one)) == len(statements_of(fifty))
    assert Job.objects.filter(state=Job.State.SUCCEEDED, result=1).count() == 51


@pytest.mark.sqlite
def test_successes_are_written_by_the_keys_of_their_jobs() -> None:
    enqueue_many(work.add, [[number] for number in range(100)])
    jobs = claim(room=100)

    plan = plan_of(lambda: claim(outcomes=[succeed(job) for job in jobs]), containing="state = 2")

    assert re.findall(r"SEARCH (\w+) USING INDEX (\w+)", plan) == [("j", "sqlite_autoindex_svc_jobs_job_1")]


def test_an_idle_turn_on_sqlite_does_not_take_the_lock_of_all_writers() -> None:
    with CaptureQueriesContext(connection) as captured:
        assert claim() == []

    assert len(captured) == 1
    if connection.vendor == "sqlite":
        assert captured.captured_queries[0]["sql"].startswith("SELECT")


@pytest.mark.parametrize(
    ("ask", "index"),
    [
        (lambda: turn.ready_queues(), "svc_jobs_job_ready"),
        (lambda: tending.next_due_in(), "svc_jobs_job_scheduled"),
        (lambda: tending.stage(), "svc_jobs_job_scheduled"),
        (lambda: rescue(lease=timedelta(seconds=30), max_crashes=3), "svc_jobs_job_running"),
        (lambda: turn.hand_back_strays(worker=uuid7(), known=[]), "svc_jobs_job_running"),
    ],
    ids=["ready_queues", "next_due_in", "stage", "rescue", "hand_back_strays"],
)
@pytest.mark.sqlite
def test_the_duties_of_a_worker_read_partial_indexes_and_not_the_history(ask: Any, index: str) -> None:
    plan = plan_of(ask, containing="svc_jobs_job")

    assert index in plan


@pytest.mark.parametrize("state", Job.WAITING)
@pytest.mark.sqlite
def test_how_full_the_queues_are_is_counted_without_the_history(state: Job.State) -> None:
    plan = plan_of(measure_depth, containing=f"= ({int(state)})")

    assert f"svc_jobs_job_{state.label}" in plan


def test_the_queues_with_ready_jobs_are_found_by_a_probe_for_each(
    ledger: str, django_assert_num_queries: Any
) -> None:
    enqueue_many(work.add, [[number] for number in range(50)])
    enqueue_many(work.mail, [[ledger, "x"]] * 50)

    with django_assert_num_queries(3):
        assert turn.ready_queues() == ["default", "mail"]


@pytest.mark.django_db(transaction=True)
def test_threads_that_race_for_due_jobs_make_each_ready_once_and_claim_it_once() -> None:
    soon = timezone.now() + timedelta(seconds=0.2)
    ids = enqueue_many(work.add.using(run_after=soon), [[number] for number in range(200)])
    staged: list[int] = []
    claimed: list[str] = []

    def race() -> None:
        worker, deadline = uuid7(), time.monotonic() + 60
        try:
            while len(claimed) < 200 and time.monotonic() < deadline:
                staged.append(tending.stage())
                claimed.extend(str(job.pk) for job in claim(worker, room=7))
        finally:
            connections.close_all()

    threads = [Thread(target=race) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(staged) == 200
    assert sorted(claimed) == sorted(ids)

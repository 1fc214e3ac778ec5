"""Unique jobs, limits of concurrency, and rates."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from random import Random
from threading import Barrier, Thread
from typing import Any

import pytest
from django.db import OperationalError, connection, connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from svc_infra_django.identifiers import uuid7
from svc_infra_django.jobs import Limit, Rate, Unique, cancel, enqueue_many, limits, retry, task, turn
from svc_infra_django.jobs.errors import BadTask, JobNotRetryable
from svc_infra_django.jobs.models import Job, Pace
from svc_infra_django.jobs.rescue import rescue
from svc_infra_django.jobs.services.operating import duplicate, prune
from svc_infra_django.jobs.tending import stage
from svc_infra_django.jobs.turn import Outcome
from svc_infra_django.jobs.worker import drain
from tests.jobs import work
from tests.jobs.conftest import wait_until

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
READY, RUNNING, BLOCKED, SCHEDULED = (
    Job.State.READY,
    Job.State.RUNNING,
    Job.State.BLOCKED,
    Job.State.SCHEDULED,
)


def claim(*outcomes: Outcome, room: int = 100, now: datetime | None = None) -> list[Job]:
    return turn.take_turn(outcomes, worker=uuid7(), queues=["default"], room=room, now=now)


def succeed(job: Job) -> Outcome:
    return Outcome(job, Job.State.SUCCEEDED)


def count(**fields: Any) -> int:
    return Job.objects.filter(**fields).count()


# Unique jobs.


def test_one_an_hour_is_one_an_hour_whatever_became_of_it() -> None:
    first = work.once_an_hour.enqueue("a")
    drain()

    assert work.once_an_hour.enqueue("a").id == first.id
    assert work.once_an_hour.enqueue("b").id != first.id
    assert len(enqueue_many(work.once_an_hour, [["a"], ["c"], ["c"]])) == 1

    Job.objects.update(unique_expires_at=timezone.now())
    assert work.once_an_hour.enqueue("a").id != first.id
    assert len(enqueue_many(work.once_an_hour, [["b"], ["c"]])) == 2


def test_a_key_outlives_a_crash_and_not_the_job_that_crashed_too_often() -> None:
    first = work.only_once.enqueue("a").id
    for max_crashes in (3, 2):
        claim()
        assert work.only_once.enqueue("a").id == first, "while it runs"
        rescue(lease=timedelta(seconds=30), max_crashes=max_crashes)
        assert (work.only_once.enqueue("a").id == first) is (max_crashes == 3)

    assert count(state=Job.State.FAILED) == count(state=READY) == 1


def test_what_keeps_others_out_is_not_pruned_before_its_time() -> None:
    work.once_an_hour.enqueue("a")
    drain()
    Job.objects.update(unique_expires_at=timezone.now() + timedelta(days=3))

    assert prune(now=timezone.now() + timedelta(days=2)) == 0
    assert prune(now=timezone.now() + timedelta(days=4)) == 1


def test_the_one_that_waits_takes_over_from_the_later_one(ledger: str) -> None:
    later = timezone.now() + timedelta(hours=1)
    first = work.latest.using(run_after=later).enqueue("a", ledger, "first")

    second = work.latest.using(priority=7).enqueue("a", ledger, "second")

    assert second.id == first.id
    job = Job.objects.get()
    assert (job.state, job.priority, job.run_at) == (READY, 7, None)
    (running,) = claim()
    assert work.latest.enqueue("a", ledger, "third").id == first.id
    claim(Outcome(running, READY), room=0)
    drain()
    assert work.read(ledger) == ["second"]  # one that runs is left alone


def test_many_take_over_one_by_one(ledger: str) -> None:
    work.latest.enqueue("a", ledger, "old")

    made = enqueue_many(work.latest, [["a", ledger, "new"], ["b", ledger, "b1"], ["b", ledger, "b2"]])
    drain()

    assert len(made) == 1
    assert sorted(work.read(ledger)) == ["b2", "new"]


def test_a_failed_job_takes_its_key_again_or_is_told_who_has_it() -> None:
    job = Job.objects.get(pk=work.only_once.enqueue("a").id)
    (running,) = claim()
    claim(Outcome(running, Job.State.FAILED, error="x.Y"))
    newer = work.only_once.enqueue("a")

    with pytest.raises(JobNotRetryable) as refused:
        retry(job.pk)
    assert refused.value.extra == {"job": newer.id}

    cancel(newer.id)
    retry(job.pk)
    assert work.only_once.enqueue("a").id == str(job.pk)


@pytest.mark.parametrize(
    "options",
    [
        {"unique": Unique(by=("nothing",))},
        {"unique": Unique(window=0)},
        {"unique": Unique(window=timedelta.max)},
        {"concurrency": Limit(1, by=("nothing",))},
        {"concurrency": 0},
        {"concurrency": 99_999},
        {"rate": Rate("1/s", by=("nothing",))},
        {"rate": "often"},
        {"rate": "0/m"},
        {"rate": "1/2d"},
        {"rate": Rate("1/s", burst=0)},
        {"rate": "1/s", "unique": Unique(until="started")},
    ],
    ids=str,
)
def test_what_cannot_be_kept_is_refused_where_it_is_declared(options: dict[str, Any]) -> None:
    with pytest.raises(BadTask):
        task(**options)(work.add.func)


# Limits of concurrency.


def test_no_more_than_the_limit_are_under_way_and_the_next_follows_the_one_that_ends() -> None:
    enqueue_many(work.two_a_tenant, [["a"]] * 5 + [["b"]])
    assert count(state=BLOCKED) == 6
    limits.sweep()

    first = claim()
    assert sorted(job.args["args"][0] for job in first) == ["a", "a", "b"]
    assert claim() == []

    mine = [job for job in first if job.args["args"][0] == "a"]
    claim(succeed(mine[0]))
    assert len(claim()) == 1
    claim(Outcome(mine[1], Job.State.FAILED, error="x.Y"))
    assert len(claim()) == 1
    assert count(state=BLOCKED) == 1


def test_all_of_them_run_in_the_end() -> None:
    enqueue_many(work.two_a_tenant, [{"tenant": "a"}] * 30)

    assert drain() == 30
    assert count(state=Job.State.SUCCEEDED) == 30


@pytest.mark.django_db(transaction=True)
def test_the_first_need_not_wait_for_a_sweep() -> None:
    work.two_a_tenant.enqueue("a")
    enqueue_many(work.two_a_tenant, [["b"], ["b"], ["b"]])

    assert len(claim()) == 3


def test_of_those_that_wait_the_most_urgent_goes_first_then_the_oldest() -> None:
    ids = [work.two_a_tenant.using(priority=priority).enqueue("a").id for priority in (0, 5, 0, 9)]
    limits.sweep()

    first = claim()

    assert [str(job.pk) for job in first] == [ids[3], ids[1]]
    claim(*map(succeed, first))
    assert [str(job.pk) for job in claim()] == [ids[0], ids[2]]


def test_a_job_that_is_tried_again_later_leaves_its_place_and_takes_one_anew() -> None:
    enqueue_many(work.two_a_tenant, [["a"]] * 3)
    limits.sweep()
    first = claim()

    claim(Outcome(first[0], SCHEDULED, delay=60))
    assert len(claim()) == 1

    stage(now=timezone.now() + timedelta(seconds=61))
    first[0].refresh_from_db()
    assert first[0].state == BLOCKED


def test_what_falls_due_waits_for_a_place() -> None:
    later = timezone.now() + timedelta(hours=1)
    enqueue_many(work.two_a_tenant.using(run_after=later), [["a"]] * 5)
    assert count(state=SCHEDULED) == 5

    assert stage(now=later) == 5
    assert (count(state=READY), count(state=BLOCKED)) == (2, 3)


def test_a_place_is_left_by_cancelling_and_taken_by_retrying(django_capture_on_commit_callbacks: Any) -> None:
    enqueue_many(work.two_a_tenant, [["a"]] * 3)
    limits.sweep()
    first = claim()

    with django_capture_on_commit_callbacks(execute=True):
        cancel(first[0].pk)
    assert count(state=READY) == 1
    with django_capture_on_commit_callbacks(execute=True):
        retry(first[0].pk)
        duplicate(first[0].pk)
    assert (count(state=READY), count(state=BLOCKED)) == (1, 2)


def test_places_that_the_database_does_not_give_after_the_commit_are_given_by_the_next_sweep(
    monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks: Any
) -> None:
    def refuse(keys: Any) -> int:
        raise OperationalError("database is locked")

    with monkeypatch.context() as refusing, django_capture_on_commit_callbacks(execute=True):
        refusing.setattr(limits, "promote", refuse)
        cancel(work.two_a_tenant.enqueue("a").id)
        enqueue_many(work.two_a_tenant, [["a"], ["a"]])

    assert (count(state=BLOCKED), limits.sweep(), count(state=READY)) == (2, 2, 2)


def test_the_places_of_the_dead_are_filled_again() -> None:
    enqueue_many(work.two_a_tenant, [["a"]] * 4)
    Job.objects.update(max_attempts=1)
    limits.sweep()
    assert len(claim()) == 2

    rescue(lease=timedelta(seconds=30), max_crashes=3)
    assert limits.sweep() == 2
    assert len(claim()) == 2


def test_a_job_without_limits_pays_nothing(django_assert_num_queries: Any) -> None:
    work.add.enqueue(1)
    with django_assert_num_queries(1):
        work.add.enqueue(1)

    with CaptureQueriesContext(connection) as captured:
        jobs = claim()
    with CaptureQueriesContext(connection) as again:
        claim(*map(succeed, jobs))

    for queries in (captured, again):
        assert not [
            query for query in queries if "concurrency_limit" in query["sql"] or "pace" in query["sql"]
        ]


def test_places_are_counted_in_partial_indexes() -> None:
    work.two_a_tenant.enqueue("a")
    jobs = Job.objects.filter(concurrency_key="a")
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL enable_seqscan = off")

    assert "svc_jobs_job_holding" in jobs.holding().order_by().explain()
    assert "svc_jobs_job_blocked" in jobs.blocked().order_by("-priority", "pk").explain()
    assert "svc_jobs_job_rated" in Job.objects.ready().filter(rate_key="a").order_by().explain()
    in_line = Job.objects.scheduled().filter(rate_key="a", run_at__gt=NOON)
    assert "svc_jobs_job_in_line" in in_line.explain()


@pytest.mark.django_db(transaction=True)
def test_threads_that_enqueue_claim_and_settle_at_once_keep_the_limit() -> None:
    barrier, most = Barrier(4), list[int]()

    def run(number: int) -> None:
        try:
            barrier.wait(20)
            held: list[Job] = []
            for _ in range(12):
                work.two_a_tenant.enqueue("a")
                held = claim(*map(succeed, held), room=3)
                most.append(count(state__in=(READY, RUNNING)))
            claim(*map(succeed, held), room=0)
        finally:
            connections.close_all()

    threads = [Thread(target=run, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert max(most) <= 2
    while jobs := claim() or (limits.sweep() and claim()):
        assert len(jobs) <= 2
        claim(*map(succeed, jobs), room=0)
    assert count(state=Job.State.SUCCEEDED) == 48


# Rates.


def test_one_starts_and_the_others_are_given_times_of_their_own() -> None:
    enqueue_many(work.once_a_second, [[number] for number in range(5)])

    (started,) = claim(now=NOON)

    waiting = list(Job.objects.filter(state=SCHEDULED).order_by("pk"))
    assert started.args["args"] == [0]
    assert [job.run_at for job in waiting] == [NOON + timedelta(seconds=second) for second in (1, 2, 3, 4)]
    assert {(job.attempt, job.worker_id) for job in waiting} == {(0, None)}

    second = NOON + timedelta(seconds=1)
    assert stage(now=second) == 1
    assert [job.args["args"] for job in claim(now=second)] == [[1]]


def test_after_a_standstill_nothing_bursts() -> None:
    enqueue_many(work.once_a_second, [[number] for number in range(5)])
    claim(now=NOON)
    late = NOON + timedelta(minutes=10)

    stage(now=late)

    assert len(claim(now=late)) == 1
    times = Job.objects.filter(state=SCHEDULED).order_by("pk").values_list("run_at", flat=True)
    assert list(times) == [late + timedelta(seconds=second) for second in (1, 2, 3)]


def test_who_comes_too_early_because_the_last_one_was_late_keeps_its_turn() -> None:
    enqueue_many(work.once_a_second, [[number] for number in range(4)])

    def started_at(second: float) -> list[int]:
        now = NOON + timedelta(seconds=second)
        stage(now=now)
        return [job.args["args"][0] for job in claim(now=now)]

    assert [started_at(second) for second in (0, 1.3, 2, 2.3, 3, 3.3)] == [[0], [1], [], [2], [], [3]]


def test_a_burst_starts_together_and_then_one_by_one() -> None:
    enqueue_many(work.three_at_first, [[]] * 5)

    assert len(claim(now=NOON)) == 3
    assert Pace.objects.get().key == "shared"
    assert sorted(Job.objects.filter(state=SCHEDULED).values_list("run_at", flat=True)) == [
        NOON + timedelta(seconds=1),
        NOON + timedelta(seconds=2),
    ]


@pytest.mark.parametrize("seed", range(3))
def test_no_span_of_time_sees_more_starts_than_the_rate_allows(seed: int) -> None:
    """Ten a minute, claimed at random moments by whoever comes."""
    random, now, starts = Random(seed), NOON, list[datetime]()  # noqa: S311 - a reproducible walk
    enqueue_many(work.ten_a_minute, [[]] * 60)

    while count(state__in=(READY, SCHEDULED)):
        now += timedelta(seconds=random.choice([0.01, 0.5, 3, 20]))
        stage(now=now)
        started = claim(now=now, room=random.randint(1, 8))
        starts += [now] * len(started)
        claim(*map(succeed, started), room=0)

    assert len(starts) == 60
    assert all(
        later - first >= timedelta(minutes=1) for first, later in zip(starts, starts[10:], strict=False)
    )


@pytest.mark.django_db(transaction=True)
def test_of_many_that_claim_at_once_one_is_let_start() -> None:
    enqueue_many(work.once_a_second, [[number] for number in range(40)])
    barrier, started = Barrier(4), list[Job]()

    def run() -> None:
        try:
            barrier.wait(20)
            for _ in range(5):
                started.extend(claim(room=2, now=NOON))
        finally:
            connections.close_all()

    threads = [Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(started) == 1
    times = list(Job.objects.filter(state=SCHEDULED).values_list("run_at", flat=True))
    assert len(times) == len(set(times))


def test_whoever_comes_after_the_line_was_cancelled_does_not_wait_for_it() -> None:
    enqueue_many(work.once_a_second, [[number] for number in range(50)])
    claim(now=NOON)
    for pk in Job.objects.filter(state=SCHEDULED).values_list("pk", flat=True):
        cancel(pk)

    work.once_a_second.enqueue()
    assert claim(now=NOON) == []
    assert Job.objects.get(state=SCHEDULED).run_at == NOON + timedelta(seconds=1)


def test_who_is_not_let_start_leaves_the_place_to_another() -> None:
    enqueue_many(work.both_limits, [["ada"], ["bob"], ["ada"]])
    limits.sweep()

    (first,) = claim(now=NOON)
    assert first.args["args"] == ["ada"]
    claim(succeed(first), room=0)
    (second,) = claim(now=NOON)
    assert second.args["args"] == ["bob"]
    claim(succeed(second), room=0)
    assert claim(now=NOON) == []
    assert count(state=SCHEDULED) == 1


def test_draining_runs_what_the_rate_allows_and_more_later() -> None:
    enqueue_many(work.once_a_second, [[number] for number in range(3)])
    now = timezone.now()

    assert drain(now) == 1
    assert drain(now + timedelta(seconds=1)) == 1
    assert drain(now + timedelta(hours=1)) == 1


def test_a_crowd_that_its_rate_holds_up_is_not_in_the_way_of_others() -> None:
    enqueue_many(work.once_a_second, [[number] for number in range(100)])
    work.add.enqueue(1)

    (first,) = claim(now=NOON, room=5)
    (second,) = claim(now=NOON, room=5)

    assert (first.task, second.task) == (work.once_a_second.module_path, work.add.module_path)
    times = Job.objects.scheduled().order_by("run_at").values_list("run_at", flat=True)
    assert list(times) == [NOON + timedelta(seconds=number) for number in range(1, 100)]


def test_the_most_urgent_of_a_crowd_stands_first_in_its_line() -> None:
    enqueue_many(work.once_a_second, [[number] for number in range(10)])
    urgent = work.once_a_second.using(priority=5)
    ids = [urgent.enqueue(number).id for number in range(3)]

    assert len(claim(now=NOON, room=2)) == 1

    line = Job.objects.scheduled().order_by("run_at").values_list("pk", flat=True)
    assert [str(pk) for pk in line[:2]] == ids[1:]


def test_who_holds_a_place_is_not_lined_up_for_a_rate(django_capture_on_commit_callbacks: Any) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        for _ in range(3):
            work.both_limits.enqueue("ada")
    Job.objects.filter(state=BLOCKED).update(state=READY)

    claim(now=NOON, room=2)

    assert (count(state=SCHEDULED), count(state=READY)) == (1, 1)


def test_crowds_of_many_keys_are_not_in_the_way_either() -> None:
    for _ in range(2):
        enqueue_many(work.once_a_second_each, [[str(number)] for number in range(12)])
        claim(now=NOON, room=12)
        Job.objects.filter(state=SCHEDULED).update(state=READY, run_at=None)
    work.add.enqueue(1)

    assert drain(NOON) == 1


def test_keys_that_were_not_used_for_long_are_forgotten() -> None:
    enqueue_many(work.once_a_second, [[]] * 3)
    claim(now=NOON)

    prune(now=NOON + timedelta(hours=47))
    assert Pace.objects.exists()
    prune(now=NOON + timedelta(hours=49))
    assert not Pace.objects.exists()


def test_workers_keep_a_rate_together(worker: Callable[..., Any]) -> None:
    for _ in range(2):
        worker().ready()
    enqueue_many(work.ten_a_second, [[]] * 12)

    wait_until(lambda: count(state=Job.State.SUCCEEDED) == 12)

    began = Job.objects.order_by("attempted_at").values_list("attempted_at", flat=True)[0]
    # Each start moved the next one a tenth of a second on.
    assert Pace.objects.get().free_at - began >= timedelta(seconds=1.2)
    assert set(Job.objects.values_list("attempt", flat=True)) == {1}

"""A database that crashes, is read-only or slow to answer, and hosts whose clocks or memory are odd.

What the ledger says holds here as well: what was accepted is run, and as often as it says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from signal import SIGTERM
from threading import Thread
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import DatabaseError, connection, connections, transaction
from django.utils import timezone

from svc_infra_django.jobs import enqueue_many
from svc_infra_django.jobs.models import Job, Schedule, Worker
from svc_infra_django.jobs.services.operating import cancel
from tests.jobs import work
from tests.jobs.conftest import (
    GIB,
    Cutter,
    Database,
    Process,
    accepted_through_crashes,
    advisory_locks,
    all_come_to_a_good_end,
    states,
    switch,
    wait_until,
)

pytestmark = pytest.mark.django_db(transaction=True)

Start = Callable[..., Process]


def each_ran_as_often_as_it_says(ledger: str) -> None:
    starts = Counter(line.split()[0] for line in work.read(ledger) if " start " in line)
    assert starts == {
        str(job.pk): job.attempt for job in Job.objects.filter(task=work.keep_books.module_path)
    }


@pytest.mark.postgresql
def test_a_database_that_crashes_again_and_again_costs_time_and_nothing_else(
    database: Database, worker: Start, ledger: str
) -> None:
    processes = [worker("--concurrency", "3").ready() for _ in range(2)]

    accepted = accepted_through_crashes(database, ledger)

    all_come_to_a_good_end(accepted, ledger)
    assert all(process.is_alive() for process in processes)


@pytest.mark.pgbouncer
def test_behind_a_pooler_that_keeps_no_session_everything_goes_on(
    pooled: None, worker: Start, ledger: str
) -> None:
    processes = [worker("--concurrency", "8", listen=False).ready() for _ in range(2)]
    ids = enqueue_many(work.record_pid, [[ledger]] * 100)
    enqueue_many(work.make_group, [[f"sync {number}"] for number in range(10)])
    enqueue_many(work.amake_group, [[f"async {number}"] for number in range(10)])
    enqueue_many(work.two_a_tenant, [["a"]] * 6)
    enqueue_many(work.ten_a_second, [[]] * 3)
    work.once_waiting.enqueue("k")
    work.charge_once.enqueue(f"{ledger} once", "first", [], [1, 2])
    work.add.using(run_after=timezone.now() + timedelta(seconds=0.2)).enqueue(1)
    wait_until(lambda: states() == {"succeeded": 132})
    ran = Counter(line.split()[0] for line in work.read(ledger))
    assert ran == Counter(ids), "each once"
    assert Group.objects.count() == 21
    assert [line.split()[1] for line in work.read(f"{ledger} once")] == ["True", "False", "False"]

    cancelled = work.alinger.enqueue(ledger, 600)
    wait_until(lambda: "start" in work.read(ledger))
    cancel(cancelled.id)
    wait_until(lambda: "cancelled" in work.read(ledger))
    lingering = work.linger.enqueue(ledger, 600)
    began = wait_until(lambda: [line for line in work.read(ledger) if line.startswith("start ")])
    Job.objects.filter(pk=lingering.id).update(args={"args": [ledger, 0.0], "kwargs": {}})
    processes.sort(key=lambda process: began == [f"start {process.pid}"])
    processes[1].kill()
    wait_until(lambda: states() == {"succeeded": 133, "cancelled": 1})
    processes[0].signal(SIGTERM)

    assert processes[0].wait() == 0
    told = "".join(process.output() for process in processes)
    assert "prepared statement" not in told and "database unavailable" not in told
    assert advisory_locks() == 0, "no lock of a session was left to whoever has the connection next"


@pytest.mark.postgresql
def test_workers_wait_for_a_database_that_can_only_be_read(worker: Start, ledger: str) -> None:
    process = worker().ready()
    work.linger.enqueue(ledger, 0.3)
    wait_until(lambda: work.read(ledger))

    try:
        switch("default_transaction_read_only", "on")
        enqueue_many(work.record, [[ledger, "meanwhile"]] * 20)
        wait_until(lambda: "read-only transaction" in process.output())
        assert "meanwhile" not in work.read(ledger)
    finally:
        switch("default_transaction_read_only", "off")

    wait_until(lambda: states()["succeeded"] == 21)
    assert set(Job.objects.values_list("attempt", "crashes")) == {(1, 0)}
    assert work.read(ledger).count("meanwhile") == 20


@pytest.mark.postgresql
def test_an_acknowledgement_whose_answer_was_lost_is_no_error(
    cutter: Cutter, worker: Start, ledger: str
) -> None:
    database = {name: connection.settings_dict[name] for name in ("NAME", "USER")}
    around = {"database": database | {"HOST": "127.0.0.1", "PORT": cutter.port}}
    process = worker("--concurrency", "2", around=around).ready()

    ids = enqueue_many(work.record_pid, [[ledger]] * 50)
    wait_until(lambda: states() == {"succeeded": 50})
    wait_until(lambda: "database unavailable" in process.output())
    # It is written once more meanwhile.
    work.record.enqueue(f"{ledger} after")
    wait_until(lambda: states() == {"succeeded": 51})

    assert cutter.has_cut
    ran = [line.split()[:2] for line in work.read(ledger)]
    assert sorted(ran) == sorted([pk, "1"] for pk in ids), "each once"
    assert "was taken away" not in process.output()


@pytest.mark.postgresql
def test_a_claim_that_times_out_takes_nothing_and_is_made_again(worker: Start, ledger: str) -> None:
    impatient = {"PGOPTIONS": "-c lock_timeout=50ms -c statement_timeout=5s"}
    process = worker(around={"environment": impatient}).ready()

    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("LOCK TABLE svc_jobs_job IN EXCLUSIVE MODE")
        enqueue_many(work.keep_books, [[ledger, "plain", 0.0]] * 20)
        wait_until(lambda: "lock timeout" in process.output())
    wait_until(lambda: states()["succeeded"] == 20)

    each_ran_as_often_as_it_says(ledger)
    assert set(Job.objects.values_list("attempt", flat=True)) == {1}


@pytest.mark.postgresql
def test_a_job_that_loses_its_connection_fails_and_the_next_one_has_a_new_one(worker: Start) -> None:
    lost = work.lose_the_connection.enqueue("kept once")
    after = work.make_group.enqueue("after")

    worker("--concurrency", "1")
    wait_until(lambda: states()["succeeded"] == 2)

    (attempt,) = Job.objects.get(pk=lost.id).attempts.all()
    assert (attempt.outcome, attempt.error.rsplit(".", 1)[-1]) == ("retried", "OperationalError")
    assert Job.objects.get(pk=after.id).attempt == 1
    assert sorted(Group.objects.values_list("name", flat=True)) == ["after", "kept once"]


@pytest.mark.postgresql
def test_only_the_clock_of_the_database_counts(worker: Start, ledger: str) -> None:
    hour = 3600.0
    fast = worker("--concurrency", "1", around={"clock_is_fast_by": hour}).ready()
    work.linger.enqueue(ledger, 600)
    wait_until(lambda: work.read(ledger))
    slow = worker(around={"clock_is_fast_by": -hour}).ready()
    soon = work.record.using(run_after=timezone.now() + timedelta(seconds=0.5)).enqueue(ledger, "soon")
    later = work.record.using(run_after=timezone.now() + timedelta(minutes=30)).enqueue(ledger, "later")
    due = timezone.now().replace(microsecond=0) + timedelta(seconds=1)
    Schedule.objects.create(
        key="hourly", task="tests.jobs.work.hourly", every_seconds=hour, next_fire_at=due, catch_up="all"
    )

    wait_until(lambda: "soon" in work.read(ledger))
    wait_until(lambda: Job.objects.filter(headers__schedule="hourly").exists())
    heard_of = {each.pid: each.heartbeat_at for each in Worker.objects.all()}
    for pid, then in heard_of.items():
        wait_until(lambda pid=pid, then=then: Worker.objects.get(pid=pid).heartbeat_at > then)

    assert Job.objects.get(pk=later.id).state == Job.State.SCHEDULED
    started_at = Job.objects.get(pk=soon.id).started_at
    assert Job.objects.get(pk=soon.id).run_at <= started_at <= timezone.now()
    (fired,) = Job.objects.filter(headers__schedule="hourly")
    assert fired.headers["fire_at"] == due.isoformat()
    lingering = Job.objects.get(task=work.linger.module_path)
    assert (lingering.state, lingering.attempt) == (Job.State.RUNNING, 1), "nobody took it too early"

    Job.objects.filter(pk=lingering.pk).update(args={"args": [ledger, 0.0], "kwargs": {}})
    fast.kill()
    wait_until(lambda: Job.objects.get(pk=lingering.pk).state == Job.State.SUCCEEDED)
    assert Job.objects.get(pk=lingering.pk).worker_id == Worker.objects.get(pid=slow.pid).pk


def test_a_job_that_eats_more_memory_than_there_is_fails_alone(worker: Start, ledger: str) -> None:
    process = worker(around={"memory": 4 * GIB}).ready()
    work.eat_memory.enqueue(ledger, 16 * GIB)
    enqueue_many(work.record, [[ledger, "beside it"]] * 5)

    wait_until(lambda: states() == {"failed": 1, "succeeded": 5})

    job = Job.objects.get(state=Job.State.FAILED)
    assert (job.error, job.attempt, job.crashes) == ("builtins.MemoryError", 2, 0)
    assert process.is_alive()
    work.record.enqueue(ledger, "after it")
    wait_until(lambda: "after it" in work.read(ledger))


@pytest.mark.sqlite
def test_many_who_write_to_one_file_wait_for_each_other(worker: Start, ledger: str) -> None:
    processes = [worker().ready() for _ in range(4)]
    errors = list[Any]()

    def produce() -> None:
        try:
            for _ in range(25):
                work.record_pid.enqueue(ledger)
        except DatabaseError as error:
            errors.append(error)
        finally:
            connections.close_all()

    threads = [Thread(target=produce) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: states()["succeeded"] == 75)
    for process in processes:
        process.signal(SIGTERM)

    assert [process.wait() for process in processes] == [0] * 4
    assert not errors
    assert not [line for process in processes for line in process.output().splitlines() if "locked" in line]
    ran = [line.split()[0] for line in work.read(ledger)]
    assert len(ran) == len(set(ran)) == 75

"""Worker processes that are killed, stopped, frozen and raced."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from django.contrib.auth.models import Group
from django.db import connection, transaction
from django.utils import timezone

from svc_infra_django.jobs import enqueue_many
from svc_infra_django.jobs.management.serving import SWITCH_SECONDS, YOUNG_OBJECTS
from svc_infra_django.jobs.models import Job, JobAttempt, Schedule, Worker
from svc_infra_django.jobs.services.operating import cancel
from svc_infra_django.observability.context import bound
from tests.jobs import work
from tests.jobs.conftest import FAST, Process, is_writable, let_go, presume_dead, wait_until

pytestmark = pytest.mark.django_db(transaction=True)

Start = Callable[..., Process]


def states() -> Counter[str]:
    return Counter(Job.State(state).label for state in Job.objects.values_list("state", flat=True))


def test_two_workers_run_each_of_many_jobs_exactly_once(worker: Start, ledger: str) -> None:
    ids = enqueue_many(work.record_pid, [[ledger]] * 300)

    worker()
    worker()
    wait_until(lambda: states()["succeeded"] == 300)

    ran = [line.split() for line in work.read(ledger)]
    assert sorted(job for job, _, _ in ran) == sorted(ids)
    assert {attempt for _, attempt, _ in ran} == {"1"}
    assert not JobAttempt.objects.exists()


def test_jobs_of_a_killed_worker_are_rescued(worker: Start, ledger: str) -> None:
    first = worker().ready()
    work.linger.enqueue(ledger, 600)
    wait_until(lambda: work.read(ledger))
    Job.objects.update(args={"args": [ledger, 0.01], "kwargs": {}})

    first.kill()
    worker()

    wait_until(lambda: states()["succeeded"])
    job = Job.objects.get()
    assert (job.attempt, job.crashes) == (2, 1)
    assert [attempt.outcome for attempt in job.attempts.all()] == ["crashed"]
    assert len([line for line in work.read(ledger) if line.startswith("start")]) == 2


def test_a_job_that_kills_its_workers_is_poison(worker: Start, ledger: str) -> None:
    work.kill_me.enqueue(ledger)

    for _ in range(3):
        victim = worker()
        victim.wait()
        presume_dead(victim.pid)
    last = worker().ready()
    wait_until(lambda: states()["failed"])

    job = Job.objects.get()
    assert (job.attempt, job.crashes) == (3, 3)
    assert [attempt.outcome for attempt in job.attempts.all()] == ["crashed"] * 3
    assert work.read(ledger) == ["start"] * 3
    assert last.is_alive()


def test_a_worker_that_froze_past_its_lease_cannot_write_to_a_job_it_lost(
    rewritten: Callable[[], int], worker: Start, ledger: str
) -> None:
    # It looks at nothing but what it has to write, or it would see that they are lost and write nothing.
    unaware = {"heartbeat_seconds": 1000.0, "watch_seconds": 1000.0, "grace_seconds": 0.3}
    frozen = worker("--concurrency", "4", **unaware).ready()
    work.wait_for.enqueue(ledger, f"{ledger}.flag")
    work.wait_for_and_fail_at_first.enqueue(f"{ledger} fails", f"{ledger}.flag")
    stays = work.linger.enqueue(f"{ledger} stays", 600)
    wait_until(lambda: all(map(work.read, (ledger, f"{ledger} fails", f"{ledger} stays"))))
    frozen.freeze()
    presume_dead(frozen.pid)
    Job.objects.filter(pk=stays.id).update(args={"args": [f"{ledger} stays", 0.0], "kwargs": {}})
    let_go(ledger)
    worker()
    wait_until(lambda: states()["succeeded"] == 3)
    finished = list(Job.objects.order_by("pk").values())
    assert [(job["attempt"], job["crashes"]) for job in finished] == [(2, 1)] * 3

    frozen.signal(signal.SIGCONT)
    for path in (ledger, f"{ledger} fails"):
        wait_until(lambda path=path: f"went on {frozen.pid}" in work.read(path))
    # What it still runs it hands back when it stops.
    frozen.signal(signal.SIGTERM)
    assert frozen.wait() == 0

    assert list(Job.objects.order_by("pk").values()) == finished
    assert rewritten() == 0


def test_a_worker_process_tunes_its_interpreter_for_short_jobs(worker: Start) -> None:
    asked = work.tell_of_the_interpreter.enqueue()
    worker()
    wait_until(lambda: states()["succeeded"])

    asked.refresh()
    frozen, young_objects, switch_seconds = asked.return_value
    assert frozen > 10_000
    assert young_objects == YOUNG_OBJECTS
    assert switch_seconds == pytest.approx(SWITCH_SECONDS)


def test_a_worker_that_was_taken_for_dead_says_that_it_lives(worker: Start, ledger: str) -> None:
    process = worker().ready()
    Worker.objects.all().delete()

    wait_until(lambda: Worker.objects.filter(pid=process.pid).exists(), what="its return")
    work.record.enqueue(ledger, "after")
    wait_until(lambda: "after" in work.read(ledger))


def test_an_atomic_job_of_a_frozen_worker_is_rolled_back(worker: Start, ledger: str) -> None:
    frozen = worker("--concurrency", "1").ready()
    work.make_group_slowly.enqueue(ledger, "ops", 600)
    wait_until(lambda: work.read(ledger))
    if Job.objects.db == "default" and Group.objects.exists():
        raise AssertionError("the group is visible before its job has ended")
    frozen.signal(signal.SIGSTOP)
    # The frozen transaction may hold the write lock of SQLite for ever, so it is killed there.
    frozen.kill()
    wait_until(is_writable)
    Job.objects.update(args={"args": [ledger, "ops", 0.0], "kwargs": {}})
    worker()

    wait_until(lambda: states()["succeeded"])
    assert Group.objects.filter(name="ops").count() == 1
    assert Job.objects.get().attempt == 2


def test_sigterm_lets_running_jobs_end(worker: Start, ledger: str) -> None:
    process = worker().ready()
    work.linger.enqueue(ledger, 1.0)
    work.alinger.enqueue(ledger, 1.0)
    wait_until(lambda: len(work.read(ledger)) == 2)

    process.signal(signal.SIGTERM)

    assert process.wait() == 0
    assert states() == {"succeeded": 2}
    assert not Worker.objects.exists()


def test_what_outlasts_the_grace_is_handed_back_without_burning_an_attempt(
    worker: Start, ledger: str
) -> None:
    process = worker(grace_seconds=0.3).ready()
    work.linger.enqueue(ledger, 30)
    work.alinger.enqueue(ledger, 30)
    wait_until(lambda: len(work.read(ledger)) == 2)

    process.signal(signal.SIGTERM)

    assert process.wait() == 0
    jobs = list(Job.objects.all())
    assert {(job.state, job.attempt, job.worker_id) for job in jobs} == {(Job.State.READY, 0, None)}
    assert "cancelled" in work.read(ledger)
    assert not JobAttempt.objects.exists()


def test_a_second_signal_does_not_wait(worker: Start, ledger: str) -> None:
    process = worker(grace_seconds=60).ready()
    work.linger.enqueue(ledger, 30)
    wait_until(lambda: work.read(ledger))

    process.signal(signal.SIGINT)
    wait_until(lambda: Worker.objects.filter(is_stopping=True).exists())
    process.signal(signal.SIGINT)

    assert process.wait() == 0
    assert Job.objects.get().state == Job.State.READY


def test_a_task_that_the_worker_does_not_know_is_left_for_another_release(worker: Start, ledger: str) -> None:
    work.record.enqueue(ledger)
    Job.objects.update(task="nowhere.at_all")
    work.record.enqueue(ledger, "known")

    process = worker().ready()
    wait_until(lambda: work.read(ledger) == ["known"])
    wait_until(lambda: "unknown task" in process.output())

    job = wait_until(lambda: Job.objects.filter(task="nowhere.at_all", state=Job.State.READY).first())
    assert job.attempt == 0


def test_a_task_that_stays_unknown_is_failed_in_the_end(worker: Start) -> None:
    work.add.enqueue(1)
    Job.objects.update(task="nowhere.at_all")

    worker(unknown_task_pause_seconds=0.05, unknown_task_grace_seconds=0.3)

    wait_until(lambda: states()["failed"])
    assert Job.objects.get().error.endswith("UnknownTask")


def test_a_worker_goes_when_its_parent_goes(worker: Start, tmp_path: Path) -> None:
    parent = worker(under_parent=tmp_path / "pid")
    found = wait_until(lambda: Worker.objects.first(), what="a worker")
    assert found.pid == int((tmp_path / "pid").read_text())

    parent.signal(signal.SIGKILL)

    wait_until(lambda: not Worker.objects.exists(), what="the worker's farewell")


def test_processes_under_one_supervisor_are_replaced_and_stopped_together(worker: Start, ledger: str) -> None:
    supervisor = worker("--processes", "2", "--concurrency", "1")
    wait_until(lambda: Worker.objects.count() == 2, what="two workers")
    work.linger.enqueue(ledger, 600)
    (line,) = wait_until(lambda: work.read(ledger))
    victim = int(line.split()[1])
    Job.objects.update(args={"args": [ledger, 0.01], "kwargs": {}})

    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: states()["succeeded"], what="its job, though its lease is not over")
    job = Job.objects.get()
    assert (job.attempt, job.crashes) == (2, 1)
    wait_until(lambda: Worker.objects.count() == 2, what="a new worker in its place")
    assert victim not in Worker.objects.values_list("pid", flat=True)

    supervisor.signal(signal.SIGTERM)
    assert supervisor.wait() == 0
    assert not Worker.objects.exists()


@pytest.mark.sqlite  # once is enough for the start of two interpreters
def test_the_command_starts_processes_of_its_own() -> None:
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "tests.jobs.worker_settings",
        "JOBS_TEST_DATABASE": str(connection.settings_dict["NAME"]),
        "JOBS_TEST_SETTINGS": json.dumps(FAST),
    }
    command = [sys.executable, "-m", "django", "run_worker", "--processes", "2"]
    supervisor = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: Worker.objects.count() == 2, seconds=180, what="two workers")
        supervisor.terminate()
        assert supervisor.wait(180) == 0
    finally:
        supervisor.kill()
        supervisor.wait()
    assert not Worker.objects.exists()


def test_processes_go_when_their_supervisor_is_killed(worker: Start) -> None:
    supervisor = worker("--processes", "2")
    wait_until(lambda: Worker.objects.count() == 2, what="two workers")

    supervisor.signal(signal.SIGKILL)

    wait_until(lambda: not Worker.objects.exists(), what="the workers' farewell")


def test_a_worker_whose_parent_went_before_it_came_stops_at_once(worker: Start) -> None:
    gone = 2**22 + 1  # above the highest process id there can be

    assert worker("--exit-with-parent", str(gone)).wait() == 0
    assert not Worker.objects.exists()


def test_workers_fire_a_schedule_once(worker: Start) -> None:
    worker().ready()
    worker().ready()
    for number in range(20):
        Schedule.objects.create(
            key=f"s{number}", task="tests.jobs.work.add", args={"args": [number], "kwargs": {}},
            every_seconds=3600, next_fire_at=timezone.now() - timedelta(hours=4, minutes=30),
        )  # fmt: skip

    wait_until(
        lambda: Job.objects.filter(task="tests.jobs.work.add", state=Job.State.SUCCEEDED).count() >= 20
    )

    assert Job.objects.filter(task="tests.jobs.work.add").count() == 20
    assert not Schedule.objects.filter(next_fire_at__lte=timezone.now()).exists()


def test_a_scheduled_job_waits_for_its_time(worker: Start, ledger: str) -> None:
    worker().ready()
    due = timezone.now() + timedelta(seconds=0.3)

    work.record.using(run_after=due).enqueue(ledger)
    assert states() == {"scheduled": 1}

    wait_until(lambda: states()["succeeded"])
    assert due <= Job.objects.get().started_at


@pytest.mark.postgresql
def test_a_worker_that_lost_the_connection_it_listens_on_listens_again(worker: Start, ledger: str) -> None:
    process = worker(idle_poll_seconds=0.5).ready()
    listens = "FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
    ends = f"SELECT pg_terminate_backend(pid) {listens}"
    with connection.cursor() as cursor:
        wait_until(lambda: cursor.execute(ends) or cursor.fetchone(), what="a connection that listens")

    work.record.enqueue(ledger, "meanwhile")
    wait_until(lambda: "meanwhile" in work.read(ledger))
    wait_until(lambda: "the connection that listens was lost" in process.output())
    listening = f"SELECT 1 {listens}"
    with connection.cursor() as cursor:
        wait_until(lambda: cursor.execute(listening) or cursor.fetchone(), what="a new connection")


def test_jobs_held_behind_a_slow_one_go_to_a_worker_with_a_free_slot(worker: Start, ledger: str) -> None:
    first = worker("--concurrency", "1", prefetch_seconds=60).ready()
    enqueue_many(work.record, [[ledger, "short"]] * 50)
    wait_until(lambda: states()["succeeded"] == 50)

    with transaction.atomic():
        work.wait_for.enqueue(ledger, f"{ledger}.flag")
        enqueue_many(work.record, [[ledger, "behind"]] * 10)
    wait_until(lambda: f"waits {first.pid}" in work.read(ledger))
    worker().ready()

    wait_until(lambda: work.read(ledger).count("behind") == 10)
    assert f"went on {first.pid}" not in work.read(ledger)
    let_go(ledger)
    wait_until(lambda: states()["succeeded"] == 61)
    assert {job.attempt for job in Job.objects.all()} == {1}


def test_timeouts_stop_sync_and_async_jobs(worker: Start, ledger: str) -> None:
    work.slow.enqueue(ledger)
    work.aslow.enqueue(ledger)

    worker()

    wait_until(lambda: states()["failed"] == 2)
    assert {job.error for job in Job.objects.all()} == {"svc_infra_django.jobs.errors.JobTimeout"}
    assert not work.read(ledger)


HASTY = {"overrun_seconds": 2.0, "watch_seconds": 0.05, "grace_seconds": 300.0}


def was_timed_out(job: Job) -> None:
    """Its first attempt, and on a busy machine maybe others; none counts as a crash."""
    attempts = {(each.outcome, each.error.rsplit(".", 1)[-1]) for each in job.attempts.all()}
    assert (attempts, job.crashes) == ({("retried", "JobTimeout")}, 0)


@pytest.mark.parametrize("stubborn", [work.ignore_the_timeout, work.aignore_the_timeout])
def test_the_process_of_a_job_that_ignores_its_timeout_is_replaced_when_its_others_have_ended(
    worker: Start, ledger: str, tmp_path: Path, stubborn: work.JobTask
) -> None:
    flag = tmp_path / "flag"
    with transaction.atomic():
        stubborn.enqueue(ledger, "sleep")
        work.wait_for.enqueue(ledger, str(flag))

    supervisor = worker("--processes", "1", "--concurrency", "2", **HASTY)
    wait_until(lambda: "a job ignores its timeout" in supervisor.output())
    wait_until(lambda: len(work.read(ledger)) == 2)
    first = {line.split()[0]: line.split()[1] for line in work.read(ledger)}
    assert first["start"] == first["waits"], "one process has both"
    flag.touch()

    wait_until(lambda: states()["succeeded"] == 2)
    late = Job.objects.get(task=stubborn.module_path)
    was_timed_out(late)
    assert f"went on {first['waits']}" in work.read(ledger)
    assert Job.objects.exclude(pk=late.pk).get().attempt == 1
    assert f"end {first['start']}" not in work.read(ledger)
    old = Worker.objects.filter(pid=int(first["start"]))
    wait_until(lambda: not old.exists() and Worker.objects.exists(), what="a new process in its place")


@pytest.mark.postgresql  # with SQLite it may hold the lock of all writers, the test's among them
def test_a_process_that_never_gives_the_interpreter_back_is_killed(worker: Start, ledger: str) -> None:
    work.ignore_the_timeout.enqueue(ledger, "hold the interpreter")

    supervisor = worker("--processes", "1", heartbeat_seconds=100, **HASTY)
    (line,) = wait_until(lambda: work.read(ledger))
    first = int(line.split()[1])
    # Its last heartbeat is late, its lease not over: nobody else may take its jobs yet.
    presume_dead(first, silent_for=FAST["lease_seconds"] - 50)
    wait_until(lambda: "does not answer" in supervisor.output())

    wait_until(lambda: states()["succeeded"])
    assert Job.objects.get().attempt > 1
    wait_until(lambda: not Worker.objects.filter(pid=first).exists())


@pytest.mark.postgresql  # as above
def test_a_process_that_never_gives_the_interpreter_back_ends_though_its_supervisor_was_killed(
    worker: Start, ledger: str
) -> None:
    work.ignore_the_timeout.enqueue(ledger, "hold the interpreter")
    supervisor = worker("--processes", "1", "--concurrency", "1", lease_seconds=4.0)
    (line,) = wait_until(lambda: work.read(ledger))

    supervisor.signal(signal.SIGKILL)

    wait_until(lambda: has_ended(int(line.split()[1])), what="the end of the orphan")
    assert "in ignore_the_timeout" in supervisor.output(), "where it stood is told"


def has_ended(pid: int) -> bool:
    """Whether a process that is no child of ours is gone, or waits for whoever adopted it to notice."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except ProcessLookupError:
        return True
    except FileNotFoundError:
        return False


def test_where_nobody_would_replace_its_process_a_job_that_ignores_its_timeout_leaves_its_slot(
    worker: Start, ledger: str
) -> None:
    process = worker("--concurrency", "1", **HASTY).ready()
    work.ignore_the_timeout.enqueue(ledger, "sleep")

    wait_until(lambda: states()["succeeded"])
    enqueue_many(work.record, [[ledger, "after"]] * 3)
    wait_until(lambda: states()["succeeded"] == 4)

    was_timed_out(Job.objects.get(task=work.ignore_the_timeout.module_path))
    process.signal(signal.SIGTERM)
    assert process.wait() == 0


def test_only_the_named_queues_are_worked(worker: Start, ledger: str) -> None:
    work.record.enqueue(ledger, "default")
    work.mail.enqueue(ledger, "mail")

    worker("--queues", "mail")

    wait_until(lambda: states()["succeeded"])
    assert work.read(ledger) == ["mail"]
    assert states() == {"succeeded": 1, "ready": 1}


def test_cancelling_reaches_jobs_that_run(worker: Start, ledger: str) -> None:
    worker().ready()
    polite = work.wait_for_cancel.enqueue(ledger)
    coroutine = work.alinger.enqueue(ledger, 60)
    wait_until(lambda: len(work.read(ledger)) == 2)

    cancel(polite.id)
    cancel(coroutine.id)

    wait_until(lambda: {"noticed", "cancelled"} <= set(work.read(ledger)))
    assert states() == {"cancelled": 2}
    assert {attempt.outcome for attempt in JobAttempt.objects.all()} == {"cancelled"}
    # Their slots are free again.
    enqueue_many(work.record, [[ledger, "after"]] * 5)
    wait_until(lambda: work.read(ledger).count("after") == 5)


def test_the_request_id_is_in_the_log_lines_of_the_job(worker: Start, ledger: str) -> None:
    with bound(request_id="request-1234"):
        result = work.tell.enqueue(ledger)

    process = worker()
    wait_until(lambda: states()["succeeded"])

    lines = [json.loads(line) for line in process.output().splitlines() if line.startswith("{")]
    told = next(line for line in lines if line["event"] == "told from inside")
    assert (told["request_id"], told["job_id"], told["attempt"]) == ("request-1234", result.id, 1)
    assert told["task"] == "tests.jobs.work.tell"
    ended = next(line for line in lines if line["event"] == "job succeeded")
    assert ended["request_id"] == "request-1234"


def test_async_jobs_use_the_orm_side_by_side(worker: Start) -> None:
    enqueue_many(work.amake_group, [[f"group {number}"] for number in range(20)])

    worker("--concurrency", "8")

    wait_until(lambda: states()["succeeded"] == 20)
    assert Group.objects.count() == 20


def test_a_service_runs_beside_the_jobs_and_is_started_again_when_it_fails(
    worker: Start, tmp_path: Path
) -> None:
    path = tmp_path / "service"
    process = worker(around={"service": str(path)}).ready()

    wait_until(lambda: path.exists() and path.read_text().splitlines()[:2] == ["start", "start"])
    process.signal(signal.SIGTERM)

    assert process.wait() == 0
    assert path.read_text().splitlines()[-1] == "stopped"
    assert "worker service failed" in process.output()


@pytest.mark.postgresql
def test_workers_outlive_their_database_connections(worker: Start, ledger: str) -> None:
    process = worker().ready()
    ids = enqueue_many(work.record_pid, [[ledger]] * 200)

    for _ in range(5):
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        time.sleep(0.15)

    wait_until(lambda: states()["succeeded"] == 200)
    assert process.is_alive()
    ran = [line.split() for line in work.read(ledger)]
    assert sorted(job for job, _, _ in ran) == sorted(ids), "each ran once"
    assert {attempt for _, attempt, _ in ran} == {"1"}


def test_a_worker_whose_jobs_are_long_is_heard_of_meanwhile(worker: Start, ledger: str) -> None:
    worker("--concurrency", "1").ready()
    work.linger.enqueue(ledger, 600)
    wait_until(lambda: work.read(ledger))

    for _ in range(3):
        heard_of_at = Worker.objects.get().heartbeat_at
        wait_until(lambda then=heard_of_at: Worker.objects.get().heartbeat_at > then)


def test_schedulers_that_are_killed_and_frozen_leave_no_gap_and_fire_nothing_twice(
    worker: Callable[..., Process],
) -> None:
    step = 0.1
    Schedule.objects.create(
        key="often", task="tests.jobs.work.hourly", every_seconds=step, catch_up="all", max_catch_up=1000,
        next_fire_at=timezone.now(),
    )  # fmt: skip
    frozen, killed = worker("--queues", "mail").ready(), worker("--queues", "mail").ready()
    wait_until(lambda: Job.objects.count() > 5)

    frozen.freeze()
    killed.signal(signal.SIGKILL)
    worker("--queues", "mail").ready()
    frozen.signal(signal.SIGCONT)
    wait_until(lambda: Job.objects.count() > 25)

    made = Job.objects.values_list("headers", flat=True)
    of_it = [headers for headers in made if headers.get("schedule") == "often"]
    fired = sorted(datetime.fromisoformat(headers["fire_at"]) for headers in of_it)
    gaps = [(later - first).total_seconds() for first, later in itertools.pairwise(fired)]
    assert {round(gap, 3) for gap in gaps} == {step}

"""Jobs in Celery's workers, whose broker is emptied, killed and made to say everything twice."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import UUID

import kombu
import kombu.pools
import pytest
from celery.app.trace import trace_task
from celery.concurrency.base import BasePool
from celery.signals import task_prerun
from django.contrib.auth.models import Group
from django.db import DatabaseError, connection, connections, transaction
from django.db.models import Sum
from django.utils import timezone

from svc_infra_django.contrib.celery import engine as engine_room
from svc_infra_django.jobs import enqueue_many
from svc_infra_django.jobs.engines import publishers
from svc_infra_django.jobs.models import Job, Schedule, Throughput, Worker
from svc_infra_django.jobs.rescue import rescue
from svc_infra_django.jobs.services.operating import cancel, discard, pause, resume
from svc_infra_django.jobs.worker import drain
from svc_infra_django.webhooks import Publication, publish_many
from svc_infra_django.webhooks.models import Delivery
from svc_infra_django.webhooks.services.replaying import start_replay
from svc_infra_django.webhooks.services.subscribing import create_endpoint
from tests.jobs import work
from tests.jobs.conftest import GIB, accepted, held_by, let_go, states, switch, the_laws_hold, wait_until
from tests.webhooks.conftest import Receiver

from .conftest import SETTINGS, Broker, CeleryWorker, all_ran_once

pytestmark = [
    pytest.mark.redis,
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("engine"),
]


@pytest.fixture(scope="module")
def celery(
    broker: Broker, django_db_setup: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[CeleryWorker]:
    worker = CeleryWorker(broker, tmp_path_factory.mktemp("celery") / "log")
    yield worker
    worker.end()


def test_jobs_of_the_queue_run_in_celery_and_keep_their_results(ledger: str) -> None:
    ids = enqueue_many(work.record_pid, [[ledger]] * 120)
    results = [work.add.enqueue(2, b=3), work.aadd.enqueue(2)]
    failing = work.raise_named.enqueue("Other")

    wait_until(lambda: states() == {"succeeded": 122, "failed": 1})

    all_ran_once(ids, ledger)
    assert {int(line.split()[2]) for line in work.read(ledger)} <= set(
        Worker.objects.values_list("pid", flat=True)
    )
    for result in results:
        result.refresh()
    assert [result.return_value for result in results] == [5, 3]
    failing.refresh()
    assert failing.errors[0].exception_class is RuntimeError
    wait_until(
        lambda: Throughput.objects.aggregate(n=Sum("succeeded"), f=Sum("failed")) == {"n": 122, "f": 1}
    )


def test_nothing_of_celery_is_around_the_jobs_of_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its receivers would close the database connections before and after them."""
    from .jobs_app import app

    ran, told = list[str](), list[str]()

    def hear(task_id: str, **_: Any) -> None:
        told.append(task_id)

    task = app.tasks[engine_room.NAME]
    monkeypatch.setattr(engine_room, "run_published", ran.extend)
    monkeypatch.setattr(task, "__trace__", None)
    task_prerun.connect(hear)
    engine_room._trace_lightly(task)

    ended = trace_task(task, "id", [["one", "two"]], {}, {})

    assert (ran, told, ended.info) == (["one", "two"], [], None)


def test_a_pool_of_greenlets_is_refused() -> None:
    from .jobs_app import app

    class Greenlets(BasePool):  # type: ignore[misc]  # Celery has no type hints
        is_green = True

    with pytest.raises(SystemExit, match="do not run in a pool of greenlets"):
        app.WorkController(pool=Greenlets)


def test_what_the_broker_forgot_is_published_again(broker: Broker, celery: CeleryWorker, ledger: str) -> None:
    celery.freeze()
    ids = enqueue_many(work.record_pid, [[ledger]] * 200)
    broker.empty()

    celery.signal(signal.SIGCONT)

    wait_until(lambda: states()["succeeded"] == 200)
    all_ran_once(ids, ledger)


def test_a_broker_that_dies_and_comes_back_empty_loses_nothing(
    broker: Broker, celery: CeleryWorker, ledger: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = enqueue_many(work.record_pid, [[ledger]] * 100)
    broker.stop()

    asked = Asked(publishers["celery"], monkeypatch)
    for asked.now in (0.0, 0.5, 1.0, 1.9, 2.1, 3.0):
        ids.append(work.record_pid.enqueue(ledger).id)
    assert asked.at == [0.0, 2.1], "who enqueues does not wait for it again and again"
    broker.start()

    wait_until(lambda: celery.keep_alive() or states()["succeeded"] == 106)
    ran = {line.split()[0] for line in work.read(ledger)}
    assert ran == set(ids)


class Asked:
    """When a publisher asks its broker, by a clock that stands still."""

    def __init__(self, publisher: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.at = 0.0, list[float]()
        self._connected = publisher._connected
        monkeypatch.setattr(engine_room, "monotonic", lambda: self.now)
        monkeypatch.setattr(publisher, "_connected", self._ask)

    def _ask(self) -> Any:
        self.at.append(self.now)
        return self._connected()


def test_webhooks_are_delivered_and_replayed_whatever_the_broker_forgets(
    broker: Broker, celery: CeleryWorker, receiver: Receiver, svc_settings: Callable[..., None]
) -> None:
    svc_settings(webhooks={"allow_http": True, "allowed_networks": ["127.0.0.0/8"]}, jobs=SETTINGS)
    endpoint, _ = create_endpoint(url=receiver.url(), event_types=["order.*"])
    done = Delivery.objects.filter(state=Delivery.State.SUCCEEDED)
    celery.freeze()
    messages = publish_many([Publication("order.placed", {"n": n}) for n in range(30)])
    broker.empty()

    celery.signal(signal.SIGCONT)
    wait_until(lambda: done.count() == 30)
    celery.freeze()
    start_replay(endpoint=endpoint, only_failed=False, per_second=1000)
    broker.empty()

    celery.signal(signal.SIGCONT)
    wait_until(lambda: done.filter(attempts=2).count() == 30)
    assert set(receiver.ids()) == {message.uid for message in messages}


def test_what_is_delivered_twice_runs_once(ledger: str) -> None:
    ids = enqueue_many(work.record_pid, [[ledger]] * 50)
    publish: Any = publishers["celery"]
    for _ in range(3):
        publish("default", [UUID(pk) for pk in reversed(ids)])

    wait_until(lambda: states()["succeeded"] == 50)
    publish("default", [UUID(pk) for pk in ids])
    last = work.record_pid.enqueue(ledger)
    wait_until(lambda: states()["succeeded"] == 51)

    all_ran_once([*ids, last.id], ledger)


@pytest.mark.sqlite  # once is enough: what claims is the claim of every worker
def test_messages_of_jobs_that_are_not_to_be_run_do_nothing(celery: CeleryWorker, ledger: str) -> None:
    celery.freeze()
    cancelled, discarded, unknown, plain = enqueue_many(work.record_pid, [[ledger]] * 4)
    cancel(cancelled)
    discard(discarded)
    Job.objects.filter(pk=unknown).update(task="nowhere.at_all")

    celery.signal(signal.SIGCONT)
    wait_until(lambda: states()["succeeded"])
    wait_until(lambda: "unknown task" in celery.log.read_text())
    left = Job.objects.filter(pk=unknown, state__in=Job.WAITING)
    wait_until(left.exists, what="another release")

    assert left.get().attempt == 0
    all_ran_once([plain], ledger)


def test_a_process_that_dies_between_commit_and_publishing_delays_its_jobs_only(
    ledger: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(publishers, "celery", lambda queue, ids: None)
        ids = enqueue_many(work.record_pid, [[ledger]] * 5)

    wait_until(lambda: states()["succeeded"] == 5)
    all_ran_once(ids, ledger)


def test_short_jobs_behind_a_long_one_are_left_to_another_process(ledger: str) -> None:
    ids = enqueue_many(work.linger, [[ledger, 0.3]] * 10)

    wait_until(lambda: states()["succeeded"] == 10)

    assert len({line.split()[1] for line in work.read(ledger)}) == 2
    assert {job.attempt for job in Job.objects.filter(pk__in=ids)} == {1}


def test_the_job_of_a_killed_child_runs_again_and_does_not_wait_for_its_lease(
    celery: CeleryWorker, ledger: str
) -> None:
    work.linger.enqueue(ledger, 600)
    (line,) = wait_until(lambda: work.read(ledger))
    Job.objects.update(args={"args": [ledger, 0.01], "kwargs": {}})

    victim = int(line.split()[1])
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: states()["succeeded"])

    told = [json.loads(line) for line in celery.log.read_text().splitlines() if line.startswith("{")]
    assert ("a worker process died", victim) in [(line["event"], line.get("pid")) for line in told]
    job = Job.objects.get()
    assert (job.attempt, job.crashes) == (2, 1)


@pytest.mark.parametrize("task", [work.die_after_the_body, work.die_before_the_commit])
def test_a_child_that_dies_between_the_body_and_its_acknowledgement(ledger: str, task: work.JobTask) -> None:
    task.enqueue(ledger)

    wait_until(lambda: states()["succeeded"])

    job = Job.objects.get()
    assert (job.attempt, job.crashes, len(work.read(ledger))) == (2, 1, 2)
    assert Group.objects.count() == (1 if task.atomic else 2)


def test_a_claim_that_no_child_lived_to_begin_is_made_again(celery: CeleryWorker, ledger: str) -> None:
    celery.armed.touch()
    work.record_pid.enqueue(ledger)

    wait_until(lambda: states()["succeeded"])

    assert not celery.armed.exists()
    assert [line.split()[1] for line in work.read(ledger)] == ["2"]
    assert Job.objects.get().crashes == 1


def test_a_job_that_eats_more_memory_than_there_is_fails_alone(celery: CeleryWorker, ledger: str) -> None:
    work.eat_memory.enqueue(ledger, 16 * GIB)
    enqueue_many(work.record, [[ledger, "beside it"]] * 5)

    wait_until(lambda: states() == {"failed": 1, "succeeded": 5})

    job = Job.objects.get(state=Job.State.FAILED)
    assert (job.error, job.attempt, job.crashes) == ("builtins.MemoryError", 2, 0)
    assert sorted(work.read(ledger)) == ["beside it"] * 5 + ["start"] * 2


@pytest.mark.sqlite
def test_many_who_write_to_one_file_wait_for_each_other(celery: CeleryWorker, ledger: str) -> None:
    errors = list[DatabaseError]()

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
    wait_until(lambda: states() == {"succeeded": 75})

    assert not errors
    assert "database is locked" not in celery.log.read_text()
    all_ran_once([str(pk) for pk in Job.objects.values_list("pk", flat=True)], ledger)


@pytest.mark.postgresql
def test_celery_waits_for_a_database_that_can_only_be_read(celery: CeleryWorker, ledger: str) -> None:
    work.linger.enqueue(ledger, 0.3)
    wait_until(lambda: work.read(ledger))

    try:
        switch("default_transaction_read_only", "on")
        enqueue_many(work.record, [[ledger, "meanwhile"]] * 20)
        wait_until(lambda: "read-only transaction" in celery.log.read_text())
        assert "meanwhile" not in work.read(ledger)
    finally:
        switch("default_transaction_read_only", "off")

    wait_until(lambda: states() == {"succeeded": 21})
    assert set(Job.objects.values_list("attempt", "crashes")) == {(1, 0)}
    assert work.read(ledger).count("meanwhile") == 20


@pytest.mark.postgresql
def test_a_claim_that_times_out_takes_nothing_and_is_made_again(celery: CeleryWorker, ledger: str) -> None:
    try:
        switch("lock_timeout", "50ms")
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("LOCK TABLE svc_jobs_job IN EXCLUSIVE MODE")
            ids = enqueue_many(work.record_pid, [[ledger]] * 20)
            publishers["celery"]("default", [UUID(pk) for pk in ids])
            wait_until(lambda: "lock timeout" in celery.log.read_text())
        wait_until(lambda: states() == {"succeeded": 20})
    finally:
        switch("lock_timeout", "0")

    all_ran_once(ids, ledger)


def test_duties_whose_process_was_killed_leave_no_gap_and_fire_nothing_twice(
    celery: CeleryWorker, ledger: str
) -> None:
    step = 0.1
    duties = Worker.objects.filter(concurrency=0)
    Schedule.objects.create(
        key="often", task=work.hourly.module_path, every_seconds=step, catch_up="all", max_catch_up=1000,
        next_fire_at=timezone.now(),
    )  # fmt: skip
    wait_until(lambda: Job.objects.count() > 5)
    victim = duties.get().pid

    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: duties.exclude(pid=victim).exists(), what="others in their place")
    before = Job.objects.count()
    wait_until(lambda: Job.objects.count() > before + 5)

    made = Job.objects.filter(headers__schedule="often").values_list("headers", flat=True)
    fired = sorted(datetime.fromisoformat(headers["fire_at"]) for headers in made)
    gaps = {round((then - first).total_seconds(), 3) for first, then in itertools.pairwise(fired)}
    assert gaps == {step}
    Schedule.objects.all().delete()


@pytest.mark.sqlite  # once is enough: what counts the deaths is the rescue of every worker
def test_a_job_that_kills_its_children_is_poison(ledger: str) -> None:
    work.kill_me.enqueue(ledger)
    wait_until(lambda: states()["failed"])

    job = Job.objects.get()
    assert (job.attempt, job.crashes, work.read(ledger)) == (3, 3, ["start"] * 3)
    work.record.enqueue(ledger, "after")
    wait_until(lambda: "after" in work.read(ledger))


@pytest.mark.postgresql
def test_celery_outlives_its_database_connections(ledger: str) -> None:
    ids = enqueue_many(work.record_pid, [[ledger]] * 200)
    loses_its_own = work.lose_the_connection.enqueue("kept once")

    for _ in range(5):
        end_all_connections()
        time.sleep(0.1)

    wait_until(lambda: states()["succeeded"] == 201)
    all_ran_once(ids, ledger)
    assert Job.objects.get(pk=loses_its_own.id).attempt == 2
    assert Group.objects.get().name == "kept once"


def end_all_connections() -> None:
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )


def test_children_that_take_the_place_of_killed_ones_work(celery: CeleryWorker, ledger: str) -> None:
    """A fork of a process that has the database open could take it for locked, for ever."""
    flag = Path(f"{ledger}.go")
    enqueue_many(work.wait_for, [[ledger, str(flag)]] * 4)
    killed = {pid_of(line) for line in wait_until(lambda: two_pids(ledger))}
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    flag.touch()

    wait_until(lambda: states()["succeeded"] == 4)

    assert not killed & {pid_of(line) for line in work.read(ledger) if line.startswith("went on")}
    assert not celery.has_open(str(connection.settings_dict["NAME"]))


def two_pids(ledger: str) -> list[str]:
    lines = work.read(ledger)
    return lines if len({pid_of(line) for line in lines}) == 2 else []


def pid_of(line: str) -> int:
    return int(line.split()[-1])


def test_the_child_of_a_job_that_ignores_its_timeout_is_replaced(celery: CeleryWorker, ledger: str) -> None:
    work.ignore_the_timeout.enqueue(ledger, "sleep")
    wait_until(lambda: states()["succeeded"])

    job = Job.objects.get()
    assert (job.crashes, {each.outcome for each in job.attempts.all()}) == (0, {"retried"})
    begun, ended = (line.split() for line in work.read(ledger))
    assert (begun[0], ended[0]) == ("start", "end") and begun[1] != ended[1]


def test_the_ledger_is_right_though_all_of_celery_was_killed(
    rewritten: Callable[[], int], celery: CeleryWorker, ledger: str
) -> None:
    ids = accepted(ledger)
    held_by(ledger)
    wait_until(lambda: len(work.read(ledger)) > 10)

    celery.kill()
    let_go(ledger)
    celery.keep_alive()

    wait_until(lambda: states() == {"succeeded": len(ids)})
    the_laws_hold(ids, ledger)
    assert rewritten() == 0


@pytest.mark.sqlite  # once is enough: no database is asked
def test_no_process_outlives_a_celery_whose_main_process_was_killed(
    celery: CeleryWorker, ledger: str
) -> None:
    work.linger.enqueue(ledger, 600)
    wait_until(lambda: work.read(ledger))
    Job.objects.update(args={"args": [ledger, 0.0], "kwargs": {}})

    celery.kill_main()

    wait_until(lambda: not celery.left(), what="the end of all its processes")
    celery.presume_dead()
    celery.keep_alive()
    wait_until(lambda: states()["succeeded"])
    assert (Job.objects.get().attempt, Job.objects.get().crashes) == (2, 1)


def test_celery_that_froze_past_its_lease_cannot_write_to_a_job_it_lost(
    rewritten: Callable[[], int], celery: CeleryWorker, ledger: str
) -> None:
    work.wait_for.enqueue(ledger, f"{ledger}.flag")
    work.wait_for_and_fail_at_first.enqueue(f"{ledger} fails", f"{ledger}.flag")
    lines = {path: wait_until(lambda path=path: work.read(path))[0] for path in (ledger, f"{ledger} fails")}
    celery.freeze()
    celery.presume_dead()
    let_go(ledger)
    assert rescue(lease=timedelta(seconds=60), max_crashes=3) == 2
    assert drain() == 2
    finished = list(Job.objects.order_by("pk").values())

    celery.signal(signal.SIGCONT)
    for path, line in lines.items():
        wait_until(lambda path=path, line=line: line.replace("waits", "went on") in work.read(path))
    wait_until(lambda: "taken for dead" in celery.log.read_text())
    after = work.record.enqueue(ledger, "after")
    wait_until(lambda: "after" in work.read(ledger))

    assert list(Job.objects.exclude(pk=after.id).order_by("pk").values()) == finished
    assert [(job["attempt"], job["crashes"]) for job in finished] == [(2, 1)] * 2
    assert rewritten() == 0


@pytest.mark.parametrize(
    "numbers",
    [
        (signal.SIGTERM,),
        # Once is enough: the signals differ, and not what is written.
        pytest.param((signal.SIGQUIT,), marks=pytest.mark.sqlite),
        pytest.param((signal.SIGTERM, signal.SIGQUIT), marks=pytest.mark.sqlite),
    ],
    ids=str,
)
def test_what_outlasts_the_grace_of_a_celery_that_stops_is_handed_back_without_burning_an_attempt(
    celery: CeleryWorker, ledger: str, numbers: tuple[signal.Signals, ...]
) -> None:
    # Not so short any more that Celery is told to send more before they have run.
    enqueue_many(work.linger, [[ledger, 0.3]] * 4)
    wait_until(lambda: states()["succeeded"] == 4)
    long = Job.objects.filter(pk=work.linger.enqueue(f"{ledger} of it", 600).id)
    wait_until(lambda: work.read(f"{ledger} of it"))
    end_all_connections()

    celery.stop(*numbers)

    job = long.get()
    assert (job.state, job.attempt, job.crashes, job.worker_id) == (Job.State.READY, 0, 0, None)
    long.update(args={"args": [ledger, 0.0], "kwargs": {}})
    celery.keep_alive()
    wait_until(lambda: states()["succeeded"] == 5)
    assert long.get().attempt == 1


def test_a_paused_queue_drops_its_messages_and_has_them_again_when_it_is_resumed(ledger: str) -> None:
    pause("default")
    ids = enqueue_many(work.record_pid, [[ledger]] * 5)
    time.sleep(0.3)
    assert states() == {"ready": 5}

    resume("default")

    wait_until(lambda: states()["succeeded"] == 5)
    all_ran_once(ids, ledger)


def test_jobs_for_later_and_of_schedules_are_made_ready_by_celery_itself(ledger: str) -> None:
    due = timezone.now() + timedelta(seconds=0.5)
    later = work.record.using(run_after=due).enqueue(ledger)
    Schedule.objects.create(key="hourly", task=work.hourly.module_path, every_seconds=3600, next_fire_at=due)
    fired = Job.objects.filter(headers__schedule="hourly", state=Job.State.SUCCEEDED)

    wait_until(lambda: fired.exists() and work.read(ledger))

    assert Job.objects.get(pk=later.id).started_at >= due
    assert fired.get().started_at >= due


@pytest.mark.postgresql
def test_a_hundred_thousand_jobs_for_later_are_in_nobodys_memory(
    broker: Broker, celery: CeleryWorker, ledger: str
) -> None:
    # Every process has done all that it will do, and has in memory what it needs for it.
    enqueue_many(work.linger, [[ledger, 0.1]] * 20)
    work.record.using(run_after=timezone.now() + timedelta(seconds=0.1)).enqueue(ledger)
    wait_until(lambda: states()["succeeded"] == 21)
    Job.objects.all().delete()
    work.record.using(run_after=timezone.now() + timedelta(hours=48)).enqueue(ledger)
    before = celery.memory()
    columns = ", ".join(field.column for field in Job._meta.concrete_fields if field.name != "id")
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO svc_jobs_job (id, {columns})"  # noqa: S608 - names of columns
            f" SELECT gen_random_uuid(), {columns} FROM svc_jobs_job, generate_series(1, 100000)"
        )

    # To stage this one, all that waits for its time was looked at.
    work.record.using(run_after=timezone.now() + timedelta(seconds=0.5)).enqueue(ledger)
    wait_until(lambda: states()["succeeded"])

    assert states() == {"succeeded": 1, "scheduled": 100_001}
    with kombu.Connection(broker.url) as client:
        assert kombu.Queue("default", channel=client.default_channel).queue_declare().message_count == 0
    assert (celery.memory() - before) * os.sysconf("SC_PAGE_SIZE") < 100 * 2**20
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM svc_jobs_job")

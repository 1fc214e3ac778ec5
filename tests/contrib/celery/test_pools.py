"""Jobs in those of Celery's pools that have no process for each: everything happens in the main process."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from svc_infra_django.jobs import enqueue_many
from svc_infra_django.jobs.models import Job, Worker
from svc_infra_django.jobs.rescue import rescue
from svc_infra_django.jobs.services.operating import cancel
from svc_infra_django.jobs.worker import drain
from tests.jobs import work
from tests.jobs.conftest import accepted, held_by, let_go, states, the_laws_hold, wait_until

from .conftest import Broker, CeleryWorker, all_ran_once

pytestmark = [
    pytest.mark.redis,
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("engine"),
]


threads = pytest.mark.parametrize("celery", ["threads"], indirect=True)
threads_and_solo = pytest.mark.parametrize(
    # Once is enough for the solo pool: it differs in who waits for the jobs, and not in what is written.
    "celery",
    ["threads", pytest.param("solo", marks=pytest.mark.sqlite)],
    indirect=True,
)


@pytest.fixture(scope="module")
def celery(
    request: pytest.FixtureRequest,
    broker: Broker,
    django_db_setup: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[CeleryWorker]:
    worker = CeleryWorker(broker, tmp_path_factory.mktemp("celery") / "log", "--pool", request.param)
    yield worker
    worker.end()


@threads_and_solo
def test_jobs_run_in_the_main_process(celery: CeleryWorker, ledger: str) -> None:
    ids = enqueue_many(work.record_pid, [[ledger]] * 120)
    coroutine = work.aadd.enqueue(2)

    wait_until(lambda: states()["succeeded"] == 121)

    all_ran_once(ids, ledger)
    assert {int(line.split()[2]) for line in work.read(ledger)} == {celery.pid}
    coroutine.refresh()
    assert coroutine.return_value == 3


@threads_and_solo
def test_timeouts_and_cancelling_reach_jobs_that_run(celery: CeleryWorker, ledger: str) -> None:
    slow = [work.slow.enqueue(ledger), work.aslow.enqueue(ledger)]
    wait_until(lambda: states()["failed"] == 2)
    assert {Job.objects.get(pk=each.id).error.rsplit(".", 1)[-1] for each in slow} == {"JobTimeout"}
    polite = work.wait_for_cancel.enqueue(ledger)
    wait_until(lambda: work.read(ledger))

    cancel(polite.id)

    wait_until(lambda: "noticed" in work.read(ledger))
    work.record.enqueue(ledger, "after")
    wait_until(lambda: "after" in work.read(ledger))
    assert work.read(ledger) == ["start", "noticed", "after"]


@threads_and_solo
def test_a_job_that_ignores_its_timeout_loses_its_place_and_not_the_process(
    celery: CeleryWorker, ledger: str
) -> None:
    stubborn = work.ignore_the_timeout.enqueue(ledger, "sleep")
    wait_until(lambda: states()["succeeded"])
    enqueue_many(work.record, [[ledger, "after"]] * 3)
    wait_until(lambda: states()["succeeded"] == 4)

    job = Job.objects.get(pk=stubborn.id)
    attempts = {(each.outcome, each.error.rsplit(".", 1)[-1]) for each in job.attempts.all()}
    assert (attempts, job.crashes) == ({("retried", "JobTimeout")}, 0)
    assert set(work.read(ledger)) == {f"start {celery.pid}", f"end {celery.pid}", "after"}


@threads
def test_the_ledger_is_right_though_the_process_was_killed(
    rewritten: Callable[[], int], celery: CeleryWorker, ledger: str
) -> None:
    ids = accepted(ledger)
    held_by(ledger)

    celery.kill()
    let_go(ledger)
    celery.keep_alive()

    wait_until(lambda: states() == {"succeeded": len(ids)})
    the_laws_hold(ids, ledger)
    assert rewritten() == 0


@threads
def test_what_froze_past_its_lease_cannot_write_to_a_job_it_lost(
    rewritten: Callable[[], int], celery: CeleryWorker, ledger: str
) -> None:
    work.wait_for.enqueue(ledger, f"{ledger}.flag")
    (line,) = wait_until(lambda: work.read(ledger))
    celery.freeze()
    celery.presume_dead()
    let_go(ledger)
    assert rescue(lease=timedelta(seconds=60), max_crashes=3) == 1
    assert drain() == 1
    finished = Job.objects.values().get()

    celery.signal(signal.SIGCONT)
    wait_until(lambda: line.replace("waits", "went on") in work.read(ledger))
    after = work.record.enqueue(ledger, "after")
    wait_until(lambda: "after" in work.read(ledger))

    assert Job.objects.exclude(pk=after.id).values().get() == finished
    assert rewritten() == 0


@threads_and_solo
def test_what_outlasts_the_grace_is_handed_back_without_burning_an_attempt(
    celery: CeleryWorker, ledger: str
) -> None:
    long = Job.objects.filter(pk=work.linger.enqueue(ledger, 600).id)
    wait_until(lambda: work.read(ledger))

    celery.stop(signal.SIGTERM)
    is_as_good_as_new(long.get())
    celery.keep_alive(grace_seconds=600.0)
    wait_until(lambda: len(work.read(ledger)) == 2)
    celery.stop(signal.SIGQUIT)
    is_as_good_as_new(long.get())

    long.update(args={"args": [ledger, 0.0], "kwargs": {}})
    celery.keep_alive()
    wait_until(lambda: states()["succeeded"])
    assert long.get().attempt == 1


def is_as_good_as_new(job: Job) -> None:
    assert (job.state, job.attempt, job.crashes, job.worker_id) == (Job.State.READY, 0, 0, None)
    assert not Worker.objects.exists()

"""Celery's workers while the database crashes, loses answers or is behind a pooler, or the clock is odd."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType

import kombu.pools
import pytest
from django.contrib.auth.models import Group
from django.db import connection
from django.db.models.functions import Now
from django.utils import timezone

from svc_infra_django.jobs import enqueue_many
from svc_infra_django.jobs.engines import publishers
from svc_infra_django.jobs.models import Job, Schedule, Worker
from svc_infra_django.jobs.rescue import rescue
from svc_infra_django.jobs.services.operating import cancel
from tests.jobs import work
from tests.jobs.conftest import (
    Cutter,
    Database,
    accepted_through_crashes,
    advisory_locks,
    all_come_to_a_good_end,
    states,
    wait_until,
)

from .conftest import SETTINGS, Broker, CeleryWorker, all_ran_once

pytestmark = [pytest.mark.redis, pytest.mark.django_db(transaction=True)]

Start = Callable[..., CeleryWorker]


@pytest.fixture
def start(
    svc_settings: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Start]:
    """Start a Celery of the test's own: `start(port=5433)` with its database there."""
    from .jobs_app import app, run_jobs

    broker = Broker()
    svc_settings(jobs=SETTINGS)
    monkeypatch.setitem(app.conf, "broker_url", broker.url)
    run_jobs(app)
    with ExitStack() as stack:

        def begin(
            *, port: int = 0, settings: Mapping[str, object] = MappingProxyType({}), **environment: str
        ) -> CeleryWorker:
            at = connection.settings_dict
            account = f"{at['USER']}:{at['PASSWORD']}" if at["PASSWORD"] else at["USER"]
            url = f"postgres://{account}@{at['HOST']}:{port or at['PORT'] or 5432}/{at['NAME']}"
            worker = CeleryWorker(
                broker, tmp_path / "log", settings=settings, DATABASE_URL=url, **environment
            )
            stack.callback(worker.end)
            return worker

        yield begin
    publishers.clear()
    kombu.pools.reset()
    app.close()
    broker.stop()


@pytest.mark.postgresql
def test_a_database_that_crashes_again_and_again_costs_time_and_nothing_else(
    database: Database, start: Start, ledger: str
) -> None:
    celery = start()

    accepted = accepted_through_crashes(database, ledger)

    all_come_to_a_good_end(accepted, ledger)
    assert celery.is_alive()


@pytest.mark.postgresql
def test_an_acknowledgement_whose_answer_was_lost_is_no_error(
    cutter: Cutter, start: Start, ledger: str
) -> None:
    celery = start(port=cutter.port)

    ids = enqueue_many(work.record_pid, [[ledger]] * 50)
    wait_until(lambda: states() == {"succeeded": 50})
    wait_until(lambda: "jobs could not be claimed or written" in celery.log.read_text())
    # Before it ends it has written it once more.
    celery.stop(signal.SIGTERM)

    assert cutter.has_cut
    all_ran_once(ids, ledger)
    assert "was taken away" not in celery.log.read_text()


@pytest.mark.pgbouncer
def test_behind_a_pooler_that_keeps_no_session_everything_goes_on(
    pooled: None, start: Start, ledger: str
) -> None:
    celery = start(settings={"listen": False})
    ids = enqueue_many(work.record_pid, [[ledger]] * 100)
    enqueue_many(work.make_group, [[f"sync {number}"] for number in range(10)])
    enqueue_many(work.amake_group, [[f"async {number}"] for number in range(10)])
    enqueue_many(work.two_a_tenant, [["a"]] * 6)
    enqueue_many(work.ten_a_second, [[]] * 3)
    work.charge_once.enqueue(f"{ledger} once", "first", [], [1, 2])
    work.add.using(run_after=timezone.now() + timedelta(seconds=0.2)).enqueue(1)
    wait_until(lambda: states() == {"succeeded": 131})
    all_ran_once(ids, ledger)
    assert Group.objects.count() == 21
    assert [line.split()[1] for line in work.read(f"{ledger} once")] == ["True", "False", "False"]

    polite = work.wait_for_cancel.enqueue(f"{ledger} cancel")
    wait_until(lambda: work.read(f"{ledger} cancel"))
    cancel(polite.id)
    wait_until(lambda: "noticed" in work.read(f"{ledger} cancel"))
    long = work.linger.enqueue(f"{ledger} long", 600)
    (line,) = wait_until(lambda: work.read(f"{ledger} long"))
    Job.objects.filter(pk=long.id).update(args={"args": [f"{ledger} long", 0.0], "kwargs": {}})
    os.kill(int(line.split()[1]), signal.SIGKILL)
    wait_until(lambda: states() == {"succeeded": 132, "cancelled": 1})
    celery.stop(signal.SIGTERM)

    told = celery.log.read_text()
    assert "prepared statement" not in told and "could not be claimed" not in told
    assert advisory_locks() == 0, "no lock of a session was left to whoever has the connection next"


@pytest.mark.postgresql
def test_only_the_clock_of_the_database_counts(start: Start, ledger: str) -> None:
    hour = 3600
    neighbour = Worker.objects.create(name="neighbour", host="elsewhere", pid=1, concurrency=1)
    its = Job.objects.filter(pk=work.mail.enqueue(ledger, "its").id)
    its.update(state=Job.State.RUNNING, worker_id=neighbour.pk, attempt=1, epoch=1, attempted_at=Now())
    start(JOBS_TEST_CLOCK=str(hour))
    long = Job.objects.filter(pk=work.linger.enqueue(ledger, 600).id)
    wait_until(lambda: work.read(ledger))
    soon = work.record.using(run_after=timezone.now() + timedelta(seconds=0.5)).enqueue(ledger, "soon")
    later = work.record.using(run_after=timezone.now() + timedelta(minutes=30)).enqueue(ledger, "later")
    due = timezone.now().replace(microsecond=0) + timedelta(seconds=1)
    Schedule.objects.create(
        key="hourly", task=work.hourly.module_path, every_seconds=hour, next_fire_at=due, catch_up="all"
    )

    wait_until(lambda: "soon" in work.read(ledger))
    wait_until(lambda: Job.objects.filter(headers__schedule="hourly").exists())
    rows = Worker.objects.exclude(pk=neighbour.pk)
    for pk, then in dict(rows.values_list("pk", "heartbeat_at")).items():
        wait_until(lambda pk=pk, then=then: Worker.objects.get(pk=pk).heartbeat_at > then)

    assert rescue(lease=timedelta(seconds=60), max_crashes=3) == 0, "its workers live"
    assert Job.objects.get(pk=later.id).state == Job.State.SCHEDULED
    found = Job.objects.get(pk=soon.id)
    assert found.run_at <= found.started_at <= timezone.now()
    (fired,) = Job.objects.filter(headers__schedule="hourly")
    assert fired.headers["fire_at"] == due.isoformat()
    running = (Job.State.RUNNING, 1, 0)
    for jobs in (its, long):
        assert jobs.values_list("state", "attempt", "crashes").get() == running, "nobody took it too early"

    Worker.objects.filter(pk=neighbour.pk).update(heartbeat_at=timezone.now() - timedelta(seconds=61))
    wait_until(lambda: its.get().crashes == 1, what="the rescue of what the neighbour had")

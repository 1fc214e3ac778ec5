"""Celery's workers while the database crashes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import kombu.pools
import pytest

from svc_infra_django.jobs.engines import publishers
from tests.jobs.conftest import Database, accepted_through_crashes, all_come_to_a_good_end

from .conftest import SETTINGS, Broker, CeleryWorker


@pytest.fixture
def celery(
    database: Database,
    svc_settings: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[CeleryWorker]:
    from .jobs_app import app, run_jobs

    broker = Broker()
    svc_settings(jobs=SETTINGS)
    monkeypatch.setitem(app.conf, "broker_url", broker.url)
    run_jobs(app)
    monkeypatch.setenv("DATABASE_URL", database.url)
    worker = CeleryWorker(broker, tmp_path / "log")
    yield worker
    worker.end()
    publishers.clear()
    kombu.pools.reset()
    app.close()
    broker.stop()


@pytest.mark.postgresql
@pytest.mark.redis
def test_a_database_that_crashes_again_and_again_costs_time_and_nothing_else(
    database: Database, celery: CeleryWorker, ledger: str
) -> None:
    accepted = accepted_through_crashes(database, ledger)

    all_come_to_a_good_end(accepted, ledger)
    assert celery.is_alive()

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection

from svc_infra_django.jobs import checks
from svc_infra_django.jobs.engines import publishers

pytestmark = pytest.mark.django_db


def ids(found: Any) -> list[str]:
    messages = list(found)
    assert all(message.hint for message in messages)
    return [message.id for message in messages]


def test_the_test_project_has_no_complaint() -> None:
    for name in ("backend", "lease", "tasks", "engines", "database"):
        check = getattr(checks, f"check_{name}")
        assert ids(check(None)) == []


def test_a_project_without_our_backend_is_told(settings: Any) -> None:
    settings.TASKS = {"default": {"BACKEND": "nowhere.Backend"}}

    assert ids(checks.check_backend(None)) == ["svc_jobs.W001"]
    assert ids(checks.check_tasks(None)) == ["svc_jobs.E003"]


def test_a_lease_shorter_than_three_heartbeats_is_an_error(svc_settings: Any) -> None:
    svc_settings(jobs={"lease_seconds": 10, "heartbeat_seconds": 5})

    assert ids(checks.check_lease(None)) == ["svc_jobs.E001"]


def test_an_engine_for_a_queue_that_nobody_declares_is_warned_of(svc_settings: Any, settings: Any) -> None:
    svc_settings(jobs={"engines": {"mial": "celery", "mail": "celery", "*": "database"}})

    (warning,) = checks.check_engines(None)
    assert (warning.id, "mial" in warning.msg, "mail" in warning.hint) == ("svc_jobs.W003", True, True)

    settings.TASKS = {"default": {**settings.TASKS["default"], "QUEUES": ["default", "mail", "mial"]}}
    assert not list(checks.check_engines(None))


def test_an_engine_that_nothing_carries_jobs_to_is_warned_of(
    svc_settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    svc_settings(jobs={"engines": {"mail": "celery", "default": "database"}})
    assert ids(checks.check_publishers(None)) == ["svc_jobs.W004"]

    monkeypatch.setitem(publishers, "celery", lambda queue, ids: None)
    assert ids(checks.check_publishers(None)) == []


def test_a_tasks_module_that_does_not_import_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ImportError("no module named nowhere")

    monkeypatch.setattr(checks, "discover", fail)

    assert ids(checks.check_tasks(None)) == ["svc_jobs.E002"]


@pytest.mark.sqlite
def test_sqlite_that_takes_its_lock_late_is_warned_of_in_production(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ids(checks.check_transactions(None)) == []

    monkeypatch.setitem(connection.settings_dict, "OPTIONS", {})

    assert ids(checks.check_transactions(None)) == ["svc_jobs.W002"]

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from django.core.cache import caches
from django.db import connections
from django.test import AsyncClient, Client

from svc_infra_django.observability import HealthCheck, health

pytestmark = pytest.mark.usefixtures("site")


class Fine(HealthCheck):
    name = "fine"

    def run(self) -> None:
        return


class Broken(HealthCheck):
    name = "broken"

    def run(self) -> None:
        raise RuntimeError("password=hunter2")


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def declare(*checks: type[HealthCheck]) -> None:
        monkeypatch.setattr(
            health, "declared", lambda attribute: [(SimpleNamespace(), check) for check in checks]
        )

    return declare


class Leaving(HealthCheck):
    name = "leaving"

    def run(self) -> None:
        raise asyncio.CancelledError


@pytest.mark.django_db(transaction=True)
def test_ready_when_all_is_well() -> None:
    response = Client().get("/readyz")

    assert response.status_code == 200
    assert response.json()["status"] == "ok"
    assert {"database", "migrations", "cache"} <= set(response.json()["checks"])
    assert "no-cache" in response["Cache-Control"]


@pytest.mark.django_db(transaction=True)
def test_ready_from_async() -> None:
    assert asyncio.run(AsyncClient().get("/readyz")).status_code == 200


def test_one_failure_is_not_ready_and_shows_no_detail(declared, lines) -> None:
    declared(Fine, Broken)

    response = Client().get("/readyz")

    assert response.status_code == 503
    assert response.json()["status"] == "failing"
    assert {name: check["status"] for name, check in response.json()["checks"].items()} == {
        "fine": "ok",
        "broken": "failing",
    }
    assert "hunter2" not in response.content.decode()
    assert [record.check for record in lines.of("svc_infra_django")] == ["broken"]


def test_a_check_that_was_cancelled_did_not_pass(declared) -> None:
    declared(Leaving)

    assert Client().get("/readyz").status_code == 503


def test_alive_whatever_fails(declared) -> None:
    declared(Broken)

    assert Client().get("/healthz").json() == {"status": "ok"}


def test_checks_that_hang_cost_one_timeout_and_one_thread_each(declared, svc_settings) -> None:
    svc_settings(observability={"health_timeout_seconds": 1, "health_cache_seconds": 0})
    release = threading.Event()
    entered: list[str] = []

    def hanging(label: str) -> type[HealthCheck]:
        class Hanging(HealthCheck):
            name = label

            def run(self) -> None:
                entered.append(label)
                release.wait(60)

        return Hanging

    declared(Fine, hanging("one"), hanging("two"), hanging("three"))

    started = time.monotonic()
    first = {finding.name: finding.is_ok for finding in health.run_all()}
    assert time.monotonic() - started < 2.9
    for _ in range(3):
        health.run_all()
    assert first == {"fine": True, "one": False, "two": False, "three": False}
    assert sorted(entered) == ["one", "three", "two"]

    release.set()
    deadline = time.monotonic() + 60
    while not all(finding.is_ok for finding in health.run_all()):
        assert time.monotonic() < deadline


def test_a_storm_of_probes_asks_once(declared, svc_settings) -> None:
    svc_settings(observability={"health_cache_seconds": 60})
    asked = []

    class Counting(HealthCheck):
        name = "counting"

        def run(self) -> None:
            asked.append(1)
            time.sleep(0.05)

    declared(Counting)

    threads = [threading.Thread(target=health.run_all) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(asked) == 1


def test_how_long_a_check_took_is_measured(declared) -> None:
    class Slow(HealthCheck):
        name = "slow"

        def run(self) -> None:
            time.sleep(0.05)
            raise RuntimeError

    declared(Slow)

    (finding,) = health.run_all()
    assert 50 <= finding.duration_ms < 1000


@pytest.mark.django_db(transaction=True)
def test_no_connection_is_left_open(declared) -> None:
    used = []

    class Asking(health.DatabaseCheck):
        name = "asking"

        def run(self) -> None:
            super().run()
            used.append((connections["default"], connections["default"].connection))

    declared(Asking)

    (finding,) = health.run_all()

    ((wrapper, opened),) = used
    assert finding.is_ok
    assert opened is not None
    assert wrapper.connection is None


def test_waiting_migrations_are_not_ready(monkeypatch) -> None:
    class Executor:
        loader = SimpleNamespace(graph=SimpleNamespace(leaf_nodes=lambda: []))

        def __init__(self, connection: object) -> None: ...

        def migration_plan(self, targets: object) -> list[str]:
            return ["0002"]

    monkeypatch.setattr(health, "MigrationExecutor", Executor)
    monkeypatch.setattr(health.MigrationsCheck, "_applied", False)

    with pytest.raises(Exception, match="Migrations are waiting"):
        health.MigrationsCheck().run()


def test_a_cache_that_forgets_is_not_ready(settings) -> None:
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}
    assert caches["default"].get("x") is None

    with pytest.raises(Exception, match="lost a value"):
        health.CacheCheck().run()

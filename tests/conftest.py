from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from threading import Thread
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connection, connections
from django.db.models import Model
from hypothesis import HealthCheck, settings

from tests import servers

pytest_plugins = ["svc_infra_django.testing.plugin"]

# A busy machine makes an example slow; that says nothing about the code.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

PASSWORD = "correct horse battery staple 7"


@pytest.fixture
def make_user(db: None) -> Callable[..., Any]:
    """Make a user: `make_user("ada", is_staff=True)` has the address ada@example.com and PASSWORD."""

    def make(name: str = "ada", **fields: Any) -> Any:
        return get_user_model().objects.create_user(
            username=name, email=f"{name}@example.com", password=PASSWORD, **fields
        )

    return make


@pytest.fixture
def user(make_user: Callable[..., Any]) -> Any:
    return make_user("ada")


@pytest.fixture
def stranger(make_user: Callable[..., Any]) -> Any:
    return make_user("mallory")


def held_up(work: Callable[[], object]) -> Thread:
    """Start `work` in a thread of its own; it runs, and waits for a lock that this connection has."""

    def run() -> None:
        try:
            work()
        finally:
            connections.close_all()

    thread = Thread(target=run)
    thread.start()
    wait_until_somebody_waits()
    return thread


def wait_until_somebody_waits() -> None:
    """Until another connection waits for a lock of this one."""
    for _ in range(6000):
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_locks"
                " WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))"
            )
            if cursor.fetchone()[0]:
                return
        time.sleep(0.01)
    raise AssertionError("nobody waited")


class Replicated:
    """Sends the reads of an app to a replica."""

    def __init__(self, app_label: str) -> None:
        self.app_label = app_label

    def db_for_read(self, model: type[Model], **hints: Any) -> str | None:
        return "replica" if model._meta.app_label == self.app_label else None


@pytest.fixture
def no_replica(settings: Any) -> Iterator[Callable[[str], None]]:
    """From now on no table of the app may be read from its replica: `no_replica("svc_rbac")`."""

    def forbid(app_label: str) -> None:
        settings.DATABASE_ROUTERS = [Replicated(app_label)]

    def refuse(execute: Any, sql: str, *args: Any) -> None:
        raise AssertionError(f"A replica was asked: {sql}")

    connections.settings["replica"] = connections.settings["default"]
    with connections["replica"].execute_wrapper(refuse):
        yield forbid
    connections["replica"].close()
    del connections["replica"], connections.settings["replica"]


# Which tests a pass leaves to another one. Nothing else may leave a test out: a skip is a failure.

SET_ASIDE = pytest.StashKey[dict[str, int]]()


def database() -> str:
    return "postgresql" if "DATABASE_URL" in os.environ else "sqlite"


def marks_for_elsewhere() -> set[str]:
    """Marks of tests that this run cannot make."""
    elsewhere = {"sqlite"} if database() == "postgresql" else {"postgresql", "pgbouncer"}
    if servers.pgbouncer() is None:
        elsewhere.add("pgbouncer")
    return elsewhere if "REDIS_URL" in os.environ else {*elsewhere, "redis"}


def pytest_configure(config: pytest.Config) -> None:
    config.stash[SET_ASIDE] = {}


def asks_no_server(item: pytest.Item) -> bool:
    """Whether the test says the same beside any database; the pass with SQLite has it."""
    fixtures = {"db", "transactional_db", "django_db_setup"}
    marks = ("django_db", "postgresql", "redis")
    return not any(map(item.get_closest_marker, marks)) and not fixtures & set(item.fixturenames)  # type: ignore[attr-defined]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    def leave_out(what: str, is_left_out: Callable[[pytest.Item], object]) -> None:
        left_out = [item for item in items if is_left_out(item)]
        if left_out:
            config.hook.pytest_deselected(items=left_out)
            gone = set(left_out)
            items[:] = [item for item in items if item not in gone]
            config.stash[SET_ASIDE][what] = len(left_out)

    for mark in sorted(marks_for_elsewhere()):
        leave_out(f"marked {mark}", partial(pytest.Item.get_closest_marker, name=mark))
    if database() == "postgresql":
        leave_out("that ask no server", asks_no_server)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """A parallel process is done: every one of them left out the same tests."""
    node.config.stash[SET_ASIDE].update(getattr(node, "workeroutput", {}).get("set_aside", {}))


def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    if hasattr(config, "workeroutput"):
        config.workeroutput["set_aside"] = config.stash[SET_ASIDE]
        return
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter and reporter.stats.get("skipped") and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    count = {kind: len(reports) for kind, reports in terminalreporter.stats.items()}
    ran = sum(count.get(kind, 0) for kind in ("passed", "failed", "xfailed", "xpassed"))
    line = f"{ran} tests ran on {database()}"
    for what, number in sorted(config.stash[SET_ASIDE].items()):
        line += f"; {number} {what} were left to another run"
    terminalreporter.write_line(f"{line}.")
    if count.get("skipped"):
        terminalreporter.write_line(
            f"{count['skipped']} tests were skipped: this counts as a failure.", red=True
        )

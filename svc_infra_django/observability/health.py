"""Health checks: small objects that raise when something this process needs is missing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextvars import copy_context
from dataclasses import dataclass
from secrets import token_hex
from threading import Lock, Thread
from time import monotonic
from typing import ClassVar

from django.core.cache import caches
from django.db import connections
from django.db.migrations.executor import MigrationExecutor

from ..app_config import declared
from ..errors import UnavailableError
from .conf import settings
from .logging import logger


class HealthCheck(ABC):
    """One thing that must work before this process takes traffic. Name it in `health_checks`."""

    name: ClassVar[str]

    @abstractmethod
    def run(self) -> None:
        """Return if all is well, raise anything if not. The error is logged, never shown."""


class DatabaseCheck(HealthCheck):
    """Each database answers a query."""

    name = "database"

    def run(self) -> None:
        for connection in connections.all():
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")


class MigrationsCheck(HealthCheck):
    """No migration waits to be applied. Once true it stays true for the life of the process."""

    name = "migrations"
    _applied: ClassVar[bool] = False

    def run(self) -> None:
        if MigrationsCheck._applied:
            return
        executor = MigrationExecutor(connections["default"])
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            raise UnavailableError("Migrations are waiting: run `manage.py migrate`.")
        MigrationsCheck._applied = True


class CacheCheck(HealthCheck):
    """The default cache keeps what it is given."""

    name = "cache"

    def run(self) -> None:
        cache = caches["default"]
        # Another process may write in between; that something is there is what counts.
        cache.set("svc_infra_django:health", token_hex(8), 10)
        if cache.get("svc_infra_django:health") is None:
            raise UnavailableError("The default cache lost a value at once.")


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    name: str
    is_ok: bool
    duration_ms: float


_lock = Lock()
_running: dict[type[HealthCheck], _Run] = {}
_last: tuple[float, list[Finding]] = (float("-inf"), [])


def run_all() -> list[Finding]:
    """Run every declared check at the same time, or reuse an answer that is young enough.

    Returns after `health_timeout_seconds` at the latest. A check that hangs keeps its one thread and
    counts as failing until it comes back; no second thread is sent after it.
    """
    global _last
    with _lock:
        if monotonic() - _last[0] > settings.health_cache_seconds:
            deadline = monotonic() + settings.health_timeout_seconds
            runs = [_begun(cls) for _, cls in declared("health_checks")]
            _last = (monotonic(), [run.finding(deadline) for run in runs])
        return _last[1]


def forget() -> None:
    """Ask every check anew at the next probe, whatever the last one found."""
    global _last
    _last = (float("-inf"), [])


def _begun(cls: type[HealthCheck]) -> _Run:
    run = _running.get(cls)
    if run is None or not run.thread.is_alive():
        run = _running[cls] = _Run(cls())
        run.thread.start()
    return run


class _Run:
    """One check in a thread of its own; a daemon, so that a hung one does not hold up the shutdown."""

    def __init__(self, check: HealthCheck) -> None:
        self.check = check
        self.error: BaseException | None = None
        self.ended: float | None = None
        self.started = monotonic()
        context = copy_context()
        self.thread = Thread(
            target=lambda: context.run(self._run), name=f"svc-health-{check.name}", daemon=True
        )

    def _run(self) -> None:
        try:
            self.check.run()
        except BaseException as error:  # frontier: whatever a check raises is its finding
            self.error = error
        finally:
            self.ended = monotonic()
            connections.close_all()

    def finding(self, deadline: float) -> Finding:
        self.thread.join(max(0.0, deadline - monotonic()))
        if self.ended is None:
            logger.error("health check timed out", check=self.check.name)
        elif self.error is not None:
            logger.error("health check failed", check=self.check.name, error=repr(self.error))
        seconds = (self.ended or monotonic()) - self.started
        return Finding(
            self.check.name, self.ended is not None and self.error is None, round(seconds * 1000, 1)
        )

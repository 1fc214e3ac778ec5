"""Health checks: small objects that raise when something this process needs is missing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotInTime
from dataclasses import dataclass
from secrets import token_hex
from threading import Lock
from time import monotonic, perf_counter
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
        cache, value = caches["default"], token_hex(8)
        cache.set("svc_infra_django:health", value, 10)
        if cache.get("svc_infra_django:health") is None:
            raise UnavailableError("The default cache lost a value at once.")


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    name: str
    is_ok: bool
    duration_ms: float


_pool = ThreadPoolExecutor(max_workers=8, thread_name_prefix="svc-health")
_lock = Lock()
_last: tuple[float, list[Finding]] = (float("-inf"), [])


def run_all() -> list[Finding]:
    """Run every declared check at the same time, or reuse an answer that is young enough."""
    global _last
    with _lock:
        if monotonic() - _last[0] > settings.health_cache_seconds:
            running = [(cls(), _pool.submit(_timed, cls())) for _, cls in declared("health_checks")]
            _last = (monotonic(), [_finding(check, future) for check, future in running])
        return _last[1]


def _timed(check: HealthCheck) -> float:
    started = perf_counter()
    try:
        check.run()
    finally:
        connections.close_all()
    return (perf_counter() - started) * 1000


def _finding(check: HealthCheck, future: Future[float]) -> Finding:
    try:
        return Finding(check.name, True, round(future.result(settings.health_timeout_seconds), 1))
    except NotInTime:
        logger.error("health check timed out", check=check.name)
    except Exception as error:  # frontier: whatever a check raises is its finding
        logger.error("health check failed", check=check.name, error=repr(error))
    return Finding(check.name, False, settings.health_timeout_seconds * 1000)

"""What of the project's settings would lose jobs, run them twice or never."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any

from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Warning
from django.db import connections

from ..config.checks import register
from .compat import task_backends
from .conf import settings
from .decorators import discover, queue_names
from .engines import DATABASE, publishers
from .turn import database

BACKEND = "svc_infra_django.jobs.backends.DatabaseBackend"
HINT = "docs/reference/jobs.md has the settings of a worker."


@register("svc_infra")
def check_backend(app_configs: Any, **_: Any) -> Iterable[CheckMessage]:
    """W001: no alias of TASKS leads to the database engine."""
    aliases = getattr(django_settings, "TASKS", {}) or {}
    if BACKEND not in [alias.get("BACKEND") for alias in aliases.values()]:
        yield Warning(
            "No backend in TASKS is the database engine: run_worker will find nothing to do.",
            hint=f'TASKS = {{"default": {{"BACKEND": "{BACKEND}"}}}}',
            id="svc_jobs.W001",
        )


@register("svc_infra")
def check_lease(app_configs: Any, **_: Any) -> Iterable[CheckMessage]:
    """E001: a worker that misses one heartbeat would be taken for dead."""
    if settings.lease_seconds < 3 * settings.heartbeat_seconds:
        yield Error(
            f"lease_seconds ({settings.lease_seconds}) is less than three heartbeats "
            f"({settings.heartbeat_seconds} seconds each): a busy worker would lose its jobs.",
            hint=f"Raise lease_seconds or lower heartbeat_seconds. {HINT}",
            id="svc_jobs.E001",
        )


@register("svc_infra")
def check_tasks(app_configs: Any, **_: Any) -> Iterable[CheckMessage]:
    """E002: a tasks module cannot be imported; E003: TASKS names a backend that cannot be made."""
    try:
        task_backends.all()
    except Exception as error:  # frontier: whatever the backend raises is the finding
        yield Error(f"TASKS: {error}", hint=HINT, id="svc_jobs.E003")
        return
    try:
        discover()
    except Exception as error:  # frontier: whatever the module raises is the finding
        yield Error(
            f"A tasks module cannot be imported: {type(error).__name__}: {error}",
            hint="Import it in a shell to see where it fails.",
            id="svc_jobs.E002",
        )


@register("svc_infra")
def check_engines(app_configs: Any, **_: Any) -> Iterable[CheckMessage]:
    """W003: an engine is chosen for a queue that nothing is enqueued to."""
    try:
        discover()
        known = {"*"} | queue_names() | {name for backend in task_backends.all() for name in backend.queues}
    except Exception:  # frontier: check_tasks tells of it
        return
    if unknown := sorted(settings.engines.keys() - known):
        yield Warning(
            f"engines names {', '.join(unknown)}, but no task declares such a queue: whoever misspelt it has "
            "the jobs run by another engine.",
            hint=f"The queues are {', '.join(sorted(known - {'*'}))}.",
            id="svc_jobs.W003",
        )


@register("svc_infra")
def check_publishers(app_configs: Any, **_: Any) -> Iterable[CheckMessage]:
    """W004: queues are given to an engine that nothing in this program carries jobs to."""
    if missing := sorted(set(settings.engines.values()) - {DATABASE} - publishers.keys()):
        yield Warning(
            f"engines gives queues to {', '.join(missing)}, but nothing in this program carries jobs there: "
            "they wait for the next sweep of a worker that does.",
            hint="Call run_jobs(app) where the Celery app is made, and import that in the project's package.",
            id="svc_jobs.W004",
        )


@register("svc_infra")
def check_database(app_configs: Any, **_: Any) -> Iterable[CheckMessage]:
    """E004: a database that the engine does not know."""
    connection = connections[database()]
    if connection.vendor not in ("postgresql", "sqlite"):
        yield Error(
            f"Jobs need PostgreSQL or SQLite; {connection.alias!r} is {connection.vendor}.",
            hint="Route the app svc_jobs to a database that is one of the two.",
            id="svc_jobs.E004",
        )
    elif connection.vendor == "sqlite" and sqlite3.sqlite_version_info < (3, 35):
        yield Error(
            f"Jobs need SQLite 3.35; this is {sqlite3.sqlite_version}.",
            hint="Use a Python that is built with a newer SQLite, or PostgreSQL.",
            id="svc_jobs.E005",
        )


@register("svc_infra", deploy=True)
def check_transactions(app_configs: Any, **_: Any) -> Iterable[CheckMessage]:
    """W002: SQLite gives the right to write to transactions too late."""
    connection = connections[database()]
    options = connection.settings_dict.get("OPTIONS", {})
    if connection.vendor == "sqlite" and str(options.get("transaction_mode", "")).upper() != "IMMEDIATE":
        yield Warning(
            "Transactions begin without SQLite's write lock: requests that write while a worker writes may "
            "fail with `database is locked`.",
            hint='Set "transaction_mode": "IMMEDIATE" in OPTIONS of the database, and journal mode WAL.',
            id="svc_jobs.W002",
        )

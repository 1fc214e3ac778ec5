"""What a forked worker process runs. Imported beforehand by the server that it is forked from."""

from __future__ import annotations

import multiprocessing
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import django.apps

from tests.jobs import odd

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
if not django.apps.apps.ready and "pytest" not in sys.modules:
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.jobs.worker_settings"
    django.setup()
    from django.core.management import load_command_class

    from svc_infra_django.jobs.decorators import discover

    load_command_class("svc_infra_django.jobs", "run_worker")
    discover()


@dataclass(frozen=True)
class Surroundings:
    """What is around a worker process: its database, and what a test makes odd."""

    database: dict[str, Any]
    settings: dict[str, Any]
    log: str
    environment: dict[str, str] = field(default_factory=dict)
    clock_is_fast_by: float = 0.0
    """Seconds by which the clock of its host differs from that of the database."""

    memory: int = 0
    """Bytes of address space that it may use; 0 for no limit."""

    dies_after_claim: str = ""
    """The file that tells it to: see `odd.die_after_a_claim`."""

    service: str = ""
    """The file that a service beside the jobs writes to."""


def run_worker(around: Surroundings, args: list[str]) -> None:
    """Be `manage.py run_worker ARGS` in these surroundings."""
    from django.apps import apps
    from django.conf import settings as django_settings
    from django.core.management import call_command
    from django.core.signals import setting_changed
    from django.db import connections

    from svc_infra_django.jobs.management import supervisor

    os.setpgid(0, 0)
    with Path(around.log).open("ab", buffering=0) as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.environ.update(around.environment)
    connections.databases["default"].update(around.database)
    django_settings.SVC_INFRA = {"jobs": around.settings}
    setting_changed.send(django_settings.__class__, setting="SVC_INFRA", value=None, enter=True)
    # What a supervisor starts is in the same surroundings at once. One test starts real ones.
    supervisor.spawning = multiprocessing.get_context("fork")
    if around.clock_is_fast_by:
        odd.put_the_clock_forward(around.clock_is_fast_by)
    if around.memory:
        odd.limit_memory(around.memory)
    if around.dies_after_claim:
        odd.die_after_a_claim(around.dies_after_claim)
    if around.service:
        os.environ["JOBS_TEST_SERVICE"] = around.service
        apps.get_app_config("taskapp").worker_services = (".services.Shaky",)
    call_command("run_worker", *args)


def run_worker_under_a_parent(around: Surroundings, pidfile: str) -> None:
    """Start one that goes when this process goes, tell its id, and stay."""
    args = ["--exit-with-parent", str(os.getpid())]
    process = multiprocessing.get_context("fork").Process(target=run_worker, args=(around, args))
    process.start()
    Path(pidfile).write_text(str(process.pid))
    process.join()

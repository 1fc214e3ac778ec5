"""What a forked worker process runs. Imported beforehand by the server that it is forked from."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import django.apps

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
if not django.apps.apps.ready and "pytest" not in sys.modules:
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.jobs.worker_settings"
    django.setup()
    from django.core.management import load_command_class

    from svc_infra_django.jobs.decorators import discover

    load_command_class("svc_infra_django.jobs", "run_worker")
    discover()


def run_worker(database: str, settings: dict[str, Any], args: list[str], log: str) -> None:
    """Be `manage.py run_worker ARGS` on `database`, with `settings` of the jobs app, writing to `log`."""
    from django.apps import apps
    from django.conf import settings as django_settings
    from django.core.management import call_command
    from django.core.signals import setting_changed
    from django.db import connections

    with Path(log).open("ab", buffering=0) as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    connections.databases["default"]["NAME"] = database
    service = settings.pop("service", None)
    django_settings.SVC_INFRA = {"jobs": settings}
    setting_changed.send(django_settings.__class__, setting="SVC_INFRA", value=None, enter=True)
    if service:
        os.environ["JOBS_TEST_SERVICE"] = service
        apps.get_app_config("taskapp").worker_services = (".services.Shaky",)
    call_command("run_worker", *args)

"""Settings of the worker processes that tests start: the test's own database, small leases."""

from __future__ import annotations

import json
import os

from svc_infra_django.observability.logging import logging_config
from tests.settings import *  # noqa: F403 - a settings module
from tests.settings import DATABASES

if "JOBS_TEST_DATABASE" in os.environ:
    DATABASES["default"]["NAME"] = os.environ["JOBS_TEST_DATABASE"]
SVC_INFRA = {
    "jobs": json.loads(os.environ.get("JOBS_TEST_SETTINGS", "{}")),
    "webhooks": {"allow_http": True, "allowed_networks": ["127.0.0.0/8"]},
}
INSTALLED_APPS = [*INSTALLED_APPS, "tests.jobs.taskapp"]  # noqa: F405
LOGGING = logging_config(format="json")

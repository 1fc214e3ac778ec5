"""Our project, for the process that enqueues and for the one that works."""

from __future__ import annotations

import os

from benchmarks.jobs import drive

SECRET_KEY = drive.SECRET_KEY
USE_TZ = True
DATABASES = drive.database("ours")
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "svc_infra_django.config",
    "svc_infra_django.observability",
    "svc_infra_django.api",
    "svc_infra_django.jobs",
]
TASKS = {"default": {"BACKEND": "svc_infra_django.jobs.backends.DatabaseBackend"}}
SVC_INFRA = {"jobs": {"engines": {"*": os.environ.get("BENCH_ENGINE", "database")}}}
LOGGING_CONFIG = None

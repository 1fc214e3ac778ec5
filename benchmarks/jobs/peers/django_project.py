"""The project of the peers that stand behind Django's Tasks interface."""

from __future__ import annotations

import os

from benchmarks.jobs import drive

PEER = os.environ["BENCH_PEER"]
BACKENDS = {
    "tasks_db": ("django_tasks_db.DatabaseBackend", ["django_tasks_db"]),
    "ox": ("django_ox.backend.OxBackend", ["django_ox"]),
    "q2": ("django.tasks.backends.dummy.DummyBackend", ["django_q"]),
}

SECRET_KEY = drive.SECRET_KEY
USE_TZ = True
DATABASES = drive.database(PEER)
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", *BACKENDS[PEER][1]]
TASKS = {"default": {"BACKEND": BACKENDS[PEER][0]}}
Q_CLUSTER = {
    "name": "bench",
    "orm": "default",
    "workers": int(os.environ.get("BENCH_WORKERS", "1")),
    "poll": 0.01,
    "timeout": 60,
    "retry": 120,
    "log_level": "ERROR",
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LOGGING_CONFIG = None

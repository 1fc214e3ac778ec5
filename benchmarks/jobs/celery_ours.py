"""The Celery app that runs our jobs."""

from __future__ import annotations

import os

from celery import Celery

from svc_infra_django.contrib.celery import run_jobs

app = Celery("ours", broker=os.environ["REDIS_URL"])
run_jobs(app)

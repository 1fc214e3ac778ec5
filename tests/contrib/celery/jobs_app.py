"""A Celery app that runs jobs, as a project would write it."""

from __future__ import annotations

import os

from celery import Celery

from svc_infra_django.contrib.celery import run_jobs

app = Celery("jobs", broker=os.environ.get("JOBS_TEST_BROKER"), set_as_current=False)
app.conf.update(
    task_default_queue="default",
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
)
run_jobs(app)

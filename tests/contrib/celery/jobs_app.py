"""A Celery app that runs jobs, as a project would write it."""

from __future__ import annotations

import os

from celery import Celery, signals

from svc_infra_django.contrib.celery import run_jobs
from tests.jobs import odd

app = Celery("jobs", broker=os.environ.get("JOBS_TEST_BROKER"), set_as_current=False)
app.conf.update(
    task_default_queue="default",
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
)
run_jobs(app)


if "JOBS_TEST_CLOCK" in os.environ:
    odd.put_the_clock_forward(float(os.environ["JOBS_TEST_CLOCK"]))


@signals.worker_process_init.connect
def be_odd(**_: object) -> None:
    if "JOBS_TEST_MEMORY" in os.environ:
        odd.limit_memory(int(os.environ["JOBS_TEST_MEMORY"]))
    if "JOBS_TEST_DEATH" in os.environ:
        odd.die_after_a_claim(os.environ["JOBS_TEST_DEATH"])

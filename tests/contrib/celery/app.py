"""A Celery app as a project would write it, with plain shared tasks."""

from __future__ import annotations

import logging
import os

from celery import Celery, shared_task

from svc_infra_django.contrib.celery import propagate_context
from svc_infra_django.observability.context import bound, current

app = Celery("tests", broker=os.environ.get("REDIS_URL"), backend=os.environ.get("REDIS_URL"))
app.conf.update(
    task_default_queue=os.environ.get("TESTS_CELERY_QUEUE", "tests"),
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    task_ignore_result=False,
)
app.set_default()
propagate_context()
propagate_context()

logger = logging.getLogger(__name__)


@shared_task
def seen() -> dict[str, str]:
    return current()


@shared_task
def passes_on() -> str:
    return seen.delay().id


@shared_task(bind=True, max_retries=1)
def at_the_second_try(self) -> dict[str, str]:
    if not self.request.retries:
        raise self.retry(countdown=0)
    return current()


@shared_task
def untidy() -> None:
    bound(left_behind="by another task").__enter__()
    raise ValueError("and then it failed")

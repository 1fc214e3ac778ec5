"""Publish rows, enqueue a task for each delivery; the task signs, posts with requests, writes three rows."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import time
from collections.abc import Sequence

import django
import requests
from celery import Celery
from django.conf import settings

from benchmarks.deliveries import drive

if not settings.configured:
    settings.configure(
        SECRET_KEY=drive.SECRET_KEY,
        USE_TZ=True,
        DATABASES=drive.database("per_task"),
        INSTALLED_APPS=["benchmarks.deliveries.per_task"],
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        LOGGING_CONFIG=None,
    )
    django.setup()

from django.db import transaction  # Django must be set up first
from django.utils import timezone

from benchmarks.deliveries.per_task.models import Attempt, Delivery, Endpoint, Message

QUEUE = f"bench-{os.environ.get('BENCH_QUEUE', os.getpid())}"
os.environ["BENCH_QUEUE"] = QUEUE.removeprefix("bench-")

app = Celery("per_task", broker=os.environ["REDIS_URL"])
app.conf.update(
    task_default_queue=QUEUE, task_ignore_result=True, task_acks_late=True, worker_prefetch_multiplier=4
)


@app.task(name="deliver")
def deliver(delivery_id: int) -> None:
    delivery = Delivery.objects.select_related("message", "endpoint").get(pk=delivery_id)
    body = json.dumps({"type": delivery.message.event_type, "data": delivery.message.data}).encode()
    signature = hmac.new(delivery.endpoint.secret.encode(), body, hashlib.sha256).hexdigest()
    started = time.perf_counter()
    response = requests.post(
        delivery.endpoint.url,
        data=body,
        headers={"content-type": "application/json", "x-signature": signature},
        timeout=15,
    )
    Attempt.objects.create(
        delivery=delivery,
        status_code=response.status_code,
        duration_ms=(time.perf_counter() - started) * 1000,
        response=response.text[:1000],
    )
    delivery.state = "succeeded" if response.ok else "failed"
    delivery.attempts += 1
    delivery.save(update_fields=["state", "attempts"])
    Endpoint.objects.filter(pk=delivery.endpoint_id).update(failures=0, last_success_at=timezone.now())


def subscribe(event_type: str, url: str) -> None:
    Endpoint.objects.create(url=url, event_type=event_type, secret="a-secret-for-measuring")


@transaction.atomic
def publish(publications: Sequence[drive.Publication]) -> None:
    for event_type, data in publications:
        message = Message.objects.create(event_type=event_type, data=data)
        for endpoint in Endpoint.objects.filter(event_type=event_type):
            delivery = Delivery.objects.create(message=message, endpoint=endpoint)
            transaction.on_commit(lambda pk=delivery.pk: deliver.delay(pk))  # type: ignore[misc]


def recorded() -> int:
    return Delivery.objects.filter(state="succeeded").count()


if __name__ == "__main__":
    workers = os.environ.get("BENCH_WORKERS", "4")
    celery = ["-m", "celery", "-A", "benchmarks.deliveries.per_task.run", "worker", "--loglevel", "ERROR"]
    drive.main(
        worker=[*celery, "--concurrency", workers, "--without-gossip", "--without-mingle"],
        subscribe=subscribe,
        publish=publish,
        recorded=recorded,
    )

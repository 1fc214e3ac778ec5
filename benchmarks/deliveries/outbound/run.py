"""django-outbound-webhooks: an event fired in a transaction, delivered by relays that send one at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import make_dataclass
from types import FrameType
from typing import Any

import django
from django.conf import settings

from benchmarks.deliveries import drive

settings.configure(
    SECRET_KEY=drive.SECRET_KEY,
    USE_TZ=True,
    DATABASES=drive.database("outbound"),
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django_domain_events",
        "django_outbound_webhooks",
    ],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    DJANGO_DOMAIN_EVENTS={"POLL_SECONDS": 0.1},
    DJANGO_OUTBOUND_WEBHOOKS={"ALLOW_PRIVATE_ADDRESSES": True},
    LOGGING_CONFIG=None,
)
django.setup()

from django.core.management import call_command  # noqa: E402  # Django must be set up first
from django.db import transaction  # noqa: E402
from django_domain_events import event, fire  # noqa: E402
from django_domain_events.models.delivery_record import DeliveryRecord  # noqa: E402
from django_outbound_webhooks import register_endpoint  # noqa: E402

FIELDS = [("order_id", int), ("total", str), ("note", str)]
EVENTS: dict[str, Any] = {
    f"bench.event{number}": event(name=f"bench.event{number}")(
        make_dataclass(f"Event{number}", FIELDS, frozen=True)
    )
    for number in range(drive.ENDPOINTS)
}


def work() -> None:
    relay = [sys.executable, "-m", "benchmarks.deliveries.outbound.run", "relay"]
    relays = [subprocess.Popen(relay) for _ in range(int(os.environ.get("BENCH_WORKERS", "1")))]

    def stop(number: int, frame: FrameType | None) -> None:
        for each in relays:
            each.terminate()

    signal.signal(signal.SIGTERM, stop)
    for each in relays:
        each.wait()


def subscribe(event_type: str, url: str) -> None:
    register_endpoint(
        name=event_type, url=url, secret="whsec_" + "a" * 42 + "A=", event_names=[event_type]
    )  # fmt: skip


@transaction.atomic
def publish(publications: Sequence[drive.Publication]) -> None:
    for event_type, data in publications:
        fire(EVENTS[event_type](**data))


def recorded() -> int:
    return DeliveryRecord.objects.filter(status="succeeded").count()


if __name__ == "__main__":
    if sys.argv[1] == "work":
        work()
    elif sys.argv[1] == "relay":
        call_command("deliver_events")
    else:
        drive.main(
            worker=["-m", "benchmarks.deliveries.outbound.run", "work"],
            subscribe=subscribe,
            publish=publish,
            recorded=recorded,
        )

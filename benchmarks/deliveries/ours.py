"""Ours: `publish` in one process, `run_worker` in another."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import django
from django.conf import settings
from django.core.management import call_command

from benchmarks.deliveries import drive

settings.configure(
    SECRET_KEY=drive.SECRET_KEY,
    USE_TZ=True,
    DATABASES=drive.database("ours"),
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "svc_infra_django.config",
        "svc_infra_django.observability",
        "svc_infra_django.api",
        "svc_infra_django.jobs",
        "svc_infra_django.webhooks",
    ],
    TASKS={"default": {"BACKEND": "svc_infra_django.jobs.backends.DatabaseBackend"}},
    SVC_INFRA={"webhooks": {"allow_http": True, "allowed_networks": ["127.0.0.0/8"]}},
    LOGGING_CONFIG=None,
)
django.setup()

from svc_infra_django.webhooks import Publication, publish_many  # noqa: E402  # Django must be set up first
from svc_infra_django.webhooks.models import Delivery  # noqa: E402
from svc_infra_django.webhooks.services.subscribing import create_endpoint  # noqa: E402


def work() -> None:
    """What a project runs."""
    call_command("run_worker")


def subscribe(event_type: str, url: str) -> None:
    create_endpoint(url=url, event_types=[event_type])


def publish(publications: Sequence[drive.Publication]) -> None:
    publish_many([Publication(event_type, data) for event_type, data in publications])


def recorded() -> int:
    return Delivery.objects.filter(state=Delivery.State.SUCCEEDED).count()


if __name__ == "__main__":
    if sys.argv[1:] == ["work"]:
        work()
    else:
        drive.main(
            worker=["-m", "benchmarks.deliveries.ours", "work"],
            subscribe=subscribe,
            publish=publish,
            recorded=recorded,
        )

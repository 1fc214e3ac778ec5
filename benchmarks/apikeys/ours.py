"""Ours: a Ninja operation behind a key, with request id, access log, metrics and the counting of uses."""

from __future__ import annotations

import os

import django
from django.conf import settings

from benchmarks.apikeys import drive

settings.configure(
    SECRET_KEY=drive.SECRET_KEY,
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    USE_TZ=True,
    DATABASES=drive.database(),
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "ninja",
        "django_otp",
        "svc_infra_django.config",
        "svc_infra_django.observability",
        "svc_infra_django.cache",
        "svc_infra_django.api",
        "svc_infra_django.jobs",
        "svc_infra_django.apikeys",
    ],
    MIDDLEWARE=[
        "svc_infra_django.observability.middleware.RequestContextMiddleware",
        "svc_infra_django.api.middleware.ProblemMiddleware",
        "django.middleware.security.SecurityMiddleware",
        "django.middleware.common.CommonMiddleware",
    ],
    TASKS={"default": {"BACKEND": "svc_infra_django.jobs.backends.DatabaseBackend"}},
    SVC_INFRA={"apikeys": {"cache_seconds": int(os.environ.get("BENCH_CACHE_SECONDS", "1"))}},
    LOGGING_CONFIG=None,
)
django.setup()

import logging.config  # noqa: E402  # Django must be set up first
from uuid import uuid4  # noqa: E402

from django.core.handlers.wsgi import WSGIHandler  # noqa: E402
from django.http import HttpRequest  # noqa: E402
from django.urls import path  # noqa: E402
from django.utils import timezone  # noqa: E402

from svc_infra_django.api import create_api  # noqa: E402
from svc_infra_django.observability import logging_config  # noqa: E402

logging.config.dictConfig(logging_config(format="json"))
for handler in logging.getLogger().handlers:
    handler.setStream(open(os.devnull, "w"))  # type: ignore[attr-defined]  # noqa: SIM115, PTH123

api = create_api()


@api.get("/open", auth=None)
def open_to_all(request: HttpRequest) -> dict[str, object]:
    return {"id": 7, "name": "seven"}


@api.get("/mine")
def mine(request: HttpRequest) -> dict[str, object]:
    return {"id": 7, "name": "seven"}


api.get("/open/last", auth=None)(open_to_all)

urlpatterns = [path("api/", api.urls)]
application = WSGIHandler()


def make(keys: int) -> dict[str, str]:
    from django.contrib.auth.models import User

    from svc_infra_django.apikeys import issue_key
    from svc_infra_django.apikeys.models import ApiKey

    owner = User.objects.create_user("ada")
    now = timezone.now()
    ApiKey.objects.bulk_create(
        (
            ApiKey(
                owner=owner,
                name=f"other {number}",
                prefix="svc_sk_live_",
                last4="0000",
                environment="live",
                digest=uuid4().bytes + uuid4().bytes,
                pepper_id="00000000",
                created_at=now,
            )
            for number in range(keys - 1)
        ),
        batch_size=5000,
    )
    return {"X-API-Key": issue_key(owner=owner, name="robot")[1]}


if __name__ == "__main__":
    drive.main("benchmarks.apikeys.ours", make)

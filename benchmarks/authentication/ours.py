"""Ours: the suite's whole chain, and an operation that does not look at more of its caller than the id."""

from __future__ import annotations

import os

import django
from django.conf import settings

from benchmarks.requests import drive

REDIS = os.environ.get("BENCH_REDIS_URL")

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
        "allauth",
        "allauth.account",
        "django_otp",
        "svc_infra_django.config",
        "svc_infra_django.observability",
        "svc_infra_django.api",
        "svc_infra_django.jobs",
        "svc_infra_django.accounts",
        "svc_infra_django.apikeys",
        "svc_infra_django.rbac",
    ],
    MIDDLEWARE=[
        "svc_infra_django.observability.middleware.RequestContextMiddleware",
        "svc_infra_django.api.middleware.ProblemMiddleware",
        "django.middleware.security.SecurityMiddleware",
        "django.middleware.common.CommonMiddleware",
        "allauth.account.middleware.AccountMiddleware",
    ],
    TASKS={"default": {"BACKEND": "svc_infra_django.jobs.backends.DatabaseBackend"}},
    CACHES={
        "default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": REDIS}
        if REDIS
        else {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
    },
    SVC_INFRA={
        "accounts": {
            "revocation_seconds": float(os.environ.get("REVOCATION_SECONDS", "2")),
            "shared_cache": "default" if REDIS else "",
        }
    },
    LOGGING_CONFIG=None,
)
django.setup()

import logging.config  # noqa: E402  # Django must be set up first

from django.core.handlers.wsgi import WSGIHandler  # noqa: E402
from django.http import HttpRequest  # noqa: E402
from django.urls import path  # noqa: E402

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


def token() -> str:
    from django.contrib.auth.models import User

    from svc_infra_django.accounts import issue_tokens

    return f"Bearer {issue_tokens(User.objects.create_user('ada'), amr=['pwd']).access_token}"


if __name__ == "__main__":
    drive.main("benchmarks.authentication.ours", token)

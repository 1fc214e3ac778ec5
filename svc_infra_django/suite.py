"""The whole suite, for `settings.py`: what a project would otherwise copy by hand.

    from svc_infra_django import suite

    INSTALLED_APPS += suite.APPS
    MIDDLEWARE = suite.around(MIDDLEWARE)
    AUTHENTICATION_BACKENDS = suite.AUTHENTICATION_BACKENDS
    TASKS = suite.TASKS

A project that takes only some of the apps writes its own lists; each name is an ordinary dotted path.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

APPS = [
    "ninja",
    "allauth",
    "allauth.account",
    "django_otp",
    "svc_infra_django.config",
    "svc_infra_django.observability",
    "svc_infra_django.cache",
    "svc_infra_django.api",
    "svc_infra_django.jobs",
    "svc_infra_django.accounts",
    "svc_infra_django.apikeys",
    "svc_infra_django.rbac",
    "svc_infra_django.webhooks",
]
"""For `INSTALLED_APPS`: the suite's apps and those of other packages that they stand on."""

AUTHENTICATION_BACKENDS = [
    "svc_infra_django.rbac.backends.RoleBackend",
    "django.contrib.auth.backends.ModelBackend",
]
"""Roles, first so that what they deny is denied; passwords and permissions by Django."""

TASKS: dict[str, dict[str, Any]] = {"default": {"BACKEND": "svc_infra_django.jobs.backends.DatabaseBackend"}}
"""Django's Tasks, kept in the project's database."""

SQLITE_OPTIONS: dict[str, Any] = {
    "timeout": 20,
    "transaction_mode": "IMMEDIATE",
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
}
"""`OPTIONS` of a SQLite database with more than one writer: each waits up to 20 seconds for the others."""


def around(middleware: Iterable[str]) -> list[str]:
    """The project's middleware between what must come first and what must come last.

    First the request's id and log line, so that they cover everything; then problem+json. Last,
    allauth's, which needs sessions and the user.
    """
    return [
        "svc_infra_django.observability.middleware.RequestContextMiddleware",
        "svc_infra_django.api.middleware.ProblemMiddleware",
        *middleware,
        "allauth.account.middleware.AccountMiddleware",
    ]

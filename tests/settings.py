"""The project that the tests run in: every app of the suite, on SQLite unless DATABASE_URL says otherwise."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import dj_database_url

from svc_infra_django import suite
from svc_infra_django.config import Secret

SCRATCH = Path(tempfile.gettempdir()) / f"svc-infra-django-tests-{os.getuid()}-{os.getpid()}"

# Each parallel test process has a Redis database of its own, as it has one of PostgreSQL; so have the
# programs that its tests start.
if (worker := os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")) and "REDIS_URL" in os.environ:
    os.environ["REDIS_URL"] = urlsplit(os.environ["REDIS_URL"])._replace(path=f"/{worker}").geturl()

SECRET_KEY = "tests-only-and-long-enough-for-every-check-that-looks-at-it-0123456789"
DEBUG = False
ALLOWED_HOSTS = ["*"]
USE_TZ = True
ROOT_URLCONF = "tests.urls"
STATIC_URL = "/static/"
EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

INSTALLED_APPS = [
    "svc_infra_django.accounts.apps.SecondFactorAdmin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "allauth.socialaccount",
    "allauth.socialaccount.providers.github",
    "allauth.socialaccount.providers.google",
    "allauth.socialaccount.providers.microsoft",
    "allauth.socialaccount.providers.openid_connect",
    "django_otp.plugins.otp_static",
    *suite.APPS,
    "svc_infra_django.webhooks.inbound",
]

MIDDLEWARE = suite.around(
    [
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
    ]
)

AUTHENTICATION_BACKENDS = suite.AUTHENTICATION_BACKENDS

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

DATABASES = {"default": dj_database_url.config(default=f"sqlite:///{SCRATCH}.sqlite3")}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # A file, not memory: workers and threads of a test open connections of their own.
    DATABASES["default"] |= {
        "OPTIONS": suite.SQLITE_OPTIONS,
        "TEST": {"NAME": f"{SCRATCH}.test.sqlite3"},
    }

TASKS = suite.TASKS

SOCIALACCOUNT_QUERY_EMAIL = True
SOCIALACCOUNT_REQUESTS_TIMEOUT = 60  # the provider is beside us, and may be as busy as we are

# A source for the pages that show how webhooks are received.
os.environ.setdefault("STRIPE_WEBHOOK_SECRET", "whsec_shared_with_nobody")
BILLING = {"preset": "stripe", "secrets": [Secret("env:STRIPE_WEBHOOK_SECRET")]}

SVC_INFRA: dict[str, dict[str, object]] = {
    "accounts": {"staff_second_factor": False},
    # What the thread wrote down in a test would outlive it.
    "apikeys": {"usage_flush_seconds": 3600},
    "inbound": {"sources": {"billing": BILLING}},
}

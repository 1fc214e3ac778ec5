"""The whole project on one screen: SQLite to start with, PostgreSQL and Redis by settings alone.

`SVC_ENVIRONMENT` says where we are. `manage.py` sets it to `local`; unset it means production, and then
SECRET_KEY, ALLOWED_HOSTS, DATABASE_URL, REDIS_URL, METRICS_TOKEN and PAYMENTS_WEBHOOK_SECRET must be in the
environment.
"""

import os
from pathlib import Path

import dj_database_url
from django.core.exceptions import ImproperlyConfigured

from svc_infra_django import suite
from svc_infra_django.config import Environment, Secret
from svc_infra_django.observability import logging_config

BASE_DIR = Path(__file__).resolve().parent.parent
VAR = Path(os.environ.get("EXAMPLE_VAR", BASE_DIR / "var"))

ENVIRONMENT = Environment.detect()
IS_LOCAL = ENVIRONMENT.is_local or ENVIRONMENT.is_test


def from_environment(name: str, *, local: str) -> str:
    """The variable, or `local` where we may do without. Raises ImproperlyConfigured elsewhere."""
    value = os.environ.get(name, local if IS_LOCAL else "")
    if not value and not IS_LOCAL:
        raise ImproperlyConfigured(f"Set {name}: SVC_ENVIRONMENT is {ENVIRONMENT}.")
    return value


# ── Who we are ──────────────────────────────────────────────────────────────────────────────────────
SECRET_KEY = from_environment("SECRET_KEY", local="local-only-" + "not-a-secret-" * 5)
ALLOWED_HOSTS = from_environment("ALLOWED_HOSTS", local="127.0.0.1,localhost,[::1]").split(",")
DEBUG = IS_LOCAL and os.environ.get("DEBUG") == "1"
ROOT_URLCONF = "example_project.urls"
WSGI_APPLICATION = "example_project.wsgi.application"
USE_TZ = True
TIME_ZONE = "UTC"

INSTALLED_APPS = [
    "svc_infra_django.accounts.apps.SecondFactorAdmin",  # the admin, with a login in two steps
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    *suite.APPS,
    "svc_infra_django.webhooks.inbound",
    "example_project.orders",
    "example_project.demo",
]

MIDDLEWARE = suite.around(
    [
        "django.middleware.security.SecurityMiddleware",
        "whitenoise.middleware.WhiteNoiseMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
    ]
)

AUTHENTICATION_BACKENDS = suite.AUTHENTICATION_BACKENDS

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

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

# ── Where things are kept ───────────────────────────────────────────────────────────────────────────
DATABASE_URL = from_environment("DATABASE_URL", local=f"sqlite:///{VAR}/db.sqlite3")
REDIS_URL = from_environment("REDIS_URL", local="")

DATABASES = {"default": dj_database_url.parse(DATABASE_URL)}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    VAR.mkdir(parents=True, exist_ok=True)  # SQLite makes the file, not its folder
    DATABASES["default"]["OPTIONS"] = suite.SQLITE_OPTIONS
else:
    DATABASES["default"]["OPTIONS"] = {"pool": {"min_size": 1, "max_size": 20}}

if REDIS_URL:
    CACHES = {
        "default": {"BACKEND": "svc_infra_django.cache.backends.LayeredCache", "OPTIONS": {"l2": "shared"}},
        "shared": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": REDIS_URL},
    }

TASKS = suite.TASKS

STATIC_URL = "/static/"
WHITENOISE_USE_FINDERS = True  # serves the apps' own files, so there is no collectstatic step

EMAIL_BACKEND = f"django.core.mail.backends.{'filebased' if IS_LOCAL else 'smtp'}.EmailBackend"
EMAIL_FILE_PATH = VAR / "mail"
EMAIL_HOST = os.environ.get("EMAIL_HOST", "localhost")
DEFAULT_FROM_EMAIL = "shop@example.com"

# ── The suite ───────────────────────────────────────────────────────────────────────────────────────
SVC_INFRA: dict[str, dict[str, object]] = {
    "rbac": {"roles": {"order clerk": ("orders.add_order", "orders.view_order")}},
    "inbound": {"sources": {"payments": {"secrets": [Secret("env:PAYMENTS_WEBHOOK_SECRET")]}}},
}
DAILY_REPORT_EVERY_SECONDS = 3600.0

if IS_LOCAL:
    os.environ.setdefault("PAYMENTS_WEBHOOK_SECRET", "whsec_bG9jYWwtb25seS1ub3QtYS1zZWNyZXQh")
    # Quick enough to watch; the tour turns the clock faster still.
    PACE = float(os.environ.get("EXAMPLE_PACE", "1"))
    DAILY_REPORT_EVERY_SECONDS = 10 * PACE
    SVC_INFRA["accounts"] = {"staff_second_factor": False}  # the demo's admin password is public anyway
    SVC_INFRA["jobs"] = {"grace_seconds": 5}
    SVC_INFRA["webhooks"] = {
        "allow_http": True,
        "allowed_networks": ("127.0.0.0/8",),  # the demo's receiver is this very server
        "retry_schedule": (2 * PACE, 4 * PACE, 8 * PACE),
        "timeout_seconds": 4,
        "lease_seconds": 6,
    }
else:
    SVC_INFRA["accounts"] = {"issuer": f"https://{ALLOWED_HOSTS[0]}"}
    SVC_INFRA["observability"] = {"metrics_token": Secret("env:METRICS_TOKEN")}

# ── What we say, and over which wire ────────────────────────────────────────────────────────────────
LOGGING = logging_config(format=os.environ.get("LOG_FORMAT", "auto"))

if not IS_LOCAL:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_SSL_REDIRECT = True
    SECURE_REDIRECT_EXEMPT = [r"^(healthz|readyz|startupz|metrics)$"]
    SECURE_HSTS_SECONDS = 365 * 24 * 3600
    SECURE_HSTS_INCLUDE_SUBDOMAINS = True
    SECURE_HSTS_PRELOAD = True
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True
    CSRF_TRUSTED_ORIGINS = [f"https://{host}" for host in ALLOWED_HOSTS]

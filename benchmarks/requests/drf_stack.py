"""The peer that does as much: DRF and simplejwt, with django-structlog and django-prometheus around it."""

from __future__ import annotations

import os

import django
import structlog
from django.conf import settings

from benchmarks.requests import drive

settings.configure(
    SECRET_KEY=drive.SECRET_KEY,
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    USE_TZ=True,
    DATABASES=drive.database(),
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "rest_framework",
        "django_structlog",
        "django_prometheus",
    ],
    MIDDLEWARE=[
        "django_prometheus.middleware.PrometheusBeforeMiddleware",
        "django_structlog.middlewares.RequestMiddleware",
        "django.middleware.security.SecurityMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django_prometheus.middleware.PrometheusAfterMiddleware",
    ],
    REST_FRAMEWORK={
        "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework_simplejwt.authentication.JWTAuthentication"],
        "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
        "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
        "UNAUTHENTICATED_USER": None,
    },
    LOGGING={
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "json": {
                "()": structlog.stdlib.ProcessorFormatter,
                "processor": structlog.processors.JSONRenderer(),
            }
        },
        "handlers": {
            "null": {"class": "logging.FileHandler", "filename": os.devnull, "formatter": "json"},
        },
        "root": {"handlers": ["null"], "level": "INFO"},
    },
)
django.setup()
structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.filter_by_level,
        structlog.processors.TimeStamper(fmt="iso"),
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    ],
    logger_factory=structlog.stdlib.LoggerFactory(),
    cache_logger_on_first_use=True,
)

from django.core.handlers.wsgi import WSGIHandler  # noqa: E402  # Django must be set up first
from django.urls import path  # noqa: E402
from rest_framework.decorators import api_view, authentication_classes, permission_classes  # noqa: E402
from rest_framework.exceptions import NotFound  # noqa: E402
from rest_framework.request import Request  # noqa: E402
from rest_framework.response import Response  # noqa: E402


@api_view(["GET"])
@authentication_classes([])
@permission_classes([])
def open_to_all(request: Request) -> Response:
    return Response({"id": 7, "name": "seven"})


@api_view(["GET"])
@authentication_classes([])
@permission_classes([])
def missing(request: Request) -> Response:
    raise NotFound


@api_view(["GET"])
def mine(request: Request) -> Response:
    return Response({"id": request.user.pk, "name": request.user.get_username()})


urlpatterns = [path("api/open", open_to_all), path("api/open/missing", missing), path("api/mine", mine)]
application = WSGIHandler()


def token() -> str:
    from django.contrib.auth.models import User
    from rest_framework_simplejwt.tokens import AccessToken

    return f"Bearer {AccessToken.for_user(User.objects.create_user('ada'))}"


if __name__ == "__main__":
    drive.main("benchmarks.requests.drf_stack", token)

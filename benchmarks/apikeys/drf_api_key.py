"""The peer: Django REST framework with djangorestframework-api-key, whose keys belong to nobody."""

from __future__ import annotations

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
        "rest_framework",
        "rest_framework_api_key",
    ],
    MIDDLEWARE=["django.middleware.security.SecurityMiddleware", "django.middleware.common.CommonMiddleware"],
    REST_FRAMEWORK={
        "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
        "UNAUTHENTICATED_USER": None,
    },
    LOGGING_CONFIG=None,
)
django.setup()

from django.core.handlers.wsgi import WSGIHandler  # noqa: E402  # Django must be set up first
from django.urls import path  # noqa: E402
from rest_framework.decorators import api_view, authentication_classes, permission_classes  # noqa: E402
from rest_framework.request import Request  # noqa: E402
from rest_framework.response import Response  # noqa: E402
from rest_framework_api_key.models import APIKey  # noqa: E402
from rest_framework_api_key.permissions import HasAPIKey  # noqa: E402


@api_view(["GET"])
@authentication_classes([])
@permission_classes([])
def open_to_all(request: Request) -> Response:
    return Response({"id": 7, "name": "seven"})


@api_view(["GET"])
@authentication_classes([])
@permission_classes([HasAPIKey])
def mine(request: Request) -> Response:
    return Response({"id": 7, "name": "seven"})


urlpatterns = [path("api/open", open_to_all), path("api/mine", mine), path("api/open/last", open_to_all)]
application = WSGIHandler()


def make(keys: int) -> dict[str, str]:
    for number in range(keys - 1):
        APIKey.objects.create_key(name=f"other {number}")
    return {"Authorization": f"Api-Key {APIKey.objects.create_key(name='robot')[1]}"}


if __name__ == "__main__":
    drive.main("benchmarks.apikeys.drf_api_key", make)

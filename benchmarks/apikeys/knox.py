"""The peer: Django REST framework with django-rest-knox, whose tokens belong to users."""

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
        "knox",
    ],
    MIDDLEWARE=["django.middleware.security.SecurityMiddleware", "django.middleware.common.CommonMiddleware"],
    REST_FRAMEWORK={
        "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
        "UNAUTHENTICATED_USER": None,
    },
    LOGGING_CONFIG=None,
)
django.setup()

from django.contrib.auth.models import User  # noqa: E402  # Django must be set up first
from django.core.handlers.wsgi import WSGIHandler  # noqa: E402
from django.urls import path  # noqa: E402
from knox.auth import TokenAuthentication  # noqa: E402
from knox.models import AuthToken  # noqa: E402
from rest_framework.decorators import api_view, authentication_classes, permission_classes  # noqa: E402
from rest_framework.permissions import IsAuthenticated  # noqa: E402
from rest_framework.request import Request  # noqa: E402
from rest_framework.response import Response  # noqa: E402


@api_view(["GET"])
@authentication_classes([])
@permission_classes([])
def open_to_all(request: Request) -> Response:
    return Response({"id": 7, "name": "seven"})


@api_view(["GET"])
@authentication_classes([TokenAuthentication])
@permission_classes([IsAuthenticated])
def mine(request: Request) -> Response:
    return Response({"id": 7, "name": "seven"})


urlpatterns = [path("api/open", open_to_all), path("api/mine", mine), path("api/open/last", open_to_all)]
application = WSGIHandler()


def make(keys: int) -> dict[str, str]:
    owner = User.objects.create_user("ada")
    for _ in range(keys - 1):
        AuthToken.objects.create(owner)
    return {"Authorization": f"Token {AuthToken.objects.create(owner)[1]}"}


if __name__ == "__main__":
    drive.main("benchmarks.apikeys.knox", make)

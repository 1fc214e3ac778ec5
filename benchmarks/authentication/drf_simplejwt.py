"""DRF with simplejwt's authentication: a signature and a query for the user each time."""

from __future__ import annotations

import django
from django.conf import settings

from benchmarks.requests import drive

settings.configure(
    SECRET_KEY=drive.SECRET_KEY,
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    USE_TZ=True,
    DATABASES=drive.database(),
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "rest_framework"],
    MIDDLEWARE=["django.middleware.security.SecurityMiddleware", "django.middleware.common.CommonMiddleware"],
    REST_FRAMEWORK={
        "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework_simplejwt.authentication.JWTAuthentication"],
        "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
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


@api_view(["GET"])
@authentication_classes([])
@permission_classes([])
def open_to_all(request: Request) -> Response:
    return Response({"id": 7, "name": "seven"})


@api_view(["GET"])
def mine(request: Request) -> Response:
    return Response({"id": 7, "name": "seven"})


urlpatterns = [path("api/open", open_to_all), path("api/mine", mine), path("api/open/last", open_to_all)]
application = WSGIHandler()


def token() -> str:
    from django.contrib.auth.models import User
    from rest_framework_simplejwt.tokens import AccessToken

    return f"Bearer {AccessToken.for_user(User.objects.create_user('ada'))}"


if __name__ == "__main__":
    drive.main("benchmarks.authentication.drf_simplejwt", token)

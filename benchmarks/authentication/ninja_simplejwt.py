"""django-ninja with simplejwt's token, checked and believed: no query, and nothing that could be revoked."""

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
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "ninja"],
    MIDDLEWARE=["django.middleware.security.SecurityMiddleware", "django.middleware.common.CommonMiddleware"],
    LOGGING_CONFIG=None,
)
django.setup()

from django.core.handlers.wsgi import WSGIHandler  # noqa: E402  # Django must be set up first
from django.http import HttpRequest  # noqa: E402
from django.urls import path  # noqa: E402
from ninja import NinjaAPI  # noqa: E402
from ninja.security import HttpBearer  # noqa: E402
from rest_framework_simplejwt.exceptions import TokenError  # noqa: E402
from rest_framework_simplejwt.tokens import AccessToken  # noqa: E402


class Stateless(HttpBearer):
    def authenticate(self, request: HttpRequest, token: str) -> object:
        try:
            return AccessToken(token)  # type: ignore[arg-type]  # simplejwt's hint is wrong
        except TokenError:
            return None


api = NinjaAPI()


@api.get("/open")
def open_to_all(request: HttpRequest) -> dict[str, object]:
    return {"id": 7, "name": "seven"}


@api.get("/mine", auth=Stateless())
def mine(request: HttpRequest) -> dict[str, object]:
    return {"id": 7, "name": "seven"}


api.get("/open/last", auth=None)(open_to_all)

urlpatterns = [path("api/", api.urls)]
application = WSGIHandler()


def token() -> str:
    from django.contrib.auth.models import User

    return f"Bearer {AccessToken.for_user(User.objects.create_user('ada'))}"


if __name__ == "__main__":
    drive.main("benchmarks.authentication.ninja_simplejwt", token)

"""django-allauth's headless session tokens under django-ninja: session and user are read each time."""

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
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "ninja",
        "allauth",
        "allauth.account",
        "allauth.headless",
    ],
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "allauth.account.middleware.AccountMiddleware",
    ],
    LOGGING_CONFIG=None,
)
django.setup()

from allauth.headless.contrib.ninja.security import x_session_token_auth  # noqa: E402
from django.core.handlers.wsgi import WSGIHandler  # noqa: E402
from django.http import HttpRequest  # noqa: E402
from django.urls import path  # noqa: E402
from ninja import NinjaAPI  # noqa: E402

api = NinjaAPI()


@api.get("/open")
def open_to_all(request: HttpRequest) -> dict[str, object]:
    return {"id": 7, "name": "seven"}


@api.get("/mine", auth=[x_session_token_auth])
def mine(request: HttpRequest) -> dict[str, object]:
    return {"id": 7, "name": "seven"}


api.get("/open/last", auth=None)(open_to_all)

urlpatterns = [path("api/", api.urls)]
application = WSGIHandler()


def token() -> dict[str, str]:
    from django.contrib.auth import login
    from django.contrib.auth.models import User
    from django.contrib.sessions.backends.db import SessionStore

    user = User.objects.create_user("ada")
    request = HttpRequest()
    request.session = SessionStore()
    login(request, user, backend="django.contrib.auth.backends.ModelBackend")
    request.session.save()
    return {"X-Session-Token": str(request.session.session_key)}


if __name__ == "__main__":
    drive.main("benchmarks.authentication.allauth_sessions", token)

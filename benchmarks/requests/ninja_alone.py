"""The peer that does least: django-ninja with no authentication, request id, log line or metrics."""

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
from ninja.errors import HttpError  # noqa: E402

api = NinjaAPI()


@api.get("/open")
def open_to_all(request: HttpRequest) -> dict[str, object]:
    return {"id": 7, "name": "seven"}


@api.get("/open/async")
async def open_async(request: HttpRequest) -> dict[str, object]:
    return {"id": 7, "name": "seven"}


@api.get("/open/missing")
def missing(request: HttpRequest) -> None:
    raise HttpError(404, "There is no such thing here.")


urlpatterns = [path("api/", api.urls)]
application = WSGIHandler()

if __name__ == "__main__":
    drive.main("benchmarks.requests.ninja_alone", str)

"""URLs with one asynchronous operation that looks at its user."""

from __future__ import annotations

from django.http import HttpRequest
from django.urls import path

from svc_infra_django.api import create_api

api = create_api(urls_namespace="asynchronous")


@api.get("/name")
async def name(request: HttpRequest) -> dict[str, str]:
    return {"name": request.user.get_username()}


urlpatterns = [path("api/", api.urls)]

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path
from rest_framework.response import Response
from rest_framework.views import APIView

from svc_infra_django.api import ApiRequest, create_api, get_current_user
from svc_infra_django.apikeys import issue_key
from svc_infra_django.contrib.drf.authentication import PrincipalAuthentication

api = create_api(urls_namespace="caching")


@api.get("/plain")
def plain(request: ApiRequest) -> dict[str, str]:
    return {"name": request.user.get_username()}


@api.get("/aplain")
async def aplain(request: ApiRequest) -> dict[str, str]:
    return {}


@api.get("/response")
def response(request: ApiRequest) -> HttpResponse:
    return HttpResponse("a,b", content_type="text/csv")


@api.get("/stream")
def stream(request: ApiRequest) -> StreamingHttpResponse:
    def lines() -> Iterator[str]:
        yield "a"

    return StreamingHttpResponse(lines())


@api.get("/cacheable")
def cacheable(request: ApiRequest, response: HttpResponse) -> dict[str, str]:
    response["Cache-Control"] = "private, max-age=60"
    response["Vary"] = "Accept"
    return {}


@api.get("/open", auth=None)
def open_to_all(request: HttpRequest) -> dict[str, str]:
    return {}


def page(request: HttpRequest) -> HttpResponse:
    return HttpResponse(get_current_user(request).get_username())


class View(APIView):
    authentication_classes = [PrincipalAuthentication]
    permission_classes = []

    def get(self, request: Any) -> Response:
        return Response({})


urlpatterns = [path("things/", api.urls), path("page", page), path("drf", View.as_view())]

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]


@pytest.fixture
def key(user: Any) -> dict[str, str]:
    return {"X-API-Key": issue_key(owner=user, name="robot")[1]}


@pytest.mark.parametrize(
    "path", ["/things/plain", "/things/aplain", "/things/response", "/things/stream", "/page", "/drf"]
)
def test_what_a_caller_is_answered_is_not_stored(client: Any, key: dict[str, str], path: str) -> None:
    answer = client.get(path, headers=key)

    assert answer.status_code == 200
    assert answer["Cache-Control"] == "no-store"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("path", ["/things/plain", "/things/aplain", "/page"])
def test_nor_is_what_an_asynchronous_caller_is_answered(
    async_client: Any, key: dict[str, str], path: str
) -> None:
    assert async_to_sync(async_client.get)(path, headers=key)["Cache-Control"] == "no-store"


def test_an_operation_may_say_otherwise_and_each_caller_has_a_copy_of_their_own(
    client: Any, key: dict[str, str]
) -> None:
    answer = client.get("/things/cacheable", headers=key)

    assert answer["Cache-Control"] == "private, max-age=60"
    named = {each.strip() for each in answer["Vary"].split(",")}
    assert {"Accept", "Authorization", "X-API-Key", "Cookie"} <= named


def test_what_is_for_everybody_is_left_alone(client: Any, key: dict[str, str]) -> None:
    assert "Cache-Control" not in client.get("/things/open", headers=key)


@pytest.mark.parametrize("path", ["/things/plain", "/things/response"])
def test_djangos_cache_of_pages_hands_nobody_the_page_of_another(
    client: Any, key: dict[str, str], settings: Any, path: str
) -> None:
    settings.MIDDLEWARE = [
        *settings.MIDDLEWARE[:2],
        "django.middleware.cache.UpdateCacheMiddleware",
        *settings.MIDDLEWARE[2:],
        "django.middleware.cache.FetchFromCacheMiddleware",
    ]

    assert client.get(path, headers=key).status_code == 200
    assert client.get(path).status_code == 401

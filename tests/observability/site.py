"""A small project to send requests to: each view shows one way in which a request can go."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator

from django.http import FileResponse, Http404, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import include, path, re_path
from structlog.contextvars import bind_contextvars

from svc_infra_django.observability import logger
from svc_infra_django.observability.context import current

foreign = logging.getLogger("somebody.else")


def context(request: HttpRequest, **captured: object) -> HttpResponse:
    logger.info("in the view")
    foreign.warning("a stranger speaks")
    return JsonResponse(current())


async def acontext(request: HttpRequest) -> HttpResponse:
    await asyncio.sleep(0)
    logger.info("in the view")
    return JsonResponse(current())


def untidy(request: HttpRequest) -> HttpResponse:
    bind_contextvars(left_behind="by another request")
    return HttpResponse()


def fails(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("a fault of ours")


def missing(request: HttpRequest, key: str = "") -> HttpResponse:
    raise Http404


async def waits(request: HttpRequest) -> HttpResponse:
    await asyncio.sleep(30)
    return HttpResponse()


def parts() -> Iterator[str]:
    for number in range(3):
        logger.info("streaming", number=number)
        yield f"{number};"


async def aparts() -> AsyncIterator[str]:
    for number in range(3):
        logger.info("streaming", number=number)
        await asyncio.sleep(0)
        yield f"{number};"


def streams(request: HttpRequest) -> HttpResponse:
    return StreamingHttpResponse(parts())


async def astreams(request: HttpRequest) -> HttpResponse:
    return StreamingHttpResponse(aparts())


def file(request: HttpRequest) -> HttpResponse:
    return FileResponse(open(__file__, "rb"))  # noqa: PTH123 the response closes it


urlpatterns = [
    path("context", context),
    path("acontext", acontext),
    path("untidy", untidy),
    path("fails", fails),
    path("waits", waits),
    path("streams", streams),
    path("astreams", astreams),
    path("file", file),
    path("orders/<int:number>/", context),
    path("reset/<token>/", context),
    path("confirm/<key>/", missing),
    re_path(r"^open/(?P<key>\w*)$", context),
    path("", include("svc_infra_django.observability.urls")),
]

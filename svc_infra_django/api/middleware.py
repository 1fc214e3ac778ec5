"""Problems for what no view answers: unknown paths, wrong methods, errors in plain Django views."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest, HttpResponse
from django.utils.decorators import sync_and_async_middleware

from ..errors import NotFoundError, SvcInfraError
from .errors import MethodNotAllowed, PlainStatus, problem, under_api

# Everything else, such as Allow, or what another middleware says to the browser, is true of the problem too.
OF_THE_PAGE = frozenset(
    {"content-type", "content-length", "content-encoding", "content-language", "etag", "last-modified"}
)


@sync_and_async_middleware
def ProblemMiddleware(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Make every error under the API a problem, and every SvcInfraError of a plain view.

    Put it right after RequestContextMiddleware, so that it sees what the other middlewares answer.
    """
    if iscoroutinefunction(get_response):

        async def asynchronous(request: HttpRequest) -> HttpResponse:
            return _as_problem(request, await get_response(request))

        handler: Any = asynchronous
    else:

        def synchronous(request: HttpRequest) -> HttpResponse:
            return _as_problem(request, get_response(request))

        handler = synchronous

    handler.process_exception = _process_exception
    return handler  # type: ignore[no-any-return]


def _process_exception(request: HttpRequest, exception: Exception) -> HttpResponse | None:
    return problem(request, exception) if isinstance(exception, SvcInfraError) else None


def _as_problem(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    if response.status_code < 400 or not _is_page(response) or not under_api(request):
        return response
    answer = problem(request, _known(response))
    for name, value in response.items():
        if name.lower() not in OF_THE_PAGE:
            answer.setdefault(name, value)
    answer.cookies.update(response.cookies)
    return answer


def _is_page(response: HttpResponse) -> bool:
    # What an operation answered as JSON is its own business, whatever the status.
    return response.get("Content-Type", "text/html").startswith("text/") and not response.streaming


def _known(response: HttpResponse) -> SvcInfraError:
    match response.status_code:
        case 404:
            return NotFoundError()
        case 405:
            return MethodNotAllowed()
        case status:
            return PlainStatus(status)

"""Problems for what no view answers: unknown paths, wrong methods, errors in plain Django views.

And word of whoever was refused, by whatever view.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.http import HttpRequest, HttpResponse
from django.utils.decorators import sync_and_async_middleware

from ..errors import NotFoundError, SvcInfraError
from ..observability.context import bound
from ..observability.middleware import client_address
from .caching import keep_to_the_caller
from .errors import MethodNotAllowed, PlainStatus, problem, under_api
from .events import ACCESS_REFUSED, AccessRefused

# Everything else, such as Allow, or what another middleware says to the browser, is true of the problem too.
OF_THE_PAGE = frozenset(
    {"content-type", "content-length", "content-encoding", "content-language", "etag", "last-modified"}
)


@sync_and_async_middleware
def ProblemMiddleware(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Make every error under the API a problem, and every SvcInfraError of a plain view.

    What an authenticated caller is answered, by whatever view, is kept from every cache.

    A signed-in caller who was answered with 403, here or in any view of the project, is told of by the
    event `access.refused`: outside the request's transaction, which the refusal has undone.

    Put it right after RequestContextMiddleware, so that it sees what the other middlewares answer.
    """
    if iscoroutinefunction(get_response):

        async def asynchronous(request: HttpRequest) -> HttpResponse:
            response = _finished(request, await get_response(request))
            if response.status_code == 403:
                await sync_to_async(_tell_of_refusal)(request)
            return response

        handler: Any = asynchronous
    else:

        def synchronous(request: HttpRequest) -> HttpResponse:
            response = _finished(request, get_response(request))
            if response.status_code == 403:
                _tell_of_refusal(request)
            return response

        handler = synchronous

    handler.process_exception = _process_exception
    return handler  # type: ignore[no-any-return]


def _process_exception(request: HttpRequest, exception: Exception) -> HttpResponse | None:
    return problem(request, exception) if isinstance(exception, SvcInfraError) else None


def _finished(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    keep_to_the_caller(request, response)
    if response.status_code < 400 or not _is_page(response) or not under_api(request):
        return response
    answer = problem(request, _known(response))
    for name, value in response.items():
        if name.lower() not in OF_THE_PAGE:
            answer.setdefault(name, value)
    answer.cookies.update(response.cookies)
    return answer


def _tell_of_refusal(request: HttpRequest) -> None:
    principal = getattr(request, "principal", None)
    user = principal.user if principal is not None else getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        return
    refusal = getattr(request, "refusal", None)
    match = request.resolver_match
    payload = AccessRefused(
        user_id=str(user.pk),
        credential=principal.method if principal is not None else "session",
        method=request.method or "",
        route=f"/{match.route.lstrip('^/')}" if match else "unmatched",
        code=refusal.code if refusal is not None else "permission_denied",
        permission=str(refusal.extra.get("permission", "")) if refusal is not None else "",
        client_address=client_address(request),
    )
    with bound(user_id=payload.user_id):
        ACCESS_REFUSED.emit(payload, owner=user, tenant=principal.tenant if principal is not None else "")


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

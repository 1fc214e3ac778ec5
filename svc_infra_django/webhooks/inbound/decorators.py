"""The door: a function becomes a view that verifies, keeps and handles."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.debug import sensitive_variables

from ...api.errors import BadRequest, BodyTooLarge, MethodNotAllowed, problem
from ...errors import SvcInfraError
from .conf import settings
from .errors import HandlingFailed
from .handlers import Handler, preset_of, register
from .presets import Received
from .services import receiving

View = Callable[..., HttpResponse]
Secrets = Callable[[HttpRequest], Iterable[str]]

STATUS = {"handled": 204, "duplicate": 204, "queued": 202}


def webhook_receiver(
    source: str, *, secrets: Secrets | None = None, later: bool = False
) -> Callable[[Handler], View]:
    """Make a view of `handler(message)`: for `path(...)`, and for a Ninja operation with `auth=None`.

    The view verifies the webhook by the settings of `source`, keeps it in the inbox, and calls the
    handler in one transaction with that: a webhook that comes twice is handled once, and one whose
    handler raises leaves nothing behind but its record. It answers 204, or 401 without a reason, or 500
    so that the sender tries again.

    `later=True` answers 202 at once and has the worker call the handler, with the retries of a job.
    `secrets(request)` gives the secrets instead of the settings, where each of your customers has one.
    """

    def decorate(handler: Handler) -> View:
        register(source, handler)

        @csrf_exempt
        def view(request: HttpRequest, **kwargs: Any) -> HttpResponse:
            try:
                return _answer(request, source, secrets=secrets, later=later)
            except SvcInfraError as error:
                return problem(request, error)

        # Not functools.wraps: whoever asks for the signature must see the view's.
        for name in ("__name__", "__qualname__", "__module__", "__doc__"):
            if (value := getattr(handler, name, None)) is not None:
                setattr(view, name, value)
        view.handler = handler  # type: ignore[attr-defined]  # for tests that call it without a request
        return view

    return decorate


def signed_by(source: str, *, secrets: Secrets | None = None) -> Callable[[HttpRequest], Received]:
    """For `auth=` of a Ninja operation: `request.auth` is the verified `Received`. It keeps nothing.

    Raises VerificationError, which the API answers with 401.
    """

    def authenticate(request: HttpRequest) -> Received:
        return _verified(request, source, secrets=secrets)

    return authenticate


def _answer(request: HttpRequest, source: str, *, secrets: Secrets | None, later: bool) -> HttpResponse:
    if request.method != "POST":
        raise MethodNotAllowed(headers={"Allow": "POST"})
    received = _verified(request, source, secrets=secrets)
    if (at_once := preset_of(source).answer(received.data)) is not None:
        return JsonResponse(at_once)
    reception = receiving.receive(received, later=later)
    if reception.error is not None:
        # Not raised: in a transaction of the whole request that would undo the record of the failure.
        failure = HandlingFailed()
        failure.__cause__ = reception.error
        return problem(request, failure)
    return HttpResponse(status=STATUS[reception.outcome])


@sensitive_variables("known")
def _verified(request: HttpRequest, source: str, *, secrets: Secrets | None) -> Received:
    body = _body(request)
    known: Sequence[str] | None = None if secrets is None else list(secrets(request))
    return receiving.verified(source, body, request.headers, now=timezone.now(), secrets=known)


def _body(request: HttpRequest) -> bytes:
    """The raw body. Raises BodyTooLarge before it is read, if the request says so, and BadRequest."""
    told = request.headers.get("content-length") or "0"
    if not (told.isascii() and told.isdigit()):
        raise BadRequest("The Content-Length is no number.")
    if int(told[:20]) > settings.max_body_bytes:
        raise BodyTooLarge()
    try:
        body = request.body
    except RequestDataTooBig:
        raise BodyTooLarge() from None
    if len(body) > settings.max_body_bytes:
        raise BodyTooLarge()
    return body

"""Who handles what comes in: one function a source, called in a transaction with its mark in the inbox."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from inspect import iscoroutinefunction
from typing import Any
from uuid import UUID

from asgiref.sync import async_to_sync
from django.conf import settings as django_settings
from django.db import router, transaction
from django.utils import timezone
from django.utils.module_loading import import_string

from ...observability.context import bound
from ...observability.logging import get_logger
from ...observability.metrics import metrics
from . import events
from .conf import Source, settings
from .errors import HandlerTaken, HandlingFailed, NoHandler, UnknownSource
from .models import InboxMessage
from .presets import PRESETS, Preset, Received

logger = get_logger("svc_infra_django.inbound")

Handler = Callable[[Received], Any]

_handlers: dict[str, Handler] = {}


def register(source: str, function: Handler) -> None:
    """Have `function` handle what comes from `source`. Raises HandlerTaken."""
    other = _handlers.get(source)
    # A module that is imported again registers a new object of the same name.
    if other is not None and _name(other) != _name(function):
        raise HandlerTaken(f"{_name(other)} handles the webhooks of {source} already.")
    _handlers[source] = function


def handler_of(source: str) -> Handler:
    """The function that handles the source. Raises NoHandler."""
    if source not in _handlers:
        # A worker has read no view yet, and views are what is decorated.
        import_module(django_settings.ROOT_URLCONF)
    if source not in _handlers:
        raise NoHandler(f"No function is decorated with @webhook_receiver({source!r}).")
    return _handlers[source]


def configured(source: str) -> Source:
    """What the settings say of the source. Raises UnknownSource."""
    try:
        found: Source = settings.sources[source]
    except KeyError:
        raise UnknownSource(
            f'SVC_INFRA["inbound"]["sources"] does not name {source!r}.'
        ) from None  # fmt: skip
    return found


def preset_of(source: str) -> Preset:
    """How the source signs. Raises UnknownSource."""
    return preset_named(configured(source).preset)


@lru_cache
def preset_named(name: str) -> Preset:
    """A preset of ours by its name, another one by its dotted path. Raises UnknownSource."""
    try:
        found = PRESETS[name] if name in PRESETS else import_string(name)
    except ImportError:
        raise UnknownSource(f"There is no preset {name!r}.") from None
    if not isinstance(found, type) or not issubclass(found, Preset):
        raise UnknownSource(f"{name!r} is no subclass of Preset.")
    return found()


def handle(message_id: UUID) -> bool:
    """Handle a webhook of the inbox unless that is done; whether it was. Raises HandlingFailed."""
    with transaction.atomic(using=database()):
        message = InboxMessage.objects.select_for_update().filter(pk=message_id).first()
        if message is None or message.state == InboxMessage.State.HANDLED:
            return False
        error = run(message)
    if error is not None:
        raise HandlingFailed() from error
    return True


def run(message: InboxMessage) -> Exception | None:
    """Call the handler of a webhook that is locked. What it raised, after its writes were undone.

    The mark that it is handled commits with what the handler wrote, or neither does.
    """
    message.attempts += 1
    with bound(inbox_id=str(message.pk), source=message.source):
        try:
            with (
                metrics.timer("inbound.handling", source=message.source),
                transaction.atomic(using=database()),
            ):
                _call(handler_of(message.source), received(message))
                message.mark_handled(now=timezone.now())
        except Exception as error:  # frontier: whatever a handler of the project's raises
            message.mark_failed(error)
            # Whoever called says where it was raised: the request's log, or the job's.
            logger.warning("webhook could not be handled", event_type=message.event_type)
            _announce(message)
            return error
    return None


def received(message: InboxMessage) -> Received:
    """A webhook of the inbox as its handler is given it."""
    body = bytes(message.body)
    data = preset_of(message.source).parse(body, message.headers)
    return Received(
        message.source,
        message.external_id,
        message.event_type,
        data,
        body=body,
        headers=message.headers,
        signer=message.signer,
    )


def database() -> str:
    """The alias of the database that has the inbox."""
    return router.db_for_write(InboxMessage)


def _call(handler: Handler, message: Received) -> None:
    if iscoroutinefunction(handler):
        # Its queries come back to this thread, and so into this transaction.
        async_to_sync(handler)(message)
    else:
        handler(message)


def _announce(message: InboxMessage) -> None:
    payload = events.MessageFailed(
        message_id=message.pk,
        source=message.source,
        event_type=message.event_type,
        attempts=message.attempts,
        error=message.error.partition(":")[0],
    )
    try:
        with transaction.atomic(using=database()):
            events.MESSAGE_FAILED.emit(payload)
    except Exception:  # frontier: a receiver that raises must not undo the record of the failure
        logger.exception("a receiver of an event failed", event_type=events.MESSAGE_FAILED.name)


def _name(function: Handler) -> str:
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', repr(function))}"

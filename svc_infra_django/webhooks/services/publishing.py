"""Publishing: one message and its deliveries, in the caller's transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

import orjson
import pydantic
from asgiref.sync import sync_to_async
from django.db import transaction
from django.utils import timezone
from pydantic_core import PydanticSerializationError, to_json

from ...errors import FieldProblem, NotFoundError, ValidationError
from ...events import catalog
from ...identifiers import uuid7
from ...observability.context import carried
from ...observability.metrics import metrics
from ...rows import TENANT_LENGTH, locked
from ..conf import settings
from ..errors import BadPayload, EndpointNotEnabled, TooManyTests
from ..models import Attempt, Delivery, Endpoint, EventType, Message, wants
from ..querysets import DataSchema, Listener, NewDelivery
from .declaring import check_name, data_pointer, violations

KEY_LENGTH = 255
TEST_EVENT = "webhooks.test"
TESTS, TEST_SECONDS = 20, 60
"""So many tests an endpoint may be sent in this time: they must not make a load generator of us."""
UNDECLARED = "undeclared"


@dataclass(frozen=True, slots=True)
class Publication:
    """One entry for `publish_many`; the fields are `publish`'s arguments."""

    event_type: str
    data: Any
    tenant: str = ""
    owner: Any = None
    idempotency_key: str | None = None
    deliver_at: datetime | None = None


def publish(
    event_type: str,
    data: Any,
    *,
    tenant: str = "",
    owner: Any = None,
    idempotency_key: str | None = None,
    deliver_at: datetime | None = None,
) -> Message:
    """Write down that `event_type` happened, for every endpoint that listens, and return the message.

    No network: the rows are part of the caller's transaction, and the deliverer finds them once it
    commits. `data` is anything that JSON can say, pydantic models included; if the type is declared in
    code, it must fit the payload, and if it has a record with a schema, the schema. `owner` is the user
    it belongs to: endpoints of other users do not hear it. With an `idempotency_key` the second call for
    the same tenant and owner writes nothing and returns the first message. `deliver_at` holds the
    delivery back until then.

    Raises BadEventType and BadPayload.
    """
    (message,) = publish_many([Publication(event_type, data, tenant, owner, idempotency_key, deliver_at)])
    return message


def publish_many(publications: Iterable[Publication]) -> list[Message]:
    """`publish` for many at once, in as many inserts as for one. Messages in the order given."""
    now = timezone.now()
    messages = [_message(publication, now=now) for publication in publications]
    if not messages:
        return []
    listening = Endpoint.objects.listening(
        tenants={message.tenant for message in messages},
        owner_ids={message.owner_id for message in messages} - {None},
    )
    listeners, schemas = listening.with_event_types({message.event_type for message in messages})
    for message in messages:
        _check_data(message, schemas)
    rows = _fan_out(messages, listeners)
    new = Message.objects.insert_new(messages, rows, trigger=Delivery.Trigger.PUBLISH, now=now)
    fresh = [message for message in messages if message.pk in new]
    for message in fresh:
        # Callers of the API name types as they like, and every name would be a time series for ever.
        kind = message.event_type if message.event_type in catalog else UNDECLARED
        metrics.increment("webhooks.published", type=kind)
    return messages if len(fresh) == len(messages) else _with_first(messages, new)


apublish = sync_to_async(publish)
apublish_many = sync_to_async(publish_many)


def send_test(endpoint: Endpoint, *, event_type: str | None = None) -> Message:
    """A message for this endpoint alone: `webhooks.test`, or an example of `event_type`.

    The example is made from the JSON Schema of the event type. Raises EndpointNotEnabled, TooManyTests,
    NotFoundError for an event type that is not recorded, BadPayload if no example of it can be made.
    """
    if endpoint.state == Endpoint.State.DISABLED:
        raise EndpointNotEnabled()
    now = timezone.now()
    since = now - timedelta(seconds=TEST_SECONDS)
    if endpoint.deliveries.filter(trigger=Delivery.Trigger.TEST, created_at__gt=since).count() >= TESTS:
        raise TooManyTests(retry_after=TEST_SECONDS)
    name, data = event_type or TEST_EVENT, {"endpoint_id": str(endpoint.pk)}
    if event_type is not None:
        check_name(event_type, pointer="/query/event_type")
        recorded = EventType.objects.filter(name=event_type, is_archived=False).first()
        if recorded is None:
            raise NotFoundError("Event type")
        data = recorded.example
    message = _message(Publication(name, data, endpoint.tenant, endpoint.owner), now=now)
    row = (uuid7(), message.pk, endpoint.pk, message.deliver_at)
    Message.objects.insert_new([message], [row], trigger=Delivery.Trigger.TEST, now=now)
    return message


@transaction.atomic
def expunge(message: Message) -> Message:
    """Take the body out of a message and what receivers answered to it; the rest stays as a record.

    What still waits for it is cancelled. What is being sent in this moment is sent.
    """
    now = timezone.now()
    present = locked(Message.objects.all(), message.pk)
    if present.expunged_at is None:
        Delivery.objects.waiting().filter(message=present).update(
            state=Delivery.State.CANCELLED, settled_at=now
        )
        Attempt.objects.filter(delivery__message=present).update(response_head="", response_headers={})
        present.mark_expunged(now=now)
    return present


def _message(publication: Publication, *, now: datetime) -> Message:
    event_type = publication.event_type
    check_name(event_type)
    _check_text("tenant", publication.tenant, TENANT_LENGTH)
    if publication.idempotency_key is not None:
        _check_text("idempotency_key", publication.idempotency_key, KEY_LENGTH)
    deliver_at = publication.deliver_at or now
    if timezone.is_naive(deliver_at):
        raise ValidationError.at("/body/deliver_at", "A moment with its time zone.")
    pk = uuid7()
    return Message(
        pk=pk,
        uid=f"msg_{pk.hex}",
        owner=publication.owner,
        tenant=publication.tenant,
        event_type=event_type,
        body=_body(event_type, publication.data, now=now),
        idempotency_key=publication.idempotency_key,
        idempotency_digest=_idempotency_digest(publication),
        context=carried(),
        occurred_at=now,
        # Not before now: what is due longest is sent first, and nobody may push in.
        deliver_at=max(deliver_at, now),
        created_at=now,
    )


def _idempotency_digest(publication: Publication) -> str | None:
    if publication.idempotency_key is None:
        return None
    owner = None if publication.owner is None else str(publication.owner.pk)
    return sha256(to_json([publication.tenant, owner, publication.idempotency_key])).hexdigest()


def _body(event_type: str, data: Any, *, now: datetime) -> bytes:
    """The bytes that are sent, written once (Standard Webhooks, "Webhook payload")."""
    if event_type in catalog and not isinstance(data, catalog[event_type].payload):
        try:
            # What receivers were told of is sent: "7" where a number is declared goes as 7.
            data = catalog[event_type].payload.model_validate(data, from_attributes=False)
        except pydantic.ValidationError as error:
            problems = [
                FieldProblem(data_pointer(found["loc"]), found["type"], found["msg"])
                for found in error.errors(include_url=False, include_context=False, include_input=False)
            ]
            raise _unfit(event_type, problems) from None
    try:
        body = to_json({"type": event_type, "timestamp": now, "data": data}, inf_nan_mode="null")
        body.decode()
    except (PydanticSerializationError, ValueError, RecursionError):
        raise BadPayload("The data cannot be written as JSON.") from None
    if len(body) > settings.max_payload_bytes:
        raise BadPayload(f"The data is larger than {settings.max_payload_bytes} bytes.")
    return body


def _check_text(name: str, text: Any, length: int) -> None:
    if not isinstance(text, str) or len(text) > length or not text.isprintable():
        raise ValidationError.at(f"/body/{name}", f"At most {length} printable characters.")


def _check_data(message: Message, schemas: Mapping[str, DataSchema]) -> None:
    """By the event type's record, for those that code does not declare: their payload checks them already."""
    schema = schemas.get(message.event_type)
    if schema is None:
        return
    message.schema_version = schema.version
    if message.event_type not in catalog and schema.text != "{}":
        # The very bytes that are sent, read again: what is checked is what receivers get.
        problems = violations(schema.text, orjson.loads(message.body)["data"])
        if problems:
            raise _unfit(message.event_type, problems)


def _unfit(event_type: str, problems: Sequence[FieldProblem]) -> BadPayload:
    places = ", ".join(problem.pointer for problem in problems)
    return BadPayload(f"The data does not fit {event_type}: {places}.", errors=problems)


def _fan_out(messages: Sequence[Message], listeners: Iterable[Listener]) -> list[NewDelivery]:
    by_audience: dict[tuple[str, Any], list[Listener]] = defaultdict(list)
    for listener in listeners:
        by_audience[listener.tenant, listener.owner_id].append(listener)
    return [
        (uuid7(), message.pk, listener.id, message.deliver_at)
        for message in messages
        for owner_id in dict.fromkeys((None, message.owner_id))
        for listener in by_audience[message.tenant, owner_id]
        if wants(listener.patterns, message.event_type)
    ]


def _with_first(messages: Sequence[Message], new: set[UUID]) -> list[Message]:
    """The messages, those whose key was taken replaced by the one that took it."""
    taken = [message.idempotency_digest for message in messages if message.pk not in new]
    first = {message.idempotency_digest: message for message in Message.objects.having_key_of(taken)}
    return [message if message.pk in new else first[message.idempotency_digest] for message in messages]

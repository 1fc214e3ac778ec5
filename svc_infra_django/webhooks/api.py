"""Users manage their own endpoints and see what became of their webhooks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal
from uuid import UUID

from django.db.models import Model, Q, QuerySet
from django.http import HttpResponse
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables
from ninja import Query, Router, Status

from ..api import Page, PageQuery, not_delegated, paginated, requires
from ..errors import NotFoundError
from ..events import catalog
from .errors import ReservedEventType
from .models import Attempt, Delivery, Endpoint, EventType, EventTypeVersion, Message, Replay
from .pictures import outcome
from .schemas import (
    AttemptOut,
    DeliveryOut,
    Disabling,
    EndpointChange,
    EndpointOut,
    EventTypeDetail,
    EventTypeOut,
    EventTypeVersionOut,
    HealthOut,
    KeyOut,
    MessageDetail,
    MessageOut,
    NewEndpoint,
    NewEndpointOut,
    NewMessage,
    NewMessages,
    NewReplay,
    PublicKeyOut,
    Replayed,
    ReplayOut,
    Rotation,
    WhatToReplay,
)
from .services import declaring, publishing, replaying, subscribing

router = Router(tags=["Webhooks"])

HEALTH_DELIVERIES = 50

DeliveryState = Literal["pending", "sending", "succeeded", "dead", "cancelled"]


@router.get("/event-types", response=Page[EventTypeOut], summary="What endpoints can ask for")
def list_event_types(request: Any, page: Query[PageQuery]) -> Any:
    return paginated(EventType.objects.filter(is_archived=False), page, order=("name",))


@router.get("/event-types/openapi", response=dict[str, Any], summary="The same as OpenAPI 3.1 webhooks")
def export_event_types(request: Any) -> Any:
    return declaring.openapi_document(title="Webhooks", version="1")


@router.get(
    "/event-types/{name}/versions",
    response=Page[EventTypeVersionOut],
    summary="The schemas that an event type has and had",
)
def list_event_type_versions(request: Any, name: str, page: Query[PageQuery]) -> Any:
    event_type = _one(EventType.objects.all(), "Event type", name)
    return paginated(EventTypeVersion.objects.filter(event_type=event_type), page, order=("-version", "-id"))


@router.get("/event-types/{name}", response=EventTypeDetail, summary="One of them, with an example")
def get_event_type(request: Any, name: str) -> Any:
    return _one(EventType.objects.filter(is_archived=False), "Event type", name)


@router.get("/endpoints", response=Page[EndpointOut], summary="My endpoints, newest first")
@not_delegated
def list_endpoints(request: Any, page: Query[PageQuery]) -> Any:
    return paginated(Endpoint.objects.owned_by(request.principal), page)


@router.post(
    "/endpoints",
    response={201: NewEndpointOut},
    summary="Make an endpoint; its secret is in this answer only",
)
@not_delegated
def create_endpoint(request: Any, response: HttpResponse, body: NewEndpoint) -> Any:
    made = subscribing.create_endpoint(
        owner=request.user, tenant=request.principal.tenant, **body.model_dump()
    )
    return Status(201, _shown_once(response, *made))


@router.get("/endpoints/{uuid:endpoint_id}", response=EndpointOut, summary="One of my endpoints")
@not_delegated
def get_endpoint(request: Any, endpoint_id: UUID) -> Any:
    return _endpoint(request, endpoint_id)


@router.patch("/endpoints/{uuid:endpoint_id}", response=EndpointOut, summary="Change an endpoint")
@not_delegated
def change_endpoint(request: Any, endpoint_id: UUID, body: EndpointChange) -> Any:
    return subscribing.update_endpoint(_endpoint(request, endpoint_id), **body.model_dump(exclude_unset=True))


@router.delete(
    "/endpoints/{uuid:endpoint_id}", response={204: None}, summary="Delete an endpoint with its deliveries"
)
@not_delegated
def delete_endpoint(request: Any, endpoint_id: UUID) -> Any:
    subscribing.delete_endpoint(_endpoint(request, endpoint_id))
    return Status(204, None)


@router.post(
    "/endpoints/{uuid:endpoint_id}/rotate-secret",
    response={201: NewEndpointOut},
    summary="Replace the secret",
)
@not_delegated
def rotate_secret(request: Any, response: HttpResponse, endpoint_id: UUID, body: Rotation) -> Any:
    endpoint = _endpoint(request, endpoint_id)
    secret = subscribing.rotate_secret(endpoint, grace_hours=body.grace_hours)
    return Status(201, _shown_once(response, endpoint, secret))


@router.get(
    "/endpoints/{uuid:endpoint_id}/keys",
    response=list[KeyOut],
    summary="The keys that sign for an endpoint, newest first; no secret among them",
)
@not_delegated
def list_keys(request: Any, endpoint_id: UUID) -> Any:
    return _endpoint(request, endpoint_id).signing_keys.filter(
        Q(expires_at=None) | Q(expires_at__gt=timezone.now())
    )


@router.post(
    "/endpoints/{uuid:endpoint_id}/sign-publicly",
    response=PublicKeyOut,
    summary="Sign with v1a (Ed25519) too; answers with the public key",
)
@not_delegated
def sign_publicly(request: Any, endpoint_id: UUID) -> Any:
    return {"public_key": subscribing.sign_publicly(_endpoint(request, endpoint_id))}


@router.post("/endpoints/{uuid:endpoint_id}/pause", response=EndpointOut, summary="Send nothing for now")
@not_delegated
def pause_endpoint(request: Any, endpoint_id: UUID) -> Any:
    endpoint = _endpoint(request, endpoint_id)
    subscribing.pause_endpoint(endpoint)
    return endpoint


@router.post("/endpoints/{uuid:endpoint_id}/enable", response=EndpointOut, summary="Send again")
@not_delegated
def enable_endpoint(request: Any, endpoint_id: UUID) -> Any:
    endpoint = _endpoint(request, endpoint_id)
    subscribing.resume_endpoint(endpoint)
    return endpoint


@router.post("/endpoints/{uuid:endpoint_id}/disable", response=EndpointOut, summary="Send nothing more")
@not_delegated
def disable_endpoint(request: Any, endpoint_id: UUID, body: Disabling) -> Any:
    endpoint = _endpoint(request, endpoint_id)
    subscribing.disable_endpoint(endpoint, reason=body.reason)
    return endpoint


@router.post(
    "/endpoints/{uuid:endpoint_id}/test",
    response={201: MessageOut},
    summary="Send a test message, or an example of an event type",
)
@not_delegated
def send_test(request: Any, endpoint_id: UUID, event_type: str | None = None) -> Any:
    return Status(201, publishing.send_test(_endpoint(request, endpoint_id), event_type=event_type))


@router.get(
    "/endpoints/{uuid:endpoint_id}/health",
    response=HealthOut,
    summary="What became of the newest deliveries to an endpoint",
)
@not_delegated
def get_health(request: Any, endpoint_id: UUID) -> Any:
    endpoint = _endpoint(request, endpoint_id)
    newest = Delivery.objects.newest_of([endpoint.pk], each=HEALTH_DELIVERIES)[endpoint.pk]
    return HealthOut.of(endpoint, [outcome(state, attempts) for state, attempts in newest])


@router.post(
    "/endpoints/{uuid:endpoint_id}/replay",
    response=Replayed,
    summary="Replay all that is dead or cancelled, in the background",
)
@not_delegated
def replay_dead(request: Any, endpoint_id: UUID) -> Any:
    asked = {"owner": request.user, "tenant": request.principal.tenant}
    return {"deliveries": replaying.start_replay(**asked, endpoint=_endpoint(request, endpoint_id)).total}


@router.get("/messages", response=Page[MessageOut], summary="My messages, newest first")
@not_delegated
def list_messages(request: Any, page: Query[PageQuery]) -> Any:
    return paginated(Message.objects.owned_by(request.principal).defer("body", "context"), page)


@router.post("/messages", response={201: MessageOut}, summary="Publish a message")
@requires("svc_webhooks.add_message")
def publish(request: Any, body: NewMessage) -> Any:
    (message,) = _publish(request, [body])
    return Status(201, message)


@router.post(
    "/messages/batch",
    response={201: list[MessageOut]},
    summary="Publish up to 100 messages: all of them, or none",
)
@requires("svc_webhooks.add_message")
def publish_batch(request: Any, body: NewMessages) -> Any:
    return Status(201, _publish(request, body.messages))


@router.get("/messages/{uuid:message_id}", response=MessageDetail, summary="One of my messages")
@not_delegated
def get_message(request: Any, message_id: UUID) -> Any:
    return _one(Message.objects.owned_by(request.principal), "Message", message_id)


@router.post(
    "/messages/{uuid:message_id}/expunge", response=MessageOut, summary="Take the body out of a message"
)
@not_delegated
def expunge(request: Any, message_id: UUID) -> Any:
    return publishing.expunge(_one(Message.objects.owned_by(request.principal), "Message", message_id))


@router.get("/deliveries", response=Page[DeliveryOut], summary="Deliveries to my endpoints, newest first")
@not_delegated
def list_deliveries(
    request: Any,
    page: Query[PageQuery],
    state: DeliveryState | None = None,
    endpoint_id: UUID | None = None,
    message_id: UUID | None = None,
) -> Any:
    asked = {"state": state, "endpoint_id": endpoint_id, "message_id": message_id}
    wanted = {name: value for name, value in asked.items() if value is not None}
    # Ids grow with time. The other order is that of the index on an endpoint's deliveries.
    order = ("-id",) if endpoint_id is None else ("-created_at", "-id")
    return paginated(_deliveries(request).filter(**wanted), page, order=order)


@router.get("/deliveries/{uuid:delivery_id}", response=DeliveryOut, summary="One of my deliveries")
@not_delegated
def get_delivery(request: Any, delivery_id: UUID) -> Any:
    return _one(_deliveries(request), "Delivery", delivery_id)


@router.post("/deliveries/{uuid:delivery_id}/replay", response=DeliveryOut, summary="Send a delivery again")
@not_delegated
def replay(request: Any, delivery_id: UUID) -> Any:
    delivery = _one(_deliveries(request).select_related("message", "endpoint"), "Delivery", delivery_id)
    return replaying.replay(delivery)


@router.post("/replays/count", response=Replayed, summary="How much a replay would send again")
@not_delegated
def count_replayable(request: Any, body: WhatToReplay) -> Any:
    return {"deliveries": replaying.count_replayable(**_what_to_replay(request, body))}


@router.post("/replays", response={201: ReplayOut}, summary="Send much again, in the background")
@not_delegated
def start_replay(request: Any, body: NewReplay) -> Any:
    asked = _what_to_replay(request, body)
    return Status(201, replaying.start_replay(**asked, per_second=body.per_second))


@router.get("/replays", response=Page[ReplayOut], summary="My replays, newest first")
@not_delegated
def list_replays(request: Any, page: Query[PageQuery]) -> Any:
    return paginated(Replay.objects.owned_by(request.principal), page)


@router.get("/replays/{uuid:replay_id}", response=ReplayOut, summary="How far a replay is")
@not_delegated
def get_replay(request: Any, replay_id: UUID) -> Any:
    return _one(Replay.objects.owned_by(request.principal), "Replay", replay_id)


@router.post("/replays/{uuid:replay_id}/cancel", response=ReplayOut, summary="Stop a replay")
@not_delegated
def cancel_replay(request: Any, replay_id: UUID) -> Any:
    return replaying.cancel_replay(_one(Replay.objects.owned_by(request.principal), "Replay", replay_id))


@router.get(
    "/deliveries/{uuid:delivery_id}/attempts", response=Page[AttemptOut], summary="Its attempts, newest first"
)
@not_delegated
def list_attempts(request: Any, delivery_id: UUID, page: Query[PageQuery]) -> Any:
    delivery = _one(_deliveries(request), "Delivery", delivery_id)
    return paginated(Attempt.objects.filter(delivery=delivery), page, order=("-n", "-id"))


def _publish(request: Any, messages: Sequence[NewMessage]) -> list[Message]:
    """Events that are declared in code are told by the code alone: who hears one may rely on it."""
    if any(message.event_type in catalog for message in messages):
        raise ReservedEventType()
    whose = {"owner": request.user, "tenant": request.principal.tenant}
    return publishing.publish_many(
        publishing.Publication(**message.model_dump(), **whose) for message in messages
    )


@sensitive_variables("secret")
def _shown_once(response: HttpResponse, endpoint: Endpoint, secret: str) -> dict[str, Any]:
    response["Cache-Control"] = "no-store"
    return {"endpoint": endpoint, "secret": secret}


def _deliveries(request: Any) -> QuerySet[Delivery]:
    # The body may be large and no list shows it.
    return (
        Delivery.objects.owned_by(request.principal)
        .select_related("message")
        .defer("message__body", "message__context")
    )


def _what_to_replay(request: Any, body: WhatToReplay) -> dict[str, Any]:
    asked: dict[str, Any] = {
        "owner": request.user,
        "tenant": request.principal.tenant,
        "since": body.since,
        "only_failed": body.only_failed,
    }
    if body.endpoint_id is not None:
        asked["endpoint"] = _endpoint(request, body.endpoint_id)
    if body.message_id is not None:
        asked["message"] = _one(Message.objects.owned_by(request.principal), "Message", body.message_id)
    return asked


def _endpoint(request: Any, endpoint_id: UUID) -> Endpoint:
    found: Endpoint = _one(Endpoint.objects.owned_by(request.principal), "Endpoint", endpoint_id)
    return found


def _one(queryset: QuerySet[Any], kind: str, pk: UUID | str) -> Any:
    row: Model | None = queryset.filter(pk=pk).first()
    if row is None:
        raise NotFoundError(kind, pk)
    return row

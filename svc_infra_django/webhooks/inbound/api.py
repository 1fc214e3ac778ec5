"""Staff see what came in and have it handled again."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from ninja import Query, Router

from ...api import Page, PageQuery, paginated, requires
from ...errors import NotFoundError
from .models import InboxMessage
from .schemas import InboxMessageDetail, InboxMessageOut, State
from .services import replaying

router = Router(tags=["Inbound webhooks"])


@router.get("/messages", response=Page[InboxMessageOut], summary="What came in, newest first")
@requires("svc_inbound.view_inboxmessage", everywhere=True)
def list_messages(
    request: Any, page: Query[PageQuery], source: str | None = None, state: State | None = None
) -> Any:
    asked = {"source": source, "state": state}
    wanted = {name: value for name, value in asked.items() if value is not None}
    return paginated(
        InboxMessage.objects.filter(**wanted).defer("body"), page, order=("-received_at", "-id")
    )  # fmt: skip


@router.get("/messages/{uuid:message_id}", response=InboxMessageDetail, summary="One of them, with its body")
@requires("svc_inbound.view_inboxmessage", everywhere=True)
def get_message(request: Any, message_id: UUID) -> Any:
    return _message(message_id)


@router.post("/messages/{uuid:message_id}/replay", response=InboxMessageOut, summary="Have it handled again")
@requires("svc_inbound.change_inboxmessage", everywhere=True)
def replay(request: Any, message_id: UUID) -> Any:
    return replaying.replay(_message(message_id))


def _message(message_id: UUID) -> InboxMessage:
    message = InboxMessage.objects.filter(pk=message_id).first()
    if message is None:
        raise NotFoundError("Webhook", message_id)
    return message

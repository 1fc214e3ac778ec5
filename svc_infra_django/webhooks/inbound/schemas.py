"""What goes out of the API of the inbox."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from ...api import Schema

State = Literal["received", "handled", "failed"]


class InboxMessageOut(Schema):
    id: UUID
    source: str
    external_id: Annotated[str, Field(description="The sender's id, or a digest of the body.")]
    event_type: str
    state: State
    attempts: int
    repeats: Annotated[int, Field(description="How often it came again.")]
    error: str
    received_at: datetime
    handled_at: datetime | None


class InboxMessageDetail(InboxMessageOut):
    headers: dict[str, str]
    body: Annotated[str, Field(description="As it came; what is no UTF-8 is replaced.")]

    @staticmethod
    def resolve_body(message: object) -> str:
        return bytes(message.body).decode(errors="replace")  # type: ignore[attr-defined]  # an InboxMessage

"""What happened, said once: typed signals that any floor may hear.

Call downward by name, emit upward. An event is emitted inside the transaction that makes it true,
by a service or a machine, as its last act; a receiver that raises therefore undoes the act.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from django.dispatch import Signal
from django.utils import timezone
from pydantic import BaseModel

from .identifiers import uuid7

PayloadT = TypeVar("PayloadT", bound=BaseModel)

NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)+")

any_event = Signal()
"""Sent with `event=Event` after the event's own receivers, for every event of the catalogue."""

catalog: dict[str, EventType[Any]] = {}
"""Every declared event type by name."""


@dataclass(frozen=True, slots=True)
class Event(Generic[PayloadT]):
    """One occurrence. `owner` is the user it belongs to and `tenant` the opaque tenant, if any."""

    type: EventType[PayloadT]
    payload: PayloadT
    owner: Any = None
    tenant: str = ""
    id: UUID = field(default_factory=uuid7)
    occurred_at: datetime = field(default_factory=timezone.now)


class EventType(Signal, Generic[PayloadT]):
    """A signal with a name in the past tense (`order.placed`) and a typed payload.

    `outward` events are also told to the project's webhook endpoints. Raises ValueError if the name
    is declared twice, or is not made of lower-case parts with dots between.
    """

    def __init__(
        self, name: str, payload: type[PayloadT], *, outward: bool = False, summary: str = ""
    ) -> None:
        super().__init__()
        if not NAME.fullmatch(name):
            raise ValueError(f"Event type {name!r} must look like `order.placed`.")
        if name in catalog:
            raise ValueError(f"Event type {name!r} is declared twice.")
        self.name = name
        self.payload = payload
        self.outward = outward
        self.summary = summary or " ".join((payload.__doc__ or "").split())
        catalog[name] = self

    def __repr__(self) -> str:
        return f"<EventType {self.name}>"

    def emit(self, payload: PayloadT, *, owner: Any = None, tenant: str = "") -> Event[PayloadT]:
        """Tell every receiver, in this transaction. An error in a receiver reaches the caller.

        Raises TypeError if `payload` is not of the declared type: receivers rely on its fields.
        """
        if not isinstance(payload, self.payload):
            raise TypeError(f"{self!r} takes a {self.payload.__name__}, not a {type(payload).__name__}.")
        event = Event(self, payload, owner=owner, tenant=tenant)
        self.send(sender=self.payload, event=event)
        any_event.send(sender=self.payload, event=event)
        return event

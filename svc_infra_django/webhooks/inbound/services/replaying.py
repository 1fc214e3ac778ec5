"""Replaying: having the handler called again for what is in the inbox."""

from __future__ import annotations

from django.db import transaction

from ....rows import locked
from ..handlers import database, handler_of
from ..models import InboxMessage
from ..tasks import handle_message


def replay(message: InboxMessage) -> InboxMessage:
    """Have the worker handle a webhook once more, whatever became of it before.

    The handler sees the same bytes and the same id. Raises NoHandler.
    """
    handler_of(message.source)
    with transaction.atomic(using=database()):
        present = locked(InboxMessage.objects.all(), message.pk)
        present.mark_waiting()
        handle_message.enqueue(str(present.pk))
    return present

"""Tell users of logins that are not like their earlier ones."""

from __future__ import annotations

from uuid import UUID

from ..conf import settings
from ..models import AuthSession
from ..tasks import send_new_device


def notice_new_device(session_id: UUID) -> None:
    """Have a mail sent if the user has logged in before, and never by this program at this address.

    What is compared are the sessions that are still kept, see `session_history_seconds`.
    """
    if not settings.new_device_mails:
        return
    session = AuthSession.objects.get(pk=session_id)
    earlier = AuthSession.objects.filter(owner_id=session.owner_id).exclude(pk=session.pk)
    if earlier.exists() and not AuthSession.objects.like(session).exists():
        send_new_device.enqueue(str(session.pk))

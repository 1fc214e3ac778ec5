"""The machine that writes to owners. It says that something failed, never what an address answered."""

from __future__ import annotations

from uuid import UUID

from django.core.mail import send_mail
from django.template.loader import render_to_string

from .models import Delivery, Endpoint

SUBJECTS = {
    "dead": "A webhook could not be delivered",
    "failing": "A webhook endpoint is failing",
    "recovered": "A webhook endpoint works again",
    "disabled": "A webhook endpoint was disabled",
}


def send_notice(endpoint_id: UUID, *, kind: str) -> bool:
    """Mail the owner of the endpoint; False if there is nobody to write to any more."""
    endpoint = Endpoint.objects.select_related("owner").filter(pk=endpoint_id).first()
    address = getattr(endpoint.owner, "email", "") if endpoint and endpoint.owner else ""
    if not endpoint or not address:
        return False
    context = {
        # A query may carry a credential.
        "url": endpoint.url.partition("?")[0],
        "description": endpoint.description,
        "reason": endpoint.reason,
        "dead": Delivery.objects.dead().filter(endpoint=endpoint).count(),
    }
    text = render_to_string(f"svc_webhooks/email/{kind}.txt", context)
    send_mail(SUBJECTS[kind], text, None, [address])
    return True

"""Receiving: a webhook is verified, kept once, and handled in the same transaction."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from hashlib import sha256
from typing import Literal

from django.db import transaction

from ....observability.context import carried
from ....observability.logging import get_logger
from ....observability.metrics import metrics
from ....sealing import derived_keys
from ...errors import VerificationError
from ..conf import Source
from ..handlers import configured, database, preset_of, run
from ..models import InboxMessage
from ..presets import ID_LENGTH, SIGNER_LENGTH, TYPE_LENGTH, UNSTORABLE, Received, storable
from ..tasks import handle_message

logger = get_logger("svc_infra_django.inbound")


@dataclass(frozen=True, slots=True)
class Reception:
    """What became of a webhook at the door."""

    message: InboxMessage
    outcome: Literal["handled", "queued", "duplicate", "failed"]
    error: Exception | None = None


def verified(
    source: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    now: datetime,
    secrets: Sequence[str] | None = None,
) -> Received:
    """The webhook, if the source signed it. Keeps nothing.

    `secrets` are the settings' unless given. Raises VerificationError, UnreadableWebhook for what is
    signed and cannot be read, UnknownSource.
    """
    source_settings, preset = configured(source), preset_of(source)
    named = {name.lower(): value for name, value in headers.items()}
    verify = partial(
        preset.verify, body, named, tolerance=source_settings.tolerance_seconds, now=now.timestamp()
    )
    signer = ""
    try:
        if secrets is None:
            verify([secret.reveal() for secret in source_settings.secrets])
        else:
            signer = _signer(verify, secrets)
    except VerificationError:
        metrics.increment("inbound.received", source=source, outcome="refused")
        logger.warning("webhook refused", source=source)
        raise
    data = preset.parse(body, named)
    external_id, event_type = preset.identify(named, data)
    return Received(
        source=source,
        external_id=_key(external_id, body, source_settings),
        event_type=storable(event_type, length=TYPE_LENGTH),
        data=data,
        body=body,
        headers={name: storable(named[name], length=1024) for name in preset.kept_headers if name in named},
        signer=signer,
    )


def receive(received: Received, *, later: bool = False) -> Reception:
    """Keep a verified webhook in the inbox and have it handled, now or `later` by the worker.

    One that is known already is counted and not handled again, unless its handling failed. The row, its
    mark and what the handler wrote are one transaction; what the handler raised is in the answer, so that
    the record of the failure is kept.
    """
    with transaction.atomic(using=database()):
        message, is_new = InboxMessage.objects.keep_once(
            InboxMessage(
                source=received.source,
                signer=received.signer,
                external_id=received.external_id,
                event_type=received.event_type,
                body=received.body,
                headers=dict(received.headers),
                context=carried(),
            )
        )
        reception = _settled(message, is_new=is_new, later=later)
    metrics.increment("inbound.received", source=received.source, outcome=reception.outcome)
    logger.info(
        "webhook received",
        source=received.source,
        event_type=received.event_type,
        inbox_id=str(message.pk),
        outcome=reception.outcome,
    )
    return reception


def _settled(message: InboxMessage, *, is_new: bool, later: bool) -> Reception:
    if not is_new:
        message.note_repeat()
        is_waiting = message.state == InboxMessage.State.RECEIVED
        if message.state == InboxMessage.State.HANDLED or (is_waiting and later):
            return Reception(message, "duplicate")
    if later:
        message.mark_waiting()
        handle_message.enqueue(str(message.pk))
        return Reception(message, "queued")
    error = run(message)
    return Reception(message, "failed" if error else "handled", error)


def _signer(verify: Callable[[Sequence[str]], None], secrets: Sequence[str]) -> str:
    """Which of the secrets signed, as a keyed digest. Raises VerificationError if none did."""
    for secret in secrets:
        with suppress(VerificationError):
            verify([secret])
            key = derived_keys("inbound.signer")[0]
            return hmac.digest(key, secret.encode(), "sha256").hex()[:SIGNER_LENGTH]
    raise VerificationError()


def _key(external_id: str, body: bytes, source: Source) -> str:
    """By what the webhook is known again: the sender's id if it can be kept, else a digest."""
    if source.dedupe_by == "body" or not external_id:
        return f"sha256:{sha256(body).hexdigest()}"
    if len(external_id) > ID_LENGTH or UNSTORABLE.search(external_id):
        return f"sha256:{sha256(external_id.encode(errors='replace')).hexdigest()}"
    return external_id

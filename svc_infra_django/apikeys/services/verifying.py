"""Keys are recognised: nonsense without a query, what was read a moment ago too, the rest with one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from ipaddress import ip_address

from asgiref.sync import sync_to_async
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables

from ...errors import RateLimitedError
from ...lookups import Row
from ...observability.metrics import metrics
from ..conf import environments
from ..errors import AddressNotAllowed, InvalidKey
from ..hashing import LAST_SHOWN, LONGEST_KEY, digest, parse_key, peppers
from ..models import ApiKey
from ..recorder import recorder
from .limiting import spend
from .reading import read_key
from .remembering import (
    KnownKey,
    Reading,
    begin_to_read,
    is_in_transaction,
    name_of,
    nearby,
    readings,
    remember,
    shared,
    unchanged,
)


@sensitive_variables()
def verify_key(text: str, *, address: str = "", now: datetime | None = None) -> ApiKey:
    """The usable key that `text` is, with its owner; this counts as one use of it.

    `address` is the caller's, asked for only by keys that have `allowed_networks`. Raises InvalidKey
    whatever is wrong with the key itself, AddressNotAllowed, RateExceeded and QuotaExceeded.
    """
    if is_in_transaction():
        # It sees its own changes, of which nobody else knows yet.
        nearby.forget(text[-LAST_SHOWN:])
    name, now = name_of(text), now or timezone.now()
    known = nearby.recall(name) or look_up(text, name, address=lambda: address, now=now)
    admit(known, address=lambda: address, at=now.timestamp())
    return known.key()


averify_key = sync_to_async(verify_key)


def admit(known: KnownKey, *, address: Callable[[], str], at: float) -> None:
    """Let a known key be used once. `address` is called for keys that ask for it.

    Raises InvalidKey at the end of its life, AddressNotAllowed, RateExceeded and QuotaExceeded.
    """
    if known.ends_at <= at:
        recorder.note_refusal(known.id_text, at, reason="expired", address=address())
        raise InvalidKey()
    if known.networks:
        _check_address(known, address(), at=at)
    if known.rate is not None or known.quota is not None:
        try:
            spend(known.id, rate=known.rate, quota=known.quota, now=datetime.fromtimestamp(at, UTC))
        except RateLimitedError as refusal:
            recorder.note_refusal(known.id_text, at, reason=refusal.code.partition(".")[2], address=address())
            raise
    recorder.note_use(known.id_text, at)


@sensitive_variables()
def look_up(text: str, name: bytes, *, address: Callable[[], str], now: datetime | None = None) -> KnownKey:
    """The key that `text` is, read from the database if need be. Raises InvalidKey.

    It is remembered by `name`, a digest of the text.
    """
    if len(text) > LONGEST_KEY:
        raise InvalidKey()
    now = now or timezone.now()
    written = readings.recall(name)
    reading = written or _read(text)
    present = next(iter(reading.digests))
    ticket = begin_to_read(text)
    if (known := shared(name, reading.digests[present], ticket=ticket)) is not None:
        return known
    rows = read_key(reading.digests.values())
    if rows is None or rows[0].environment != reading.environment:
        metrics.increment("apikeys.refused", reason="unknown")
        raise InvalidKey()
    if written is None:
        # Not before it was found: what strangers make up pushes nothing out.
        readings.keep(name, reading, readings.ticket())
    row, owner = rows
    fingerprint = row.fingerprint
    # What is no column the project works out for itself, and is asked for each time.
    known = unchanged.recall(fingerprint) if owner.is_active else None
    if known is None:
        known = _worked_out(row, owner, address=address, now=now)
        if known.row.pepper_id == present:
            unchanged.keep(fingerprint, known, unchanged.ticket())
        else:
            old = ApiKey.objects.filter(pk=known.id, pepper_id=known.row.pepper_id)
            old.update(digest=reading.digests[present], pepper_id=present)
            known.row.pepper_id = present
    remember(name, reading.digests[present], known, ticket=ticket)
    return known


def _read(text: str) -> Reading:
    parts = parse_key(text)
    if parts is None or parts.environment not in environments():
        metrics.increment("apikeys.refused", reason="malformed" if parts is None else "other_environment")
        raise InvalidKey()
    digests = {pepper_id: digest(text, pepper=pepper) for pepper_id, pepper in peppers().items()}
    return Reading(parts.environment, digests)


def _worked_out(row: Row, owner: Row, *, address: Callable[[], str], now: datetime) -> KnownKey:
    key: ApiKey = row.made()
    state = key.state(now=now) if owner.is_active else "owner_disabled"
    if state not in ("active", "rotated"):
        recorder.note_refusal(str(key.pk), now.timestamp(), reason=state, address=address())
        raise InvalidKey()
    key.owner = owner.made()
    return KnownKey.of(key)


def _check_address(known: KnownKey, address: str, *, at: float) -> None:
    try:
        caller = ip_address(address)
    except ValueError:  # a server behind a socket of the file system does not know its callers
        caller = None
    if caller is None or not any(caller in network for network in known.networks):
        recorder.note_refusal(known.id_text, at, reason="address", address=address)
        raise AddressNotAllowed()

"""The keys that access tokens are signed with: which there are, and how one follows another."""

from __future__ import annotations

from datetime import datetime, timedelta
from time import monotonic

from django.core.signals import setting_changed
from django.db import InterfaceError, OperationalError, router, transaction
from django.utils import timezone

from ...observability.logging import get_logger
from ..conf import settings
from ..errors import KeyTooYoung, SessionsUnreadable
from ..events import SIGNING_KEYS_ROLLED, SigningKeysRolled
from ..jwt import KeyRing, derived_ring
from ..models import SigningKey

RING_SECONDS = 30
RELOAD_SECONDS = 1.0
PUBLISHED_SECONDS = 300

logger = get_logger("svc_infra_django.accounts")


def key_ring(*, wanted: str = "") -> KeyRing:
    """The keys that count now, as read in the last half minute; read anew for a key that is `wanted`.

    Raises SessionsUnreadable if they were never read and the database does not answer.
    """
    if settings.signing_keys == "derived":
        return derived_ring()
    return _stored.ring(wanted)


def roll_keys(*, now: datetime, algorithm: str | None = None, force: bool = False) -> SigningKey:
    """Have the next key sign from now on, and publish the one after it; the key that signs now.

    The first roll makes both. What signed before verifies for the life of a token. Raises KeyTooYoung
    if the next key was published so lately that others may not have it, unless `force`.
    """
    algorithm = algorithm or settings.signing_algorithm
    with transaction.atomic(using=router.db_for_write(SigningKey)):
        keys = {key.state: key for key in SigningKey.objects.select_for_update().order_by("created_at")}
        SigningKey.objects.filter(retires_at__lt=now).delete()
        following = keys.get(SigningKey.State.NEXT)
        young = following is not None and now - following.created_at < timedelta(seconds=PUBLISHED_SECONDS)
        if young and not force:
            raise KeyTooYoung()
        SigningKey.objects.filter(state=SigningKey.State.ACTIVE).update(
            state=SigningKey.State.RETIRING, retires_at=now + _longest_life()
        )
        if following is None:
            active = SigningKey.make(algorithm, state=SigningKey.State.ACTIVE, now=now)
        else:
            active = following
            active.state, active.activated_at = SigningKey.State.ACTIVE, now
            active.save(update_fields=["state", "activated_at"])
        SigningKey.make(algorithm, state=SigningKey.State.NEXT, now=now)
        SIGNING_KEYS_ROLLED.emit(SigningKeysRolled(kid=active.kid, withdrawn=False))
    _stored.forget()
    return active


def withdraw_keys(*, now: datetime, algorithm: str | None = None) -> SigningKey:
    """A key leaked: no key of before verifies anything any more; the new key that signs.

    Every access token is void within half a minute; clients go on by their refresh tokens.
    """
    algorithm = algorithm or settings.signing_algorithm
    with transaction.atomic(using=router.db_for_write(SigningKey)):
        SigningKey.objects.all().delete()
        active = SigningKey.make(algorithm, state=SigningKey.State.ACTIVE, now=now)
        SigningKey.make(algorithm, state=SigningKey.State.NEXT, now=now)
        SIGNING_KEYS_ROLLED.emit(SigningKeysRolled(kid=active.kid, withdrawn=True))
    _stored.forget()
    return active


def _longest_life() -> timedelta:
    # Another process may sign with the key for as long as it remembers the ring.
    return timedelta(seconds=settings.access_token_seconds + settings.token_leeway_seconds + RING_SECONDS)


class _StoredRing:
    """The rows, as this process read them last."""

    def __init__(self) -> None:
        self._ring: KeyRing | None = None
        self._read_at = 0.0

    def ring(self, wanted: str) -> KeyRing:
        age = monotonic() - self._read_at
        is_missing = bool(wanted) and self._ring is not None and wanted not in self._ring.keys
        if self._ring is None or age > RING_SECONDS or (is_missing and age > RELOAD_SECONDS):
            self._ring = self._read()
            self._read_at = monotonic()
        return self._ring

    def forget(self, **_: object) -> None:
        self._ring = None

    def _read(self) -> KeyRing:
        try:
            rows = list(SigningKey.objects.using(router.db_for_write(SigningKey)))
        except (OperationalError, InterfaceError) as error:
            if self._ring is None:
                raise SessionsUnreadable() from error
            logger.warning("signing keys cannot be read; going on with those of before")
            return self._ring
        now = timezone.now()
        keys = {row: row.opened() for row in rows if row.retires_at is None or row.retires_at > now}
        signing = next((key for row, key in keys.items() if row.state == SigningKey.State.ACTIVE), None)
        return KeyRing(signing, keys.values())


_stored = _StoredRing()
setting_changed.connect(_stored.forget, dispatch_uid="svc_infra_django.accounts.keeping_keys")

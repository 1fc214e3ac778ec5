"""Subscribing: making endpoints, changing them, rotating their secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.db import IntegrityError, OperationalError, transaction
from django.db.models import Q
from django.utils import timezone

from ...errors import FieldProblem
from ...rows import locked
from ..addresses import checked_headers, checked_url
from ..conf import settings
from ..errors import BadEndpoint, TooManyEndpoints
from ..models import EVENT_TYPE_LENGTH, MAX_RATE, Endpoint, SigningKey
from ..querysets import UNANSWERED
from ..settlement import close_endpoint
from ..signing import new_private_key, new_secret, public_key
from ..tasks import challenge_endpoint

PATTERN = re.compile(r"([A-Za-z0-9_]+|\*)(\.([A-Za-z0-9_]+|\*))*")
MAX_PATTERNS = 100
MAX_RETRIES = 20
MAX_DELAY_SECONDS = 604_800
MAX_OLD_KEYS = 4
MAX_IN_FLIGHT = 2_000
DELETE_TRIES = 5

CHANGEABLE = frozenset(
    (
        "url",
        "description",
        "event_types",
        "headers",
        "timeout_seconds",
        "retry_schedule",
        "rate_limit",
        "max_in_flight",
        "owner",
        "tenant",
    )
)


@transaction.atomic
def create_endpoint(
    *,
    url: str,
    owner: Any = None,
    tenant: str = "",
    event_types: Sequence[str] = ("*",),
    description: str = "",
    headers: Mapping[str, str] | None = None,
    timeout_seconds: float | None = None,
    retry_schedule: Sequence[float] | None = None,
    rate_limit: float | None = None,
    max_in_flight: int | None = None,
) -> tuple[Endpoint, str]:
    """A new endpoint and its `whsec_…` secret, which is shown this once.

    `event_types` are names or patterns with `*` for whole words: `order.*`, `*`. Without an `owner` the
    endpoint hears every event of its tenant. `rate_limit` is requests a second, `max_in_flight` how many
    may be under way, both of all deliverers together. With the setting `challenge_endpoints` an endpoint
    of somebody's is paused until it answers. Raises BadEndpoint and TooManyEndpoints.
    """
    if owner is not None:
        # Two requests at once must not both take the last place.
        locked(get_user_model()._default_manager.all(), owner.pk, no_key=True)
        check_room(owner=owner, tenant=tenant)
    endpoint = Endpoint()
    _apply(
        endpoint,
        owner=owner,
        tenant=tenant,
        url=url,
        description=description,
        event_types=event_types,
        headers=headers or {},
        timeout_seconds=timeout_seconds,
        retry_schedule=retry_schedule,
        rate_limit=rate_limit,
        max_in_flight=max_in_flight,
    )
    endpoint.save(force_insert=True)
    secret = add_key(endpoint)
    if _is_asked(endpoint):
        _ask(endpoint)
    return endpoint, secret


@transaction.atomic
def update_endpoint(endpoint: Endpoint, **changes: Any) -> Endpoint:
    """Change what `create_endpoint` set. Raises BadEndpoint.

    A new URL is tried at once, whatever breaker or rest the old one had earned; or it is asked before, like
    that of a new endpoint.
    """
    locked(Endpoint.objects.all(), endpoint.pk, no_key=True)
    is_moved = "url" in changes and changes["url"] != endpoint.url
    _apply(endpoint, **changes)
    # Only what was changed: the deliverer writes the other columns all the time.
    columns = ["sealed_headers" if name == "headers" else name for name in changes]
    if is_moved:
        endpoint.held_until, endpoint.breaker_trips = None, 0
        columns += ["held_until", "breaker_trips"]
    endpoint.save(update_fields=[*columns, "updated_at"])
    if is_moved and _is_asked(endpoint):
        _ask(endpoint)
    return endpoint


@transaction.atomic
def rotate_secret(endpoint: Endpoint, *, grace_hours: float | None = None) -> str:
    """A new secret; the old one signs beside it until the grace is over (by default the setting's).

    None that is older outlives this grace, so no grace at all ends whatever may have leaked. If the
    endpoint has a v1a key, that is replaced too.
    """
    now = timezone.now()
    hours = settings.secret_grace_hours if grace_hours is None else grace_hours
    until = now + timedelta(hours=hours)
    keys = _locked(endpoint).signing_keys
    has_public_key = keys.filter(expires_at=None, kind=SigningKey.Kind.ED25519).exists()
    keys.filter(Q(expires_at=None) | Q(expires_at__gt=until)).update(expires_at=until)
    for kind in SigningKey.Kind:
        # Every key signs every request, so a grace that is renewed again and again must not gather them.
        kept = keys.filter(kind=kind, expires_at__gt=now)[:MAX_OLD_KEYS]
        keys.filter(kind=kind).exclude(pk__in=list(kept.values_list("pk", flat=True))).delete()
    if has_public_key:
        add_key(endpoint, kind=SigningKey.Kind.ED25519)
    return add_key(endpoint)


@transaction.atomic
def sign_publicly(endpoint: Endpoint) -> str:
    """Sign with v1a (Ed25519) beside v1 from now on; the `whpk_…` key that the receiver verifies with.

    The receiver then holds nothing that could forge. Asking again gives the same key.
    """
    key = _locked(endpoint).signing_keys.filter(expires_at=None, kind=SigningKey.Kind.ED25519).first()
    return key.public_key if key else public_key(add_key(endpoint, kind=SigningKey.Kind.ED25519))


def delete_endpoint(endpoint: Endpoint) -> None:
    """Delete an endpoint with its deliveries and attempts.

    A result may be written or a message published for it in the same moment; then it is done again.
    """
    for attempt in range(1, DELETE_TRIES + 1):
        try:
            with transaction.atomic():
                Endpoint.objects.filter(pk=endpoint.pk).delete()
        except (IntegrityError, OperationalError):
            if attempt == DELETE_TRIES or transaction.get_connection().in_atomic_block:
                raise
        else:
            return


@transaction.atomic
def pause_endpoint(endpoint: Endpoint) -> None:
    """Send nothing for now; what is published meanwhile waits."""
    _locked(endpoint).mark_paused()
    endpoint.refresh_from_db()


@transaction.atomic
def enable_endpoint(endpoint: Endpoint) -> None:
    """Send again, with a clean record. What was cancelled stays so until it is replayed."""
    _locked(endpoint).mark_enabled()
    endpoint.refresh_from_db()


@transaction.atomic
def resume_endpoint(endpoint: Endpoint) -> None:
    """`enable_endpoint` for its owner, who cannot do without the challenge where the settings ask for one."""
    if _is_asked(endpoint):
        _ask(_locked(endpoint))
        endpoint.refresh_from_db()
    else:
        enable_endpoint(endpoint)


@transaction.atomic
def disable_endpoint(endpoint: Endpoint, *, reason: str = "Disabled by hand.") -> None:
    """Send nothing more: what waits is cancelled, and what is published from now on passes it by."""
    close_endpoint(_locked(endpoint), reason=reason, now=timezone.now())
    endpoint.refresh_from_db()


def check_room(*, owner: Any, tenant: str) -> None:
    """Raises TooManyEndpoints if this user may have no more of them."""
    if Endpoint.objects.filter(owner=owner, tenant=tenant).count() >= settings.max_endpoints_per_owner:
        raise TooManyEndpoints()


def add_key(endpoint: Endpoint, *, kind: str = SigningKey.Kind.HMAC_SHA256) -> str:
    """A signing key for an endpoint that has no lasting one of the kind; returns its secret."""
    secret = new_secret() if kind == SigningKey.Kind.HMAC_SHA256 else new_private_key()
    key = SigningKey(endpoint=endpoint, kind=kind)
    key.secret = secret
    key.save(force_insert=True)
    return secret


def check_patterns(patterns: Sequence[str]) -> list[str]:
    """The patterns without repetition. Raises BadEndpoint if one is not words and stars joined by dots."""
    found = list(dict.fromkeys(patterns))
    if not found or len(found) > MAX_PATTERNS:
        raise _bad("/body/event_types", f"Between 1 and {MAX_PATTERNS} event types.")
    for pattern in found:
        if len(pattern) > EVENT_TYPE_LENGTH or not PATTERN.fullmatch(pattern):
            raise _bad(
                "/body/event_types", "An event type is words joined by dots; `*` stands for whole words."
            )
    return found


def _is_asked(endpoint: Endpoint) -> bool:
    return settings.challenge_endpoints and endpoint.owner_id is not None


def _ask(endpoint: Endpoint) -> None:
    endpoint.mark_paused(reason=UNANSWERED)
    challenge_endpoint.enqueue(str(endpoint.pk), owner_id=str(endpoint.owner_id))


def _apply(endpoint: Endpoint, **changes: Any) -> None:
    unknown = changes.keys() - CHANGEABLE
    if unknown:
        raise TypeError(f"An endpoint has no {', '.join(sorted(unknown))} to change.")
    for name, value in changes.items():
        setattr(endpoint, name, checked(name, value))


def checked(name: str, value: Any) -> Any:
    """`value` as the endpoint keeps it under `name`. Raises BadEndpoint."""
    if name == "url":
        return checked_url(value)
    if name == "headers":
        return checked_headers(_dict(value))
    if name == "event_types":
        return check_patterns(value)
    if name == "timeout_seconds" and value is not None and not 0 < value <= 30:
        raise _bad("/body/timeout_seconds", "More than 0 and at most 30 seconds.")
    if name == "rate_limit" and value is not None and not 0 < value <= MAX_RATE:
        raise _bad("/body/rate_limit", f"More than 0 and at most {MAX_RATE} a second.")
    if name == "max_in_flight" and value is not None and not 1 <= value <= MAX_IN_FLIGHT:
        raise _bad("/body/max_in_flight", f"Between 1 and {MAX_IN_FLIGHT}.")
    if name == "retry_schedule" and value is not None:
        return _schedule(value)
    return value


def _dict(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping) or not all(isinstance(text, str) for text in value.values()):
        raise _bad("/body/headers", "An object whose values are text.")
    return dict(value)


def _schedule(value: Any) -> list[float]:
    if (
        not isinstance(value, (list, tuple))
        or len(value) > MAX_RETRIES
        or not all(isinstance(wait, (int, float)) and 0 < wait <= MAX_DELAY_SECONDS for wait in value)
    ):
        raise _bad(
            "/body/retry_schedule", f"At most {MAX_RETRIES} waits, each up to {MAX_DELAY_SECONDS} seconds."
        )
    return list(value)


def _locked(endpoint: Endpoint) -> Endpoint:
    return locked(Endpoint.objects.all(), endpoint.pk)


def _bad(pointer: str, message: str) -> BadEndpoint:
    return BadEndpoint(message, errors=[FieldProblem(pointer, "invalid", message)])

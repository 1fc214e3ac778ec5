"""Keys are made, changed, followed by others, and stopped."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from ipaddress import ip_network
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.db import router, transaction
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables

from ...api.schemas import storable
from ...errors import FieldProblem, ValidationError
from ...principals import TEST_TENANT, Principal, is_pattern
from ...rows import TENANT_LENGTH, locked
from ..conf import environments, settings
from ..errors import (
    ForeignTenant,
    KeyAlreadyRevoked,
    KeyNotUsable,
    KeysCannotManageKeys,
    LimitLoosened,
    OwnerDisabled,
    ScopeNotHeld,
    TooManyKeys,
)
from ..events import KEY_ISSUED, KEY_REVOKED, KEY_ROTATED, KeyIssued, KeyRevoked, KeyRotated
from ..hashing import digest, new_key, peppers
from ..limits import Quota, Rate, parsed_quota, parsed_rate
from ..models import MAX_NETWORKS, NAME_LENGTH, Allowance, ApiKey, AuditEntry, Network, network_texts
from .remembering import forget

MAX_SCOPES = 100

CHANGE_ANY = "svc_apikeys.change_apikey"

# An end beyond this is a slip of the pen, and near the year 9999 dates cannot be reckoned with.
A_LONG_LIFE = timedelta(days=36_525)


@sensitive_variables("secret")
@transaction.atomic
def issue_key(
    *,
    owner: Any,
    name: str,
    scopes: Sequence[str] | None = None,
    tenant: str = "",
    expires_at: datetime | None = None,
    allowed_networks: Sequence[str] = (),
    rate: str = "",
    quota: str = "",
    environment: str = "",
    actor: Any = None,
    now: datetime | None = None,
) -> tuple[ApiKey, str]:
    """Make a key for `owner` and return it with its text, which nobody can read again.

    `scopes` None lets the key do all that its owner may. `allowed_networks` are addresses and networks
    (`192.0.2.0/24`, `2001:db8::/32`) that it may be used from; none is anywhere. `rate` (`600/minute`)
    and `quota` (`10000/month`) bound its use; empty is the project's default. `environment` is `live` or
    `test`, if the installation has both; empty is its usual one. `actor` is the user or
    Principal who makes it; None is the project itself.

    Raises ScopeNotHeld if the owner, or an actor who makes it for somebody else, lacks a scope;
    LimitLoosened and TooManyKeys for actors who may not change any key; ForeignTenant; OwnerDisabled;
    KeysCannotManageKeys; ValidationError.
    """
    now = now or timezone.now()
    _check_text("name", name, shortest=1, longest=NAME_LENGTH)
    _hold(owner)
    expires_at = check_new_key(
        owner=owner,
        scopes=scopes,
        tenant=tenant,
        expires_at=expires_at,
        rate=rate,
        quota=quota,
        environment=environment,
        actor=actor,
        now=now,
    )
    key, secret = _make(
        owner=owner,
        name=name,
        scopes=scopes,
        tenant=tenant,
        expires_at=expires_at,
        allowed_networks=checked_networks(allowed_networks),
        rate=rate,
        quota=quota,
        environment=environment or environments()[0],
        now=now,
    )
    AuditEntry.objects.append(
        key,
        AuditEntry.Action.ISSUED,
        actor=actor,
        now=now,
        scopes=key.scopes,
        expires_at=None if expires_at is None else expires_at.isoformat(),
        allowed_networks=key.allowed_networks,
        rate=key.rate,
        quota=key.quota,
    )
    KEY_ISSUED.emit(
        KeyIssued(
            key_id=str(key.pk),
            name=key.name,
            hint=key.hint,
            scopes=key.scopes,
            expires_at=expires_at,
            actor_id=_actor_id(actor),
        ),
        owner=owner,
        tenant=tenant,
    )
    return key, secret


@sensitive_variables("secret")
@transaction.atomic
def rotate_key(
    key: ApiKey, *, grace: timedelta | None = None, actor: Any = None, now: datetime | None = None
) -> tuple[ApiKey, str]:
    """Make a successor with the same name, scopes and length of life; the old key works for `grace` more.

    The grace is cut down to `max_rotation_grace`, and never moves an earlier end; the successor lives no
    longer than `max_lifetime` and has spent what the old key had spent. Raises KeyNotUsable if the key is
    revoked, expired or rotated already, and otherwise as `issue_key`: a scope that the owner has lost is
    refused to the successor too. Without a grace it is never one key too many.
    """
    now = now or timezone.now()
    grace = settings.rotation_grace if grace is None else grace
    grace = max(timedelta(0), min(grace, settings.max_rotation_grace))
    # Of two who rotate at once, the second waits here and then finds a successor.
    key = locked(ApiKey.objects.select_related("owner"), key.pk)
    if key.state(now=now) != "active":
        raise KeyNotUsable()
    check_actor(actor, owner=key.owner, scopes=key.scopes, tenant=key.tenant)
    if not key.owner.is_active:
        raise OwnerDisabled()
    _check_held(Principal(key.owner, "system", tenant=key.acting_tenant), key.scopes)
    if grace:
        _hold(key.owner)
        _check_room(actor, owner=key.owner, tenant=key.tenant, now=now)

    lifetime = None if key.expires_at is None else key.expires_at - key.created_at
    longest = min(filter(None, (lifetime, settings.max_lifetime)), default=None)
    successor, secret = _make(
        owner=key.owner,
        name=key.name,
        scopes=key.scopes,
        tenant=key.tenant,
        expires_at=None if longest is None else now + longest,
        allowed_networks=key.allowed_networks,
        rate=key.rate,
        quota=key.quota,
        environment=key.environment,
        now=now,
    )
    for spent in Allowance.objects.select_for_update().filter(key=key):
        spent.key = successor
        spent.save(force_insert=True)
    key.successor = successor
    key.expires_at = min(filter(None, (key.expires_at, now + grace)))
    key.save(update_fields=["successor", "expires_at"])
    forget(key)
    AuditEntry.objects.append(
        key,
        AuditEntry.Action.ROTATED,
        actor=actor,
        now=now,
        successor_id=str(successor.pk),
        successor_hint=successor.hint,
        expires_at=key.expires_at.isoformat(),
    )
    KEY_ROTATED.emit(
        KeyRotated(
            key_id=str(key.pk),
            successor_id=str(successor.pk),
            name=key.name,
            expires_at=key.expires_at,
            actor_id=_actor_id(actor),
        ),
        owner=key.owner,
        tenant=key.tenant,
    )
    return successor, secret


@transaction.atomic
def change_key(
    key: ApiKey,
    *,
    name: str | None = None,
    allowed_networks: Sequence[str] | None = None,
    rate: str | None = None,
    quota: str | None = None,
    actor: Any = None,
    now: datetime | None = None,
) -> ApiKey:
    """Change what is given, and not what the key may do: for that, make another.

    Raises KeyNotUsable if the key is revoked or expired, LimitLoosened if the actor may not change any key
    and this one would let more through, or be taken from more places, than before; KeysCannotManageKeys,
    ValidationError.
    """
    _refuse_keys(actor)
    now = now or timezone.now()
    key = locked(ApiKey.objects.select_related("owner"), key.pk)
    if key.state(now=now) in ("revoked", "expired"):
        raise KeyNotUsable()
    wanted: dict[str, Any] = {}
    if name is not None:
        _check_text("name", name, shortest=1, longest=NAME_LENGTH)
        wanted["name"] = name
    if allowed_networks is not None:
        wanted["allowed_networks"] = checked_networks(allowed_networks)
        _check_networks(actor, wanted["allowed_networks"], before=key.networks, tenant=key.tenant)
    if rate is not None:
        wanted["rate"] = rate
    if quota is not None:
        wanted["quota"] = quota
    limits = wanted.get("rate", key.rate), wanted.get("quota", key.quota)
    _check_limits(actor, *limits, before=(key.rate_in_force, key.quota_in_force), tenant=key.tenant)
    changed = {field: value for field, value in wanted.items() if getattr(key, field) != value}
    if changed:
        before = {field: getattr(key, field) for field in changed}
        for field, value in changed.items():
            setattr(key, field, value)
        key.save(update_fields=list(changed))
        forget(key)
        AuditEntry.objects.append(
            key, AuditEntry.Action.CHANGED, actor=actor, now=now, before=before, after=changed
        )
    return key


@transaction.atomic
def revoke_key(key: ApiKey, *, actor: Any = None, now: datetime | None = None) -> ApiKey:
    """Stop the key for good. Raises KeyAlreadyRevoked, KeysCannotManageKeys.

    This process refuses it from now on, every other one within twice `cache_seconds`.
    """
    _refuse_keys(actor)
    now = now or timezone.now()
    if not ApiKey.objects.filter(pk=key.pk, revoked_at=None).update(revoked_at=now):
        raise KeyAlreadyRevoked()
    key.revoked_at = now
    forget(key)
    AuditEntry.objects.append(key, AuditEntry.Action.REVOKED, actor=actor, now=now)
    KEY_REVOKED.emit(
        KeyRevoked(key_id=str(key.pk), name=key.name, hint=key.hint, actor_id=_actor_id(actor)),
        owner=key.owner,
        tenant=key.tenant,
    )
    return key


aissue_key = sync_to_async(issue_key)
arotate_key = sync_to_async(rotate_key)
arevoke_key = sync_to_async(revoke_key)
achange_key = sync_to_async(change_key)


@transaction.atomic
def delete_key(key: ApiKey, *, actor: Any = None, now: datetime | None = None) -> None:
    """Stop the key and take it off the lists; the audit log remembers it."""
    now = now or timezone.now()
    with suppress(KeyAlreadyRevoked):
        revoke_key(key, actor=actor, now=now)
    AuditEntry.objects.append(key, AuditEntry.Action.DELETED, actor=actor, now=now)
    key.delete()


def check_new_key(
    *,
    owner: Any,
    scopes: Sequence[str] | None,
    tenant: str,
    expires_at: datetime | None,
    rate: str = "",
    quota: str = "",
    environment: str = "",
    actor: Any,
    now: datetime | None = None,
) -> datetime | None:
    """Raise what `issue_key` would raise; return the end that the key will have."""
    now = now or timezone.now()
    _check_text("tenant", tenant, longest=TENANT_LENGTH - len(TEST_TENANT))
    if tenant.startswith(TEST_TENANT):
        raise ValidationError.at("/body/tenant", "Give `test` as environment instead.", code="bad_text")
    if environment and environment not in environments():
        raise ValidationError.at(
            "/body/environment", f"This installation has no {environment!r} keys.", code="bad_environment"
        )
    check_actor(actor, owner=owner, scopes=scopes, tenant=tenant)
    if not owner.is_active:
        raise OwnerDisabled()
    if scopes is None and settings.scopes_required:
        raise ValidationError.at("/body/scopes", "Name what the key may do.", code="missing")
    if len(scopes or ()) > MAX_SCOPES:
        raise ValidationError.at(
            "/body/scopes", f"A key has {MAX_SCOPES} scopes at most; use wildcards.", code="too_many"
        )
    malformed = [place for place, scope in enumerate(scopes or ()) if not is_pattern(scope)]
    if malformed:
        raise ValidationError(
            errors=[
                FieldProblem(f"/body/scopes/{place}", "bad_scope", "Neither a permission nor a wildcard.")
                for place in malformed
            ]
        )
    acting = ApiKey(tenant=tenant, environment=environment or environments()[0]).acting_tenant
    _check_held(Principal(owner, "system", tenant=acting), scopes)
    usual = parsed_rate(settings.default_rate), parsed_quota(settings.default_quota)
    _check_limits(actor, rate, quota, before=usual, tenant=tenant)
    _check_room(actor, owner=owner, tenant=tenant, now=now)
    return _end(expires_at, now=now)


def check_actor(actor: Any, *, owner: Any, scopes: Sequence[str] | None, tenant: str) -> None:
    """Raise unless `actor` may hold a key that acts for `owner`.

    For themselves everybody may, in their own tenant. For somebody else, who is not a superuser must
    name scopes and hold each of them: otherwise making a key would be a way to another's rights. So must
    whoever comes with a credential that has scopes: a key would be a way round them.
    """
    _refuse_keys(actor)
    user = actor.user if isinstance(actor, Principal) else actor
    is_bounded = isinstance(actor, Principal) and actor.scopes is not None
    if user is None or (user.is_active and user.is_superuser and not is_bounded):
        return
    if isinstance(actor, Principal) and actor.tenant != tenant:
        raise ForeignTenant()
    if user.pk == owner.pk and not is_bounded:
        return
    if scopes is None:
        raise ScopeNotHeld("Name the scopes of this key: it may do no more than you.", permission="*")
    _check_held(_principal(actor, tenant), scopes)


def _check_held(principal: Principal, scopes: Sequence[str] | None) -> None:
    lacking = [place for place, scope in enumerate(scopes or ()) if not principal.can(scope)]
    if scopes is not None and lacking:
        raise ScopeNotHeld(
            permission=scopes[lacking[0]],
            errors=[
                FieldProblem(f"/body/scopes/{place}", "not_held", f"{scopes[place]} is not held.")
                for place in lacking
            ],
        )


def _check_limits(
    actor: Any, rate: str, quota: str, *, before: tuple[Rate | None, Quota | None], tenant: str
) -> None:
    """Raise unless the limits can be read and, for who may not change any key, are within those before."""
    bounds = {"rate": before[0], "quota": before[1]}
    limits = {
        "rate": parsed_rate(checked_rate(rate) or settings.default_rate),
        "quota": parsed_quota(checked_quota(quota) or settings.default_quota),
    }
    loosened = [
        FieldProblem(f"/body/{field}", "loosened", f"At most {bound}.")
        for field, bound in bounds.items()
        if bound is not None and not _is_within(limits[field], bound)
    ]
    if loosened and not _may_change_any(actor, tenant):
        raise LimitLoosened(errors=loosened)


def _is_within(limit: Any, bound: Any) -> bool:
    return limit is not None and limit.is_within(bound)


def _check_networks(actor: Any, texts: Sequence[str], *, before: Sequence[Network], tenant: str) -> None:
    """Raise unless the networks, for who may not change any key, are within those before, if it had some."""
    loosened = [
        FieldProblem(f"/body/allowed_networks/{place}", "loosened", "In none of the networks of this key.")
        for place, network in enumerate(map(ip_network, texts))
        if not any(network.network_address in each and network.prefixlen >= each.prefixlen for each in before)
    ]
    if not texts:
        loosened = [FieldProblem("/body/allowed_networks", "loosened", "It would be taken from anywhere.")]
    if before and loosened and not _may_change_any(actor, tenant):
        raise LimitLoosened(errors=loosened)


def _hold(owner: Any) -> None:
    """Until the open transaction ends, let nobody else make a key for the owner: keys are being counted."""
    locked(get_user_model()._base_manager.all(), owner.pk, no_key=True)


def _check_room(actor: Any, *, owner: Any, tenant: str, now: datetime) -> None:
    # Where they are written: a copy that lags behind would let in one too many.
    keys = ApiKey.objects.using(router.db_for_write(ApiKey)).filter(owner=owner, tenant=tenant)
    if keys.usable(now=now).count() >= settings.max_keys_per_owner and not _may_change_any(actor, tenant):
        raise TooManyKeys()


def _may_change_any(actor: Any, tenant: str) -> bool:
    return actor is None or _principal(actor, tenant).can(CHANGE_ANY)


def _principal(actor: Any, tenant: str) -> Principal:
    return actor if isinstance(actor, Principal) else Principal(actor, "session", tenant=tenant)


def _refuse_keys(actor: Any) -> None:
    if isinstance(actor, Principal) and actor.is_delegated:
        raise KeysCannotManageKeys()


def _check_text(field: str, text: str, *, shortest: int = 0, longest: int) -> None:
    try:
        storable(text)
    except ValueError as error:
        raise ValidationError.at(f"/body/{field}", f"The text {error}.", code="bad_text") from None
    if not shortest <= len(text) <= longest:
        raise ValidationError.at(
            f"/body/{field}", f"Use {shortest} to {longest} characters.", code="bad_text"
        )


def checked_networks(texts: Sequence[str]) -> list[str]:
    """The networks as they are stored. Raises ValidationError."""
    if len(texts) > MAX_NETWORKS:
        raise ValidationError.at(
            "/body/allowed_networks", f"A key has {MAX_NETWORKS} networks at most.", code="too_many"
        )
    try:
        return network_texts(texts)
    except ValueError as error:
        raise ValidationError.at(
            f"/body/allowed_networks/{error}",
            "Neither an address nor a network, as 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32 are.",
            code="bad_network",
        ) from None


def checked_rate(text: str) -> str:
    """The rate. Raises ValidationError."""
    try:
        parsed_rate(text)
    except ValueError as error:
        raise ValidationError.at("/body/rate", f"A rate {error}.", code="bad_rate") from None
    return text


def checked_quota(text: str) -> str:
    """The quota. Raises ValidationError."""
    try:
        parsed_quota(text)
    except ValueError as error:
        raise ValidationError.at("/body/quota", f"A quota {error}.", code="bad_quota") from None
    return text


def _end(expires_at: datetime | None, *, now: datetime) -> datetime | None:
    if expires_at is not None and expires_at <= now:
        raise ValidationError.at("/body/expires_at", "The end must be in the future.", code="past")
    longest = settings.max_lifetime or A_LONG_LIFE
    if expires_at is not None and expires_at > now + longest:
        raise ValidationError.at(
            "/body/expires_at", f"No key may live longer than {longest.days} days.", code="too_late"
        )
    return expires_at or (None if settings.max_lifetime is None else now + longest)


@sensitive_variables("secret")
def _make(
    *,
    owner: Any,
    name: str,
    scopes: Sequence[str] | None,
    tenant: str,
    expires_at: datetime | None,
    allowed_networks: list[str],
    rate: str,
    quota: str,
    environment: str,
    now: datetime,
) -> tuple[ApiKey, str]:
    secret, parts = new_key(brand=settings.brand, environment=environment)
    pepper_id, pepper = next(iter(peppers().items()))
    key = ApiKey.objects.create(
        owner=owner,
        tenant=tenant,
        name=name,
        prefix=parts.prefix,
        last4=parts.last4,
        environment=parts.environment,
        digest=digest(secret, pepper=pepper),
        pepper_id=pepper_id,
        scopes=None if scopes is None else sorted(set(scopes)),
        allowed_networks=allowed_networks,
        rate=rate,
        quota=quota,
        created_at=now,
        expires_at=expires_at,
    )
    return key, secret


def _actor_id(actor: Any) -> str | None:
    if actor is None:
        return None
    return str((actor.user if isinstance(actor, Principal) else actor).pk)

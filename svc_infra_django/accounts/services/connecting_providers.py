"""Which account here belongs to somebody whom a provider knows, and who decides that."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.apps import apps
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django_otp import devices_for_user

from ...principals import Principal
from ..compat import (
    address_is_proven,
    address_is_required,
    check_address,
    fill_names,
    folded,
    is_taken,
    locked_user,
    new_federated_user,
    user_with_address,
    waiting_address,
)
from ..conf import settings
from ..errors import (
    AccountExists,
    AddressMissing,
    AlreadyConnected,
    InvalidCredentials,
    LastWayIn,
    SignupClosed,
)
from ..events import (
    EMAIL_VERIFIED,
    PROVIDER_CONNECTED,
    PROVIDER_DISCONNECTED,
    USER_SIGNED_UP,
    EmailVerified,
    ProviderConnected,
    ProviderDisconnected,
    UserSignedUp,
)
from ..models import AuthSession, OAuthHandoff, RecoveryCode
from ..providers import Identity, configured_providers
from ..tasks import send_notice
from .ending_sessions import revoke_sessions
from .signing_up import prove


def user_behind(identity: Identity, *, now: datetime) -> Any:
    """The user whom the identity belongs to, made if there is none.

    They are found by provider and its id for them, never by an address alone. An address that the
    provider has not proven decides nothing. Raises AccountExists, AddressMissing, SignupClosed, or
    InvalidCredentials for a disabled user.
    """
    try:
        with transaction.atomic():
            user = _known(identity) or _welcomed(identity, now=now)
            fill_names(user, identity.names)
            return user
    except IntegrityError:
        # The same person came twice at once, and the other one was faster.
        user = _known(identity)
        if user is None:
            raise AccountExists() from None
        return user


@transaction.atomic
def connect(user: Any, identity: Identity) -> None:
    """Let the user log in by the identity too. Raises AlreadyConnected."""
    account = _accounts().filter(provider=identity.provider, uid=identity.uid).first()
    if account is not None and account.user_id == user.pk:
        return
    if account is not None:
        raise AlreadyConnected()
    try:
        with transaction.atomic():
            _connect(user, identity)
    except IntegrityError:
        raise AlreadyConnected() from None
    send_notice.enqueue(str(user.pk), "provider_connected")


def connected(user: Any) -> Any:
    """The user's accounts at providers, the oldest first; none without allauth's app for them."""
    if not apps.is_installed("allauth.socialaccount"):
        return get_user_model()._default_manager.none()
    return _accounts().filter(user_id=user.pk).order_by("pk")


@transaction.atomic
def disconnect(principal: Principal, account: Any, *, now: datetime) -> None:
    """Take this way in away; whoever else came by a provider is out. Raises LastWayIn if no other is left."""
    # Locked: of two who take one of two ways each, one must see what the other did.
    user = locked_user(principal.user.pk)
    if not user.has_usable_password() and not _open_ways(user).exclude(pk=account.pk).exists():
        other = "You could not log in any more. Connect another provider first."
        raise LastWayIn() if settings.first_passwords else LastWayIn(other)
    account.delete()
    OAuthHandoff.objects.filter(owner=user).delete()
    federated = AuthSession.objects.others(principal).filter(amr__startswith="fed")
    revoke_sessions(federated, user_id=user.pk, reason=AuthSession.Reason.PROVIDER, now=now)
    send_notice.enqueue(str(user.pk), "provider_disconnected")
    payload = ProviderDisconnected(user_id=str(user.pk), provider=account.provider)
    PROVIDER_DISCONNECTED.emit(payload, owner=user)


def _open_ways(user: Any) -> Any:
    return connected(user).filter(provider__in=[key for key, _ in configured_providers()])


@transaction.atomic
def _known(identity: Identity) -> Any:
    # Locked: saved while it is disconnected, it would be there again.
    rows = _accounts().select_related("user").select_for_update(of=("self",))
    account = rows.filter(provider=identity.provider, uid=identity.uid).first()
    if account is None:
        return None
    if not account.user.is_active:
        raise InvalidCredentials()
    account.extra_data = identity.extra
    account.save()
    return account.user


def _welcomed(identity: Identity, *, now: datetime) -> Any:
    address = _proven_address(identity)
    waiting = waiting_address(address) if address else None
    if waiting is not None:
        user = _taken_over(waiting, now=now)
    elif address and is_taken(address):
        user = _trusted(address, identity)
        send_notice.enqueue(str(user.pk), "provider_connected")
    else:
        user = _made(address, identity)
    _connect(user, identity)
    return user


def _taken_over(waiting: Any, *, now: datetime) -> Any:
    # Somebody signed up with the address and never proved it. Whoever that was, they leave with nothing.
    user = waiting.user
    user.set_unusable_password()
    user.save(update_fields=["password"])
    for device in list(devices_for_user(user, confirmed=None)):
        device.delete()
    RecoveryCode.objects.filter(owner=user).delete()
    connected(user).delete()
    sessions = AuthSession.objects.of_user(user)
    revoke_sessions(sessions, user_id=user.pk, reason=AuthSession.Reason.PASSWORD, now=now)
    prove(waiting)
    return user


def _trusted(address: str, identity: Identity) -> Any:
    owner = user_with_address(address)
    may = (
        identity.provider in settings.oauth_trusted_providers
        and owner is not None
        and owner.is_active
        and not (getattr(owner, "is_staff", False) or getattr(owner, "is_superuser", False))
        and address_is_proven(owner, address)
    )
    if not may:
        raise AccountExists()
    return owner


def _made(address: str, identity: Identity) -> Any:
    if not settings.signup_open:
        raise SignupClosed()
    if not address and address_is_required():
        raise AddressMissing()
    user = new_federated_user(address, identity.names)
    USER_SIGNED_UP.emit(UserSignedUp(user_id=str(user.pk)), owner=user)
    if address:
        EMAIL_VERIFIED.emit(EmailVerified(user_id=str(user.pk)), owner=user)
    return user


def _connect(user: Any, identity: Identity) -> None:
    _accounts().create(user=user, provider=identity.provider, uid=identity.uid, extra_data=identity.extra)
    payload = ProviderConnected(user_id=str(user.pk), provider=identity.provider)
    PROVIDER_CONNECTED.emit(payload, owner=user)


def _proven_address(identity: Identity) -> str:
    """The first address that the provider has proven and that one may have here, or nothing."""
    for email, is_proven in identity.addresses:
        address = folded(email)
        try:
            check_address(address)
        except ValidationError:
            continue
        if is_proven:
            return address
    return ""


def _accounts() -> Any:
    # Here, because its app may be missing, and then its models must not be imported.
    from allauth.socialaccount.models import SocialAccount

    return SocialAccount.objects.all()

"""Add a second factor, take it away, renew its recovery codes."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import django_otp
from django.db import transaction
from django.views.decorators.debug import sensitive_variables

from ...principals import Principal
from ..compat import address_is_proven, email_of, folded, locked_user
from ..conf import settings
from ..errors import (
    AlreadyAdded,
    FreshFactorRequired,
    InvalidMFAToken,
    NoMailbox,
    NoSecondFactor,
    NothingToConfirm,
    WrongCode,
    WrongPassword,
)
from ..events import (
    MFA_DEVICE_REMOVED,
    MFA_DISABLED,
    MFA_ENABLED,
    PROOF_FAILED,
    RECOVERY_CODES_REPLACED,
    MFADeviceRemoved,
    MFADisabled,
    MFAEnabled,
    ProofFailed,
    RecoveryCodesReplaced,
)
from ..hashing import new_recovery_code, plain_recovery_code, token_digest
from ..models import (
    AuthSession,
    EmailDevice,
    MFAChallenge,
    RecoveryCode,
    Throttle,
    TOTPDevice,
    without_device,
)
from ..querysets import AuthSessionQuerySet
from ..tasks import send_code, send_notice
from ..totp import enrolment_url, qr_svg, shown
from .ending_sessions import revoke_sessions
from .logging_in import check_password
from .sharing_sessions import forget_sessions
from .throttling import forget, take_attempt, take_slot
from .verifying_mfa import Proven, forget_codes, prove_factor, take_code_slot, use_challenge

HOUR = 60 * 60


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What an authenticator app needs. Shown now, never again."""

    device: TOTPDevice
    secret: str = field(repr=False)
    url: str = field(repr=False)
    qr_svg: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The device that counts from now on, and the recovery codes if they are new."""

    device: TOTPDevice | EmailDevice
    recovery_codes: list[str] = field(repr=False)


@sensitive_variables()
def require_fresh_factor(
    principal: Principal, *, password: str | None, code: str | None, now: datetime
) -> None:
    """Pass whoever proved a factor lately, or does so now.

    With a second factor only a code counts (or a login by code in the last minutes); without one the
    password does. Raises FreshFactorRequired, WrongCode, WrongPassword or TooManyAttempts.
    """
    has_device = django_otp.user_has_device(principal.user)
    if prove_again(principal.user, password=password, code=code, now=now):
        return
    if not _is_fresh(principal, now=now) or (has_device and "mfa" not in principal.amr):
        raise FreshFactorRequired(max_age=settings.fresh_factor_seconds)


@sensitive_variables()
def prove_again(user: Any, *, password: str | None, code: str | None, now: datetime) -> tuple[str, ...]:
    """What a user who is logged in proves anew (RFC 8176): the code, or without a device the password.

    Empty if what would count was not sent. Raises WrongCode, WrongPassword or TooManyAttempts.
    """
    if django_otp.user_has_device(user):
        if code is None:
            return ()
        prove_factor(user, code, now=now)
        return ("otp", "mfa")
    if password is None:
        return ()
    prove_password(user, password, now=now)
    return ("pwd",)


@sensitive_variables()
def step_up(
    principal: Principal, *, password: str | None, code: str | None, now: datetime
) -> tuple[str, ...]:
    """Prove anew who one is, for the session that the principal came with; its methods from now on.

    Raises FreshFactorRequired if what would count was not sent, WrongCode, WrongPassword or
    TooManyAttempts.
    """
    proved = prove_again(principal.user, password=password, code=code, now=now)
    if not proved:
        raise FreshFactorRequired(max_age=settings.fresh_factor_seconds)
    amr = tuple(dict.fromkeys((*principal.amr, *proved)))
    with transaction.atomic():
        locked_user(principal.user.pk)
        if not django_otp.user_has_device(principal.user):
            # It was removed a moment ago, which the principal may not have heard of.
            amr = without_device(amr)
        AuthSession.objects.of_principal(principal).update(amr=" ".join(amr), auth_time=now)
        forget_sessions(principal.user.pk)
    return amr


@sensitive_variables()
def prove_password(user: Any, password: str, *, now: datetime) -> None:
    """Check the present password of a user who is logged in. Raises WrongPassword or TooManyAttempts."""
    take_password_slot(user, now=now)
    settle_password(user, is_right=check_password(user, password) is not None)


def take_password_slot(user: Any, *, now: datetime) -> None:
    """Count a present password before it is looked at. Raises TooManyAttempts."""
    take_attempt(
        Throttle.Scope.PASSWORD,
        str(user.pk),
        limit=settings.login_attempts,
        seconds=settings.login_window_seconds,
        now=now,
    )


def settle_password(user: Any, *, is_right: bool) -> None:
    """The password that was counted has been looked at. Raises WrongPassword."""
    if not is_right:
        PROOF_FAILED.emit(ProofFailed(user_id=str(user.pk), method="pwd"), owner=user)
        raise WrongPassword()
    forget(Throttle.Scope.PASSWORD, str(user.pk))


@transaction.atomic
def begin_totp(user: Any, *, name: str, now: datetime) -> Enrolment:
    """Make a device that neither demands nor satisfies anything until a code of it came back."""
    return shown_enrolment(TOTPDevice.begin(user, name=name, now=now))


@sensitive_variables()
def shown_enrolment(device: TOTPDevice) -> Enrolment:
    """What an authenticator app needs of a device that was just begun."""
    key = device.bin_key
    url = enrolment_url(key, issuer=settings.totp_issuer, account=device.user.get_username())
    return Enrolment(device=device, secret=shown(key), url=url, qr_svg=qr_svg(url))


@sensitive_variables()
def begin_enrolment(challenge: MFAChallenge, *, name: str, now: datetime) -> Enrolment:
    """As `begin_totp`, for somebody who must have a device to finish logging in. Raises InvalidMFAToken."""
    _demand_no_device(challenge)
    return begin_totp(challenge.owner, name=name, now=now)


@sensitive_variables()
def finish_enrolment(challenge: MFAChallenge, code: str, *, now: datetime) -> tuple[Proven, list[str]]:
    """Confirm the device and with it the login; the recovery codes come along.

    Raises InvalidMFAToken, NothingToConfirm, WrongCode or TooManyAttempts.
    """
    _demand_no_device(challenge)
    if not MFAChallenge.objects.try_once(challenge, limit=settings.mfa_challenge_attempts):
        raise InvalidMFAToken()
    confirmed = confirm_totp(Principal(challenge.owner, method="mfa"), code, now=now)
    return use_challenge(challenge, confirmed.device, now=now), confirmed.recovery_codes


def _demand_no_device(challenge: MFAChallenge) -> None:
    if django_otp.user_has_device(challenge.owner):
        raise InvalidMFAToken()


@transaction.atomic
def begin_email(user: Any, *, now: datetime) -> None:
    """Have a code mailed that makes the user's mailbox a second factor, once it comes back.

    Raises NoMailbox without a proven address, AlreadyAdded, or TooManyAttempts.
    """
    address = folded(email_of(user))
    if not address or not address_is_proven(user, address):
        raise NoMailbox()
    begun = {"name": "E-mail", "confirmed": False, "created_at": now}
    device, is_new = EmailDevice.objects.get_or_create(user=user, defaults=begun)
    if device.confirmed:
        raise AlreadyAdded()
    if not is_new:
        EmailDevice.objects.filter(pk=device.pk, confirmed=False).update(digest="", created_at=now)
    _mail_code(device, now=now)


def mail_code(user: Any, *, now: datetime) -> None:
    """Have a code mailed to a user whose mailbox is a second factor. Raises NoMailbox or TooManyAttempts."""
    device = EmailDevice.objects.filter(user=user, confirmed=True).first()
    if device is None:
        raise NoMailbox()
    _mail_code(device, now=now)


def _mail_code(device: EmailDevice, *, now: datetime) -> None:
    address = folded(email_of(device.user))
    take_slot(Throttle.Scope.CODE, address, limit=settings.mails_per_hour, seconds=HOUR, now=now)
    # The code is made where the mail is, so no job carries it.
    send_code.enqueue(device.pk)


def confirm_totp(principal: Principal, code: str, *, now: datetime) -> Confirmed:
    """Confirm the waiting authenticator app by a code of it; recovery codes come with the first device.

    A device waits as long as the factor that it was begun with is fresh. The user's other sessions
    are over: they were begun without it.

    Raises NothingToConfirm, WrongCode or TooManyAttempts.
    """
    return _confirm(TOTPDevice, principal, code, now=now)


def confirm_email(principal: Principal, code: str, *, now: datetime) -> Confirmed:
    """Confirm the waiting mailbox by the code that was sent to it; otherwise as `confirm_totp`."""
    return _confirm(EmailDevice, principal, code, now=now)


@sensitive_variables()
def _confirm(kind: Any, principal: Principal, code: str, *, now: datetime) -> Confirmed:
    user = principal.user
    since = now - timedelta(seconds=settings.fresh_factor_seconds)
    waiting = kind.objects.filter(user=user, confirmed=False, created_at__gte=since)
    device = waiting.order_by("-pk").first()
    if device is None:
        raise NothingToConfirm()
    take_code_slot(user, now=now)
    if django_otp.verify_token(user, device.persistent_id, code) is None:
        PROOF_FAILED.emit(ProofFailed(user_id=str(user.pk), method="otp"), owner=user)
        raise WrongCode()
    with transaction.atomic():
        locked_user(user.pk)
        forget_codes(user)
        # It may be gone: begun anew, or removed with all the others, since its code was looked at.
        if not kind.objects.filter(pk=device.pk).update(confirmed=True):
            raise NothingToConfirm()
        others = AuthSession.objects.others(principal)
        revoke_sessions(others, user_id=user.pk, reason=AuthSession.Reason.MFA, now=now)
        codes = [] if RecoveryCode.objects.unused(user).exists() else _new_codes(user, now=now)
        send_notice.enqueue(str(user.pk), "mfa_enabled")
        MFA_ENABLED.emit(MFAEnabled(user_id=str(user.pk), device=device.name), owner=user)
    return Confirmed(device, codes)


@transaction.atomic
def replace_recovery_codes(user: Any, *, now: datetime) -> list[str]:
    """New recovery codes; the old ones are void. Raises NoSecondFactor if there is nothing to recover."""
    locked_user(user.pk)  # of two at once, the codes of one are void
    if not django_otp.user_has_device(user):
        raise NoSecondFactor()
    RecoveryCode.objects.filter(owner=user).delete()
    codes = _new_codes(user, now=now)
    send_notice.enqueue(str(user.pk), "recovery_codes_replaced")
    RECOVERY_CODES_REPLACED.emit(RecoveryCodesReplaced(user_id=str(user.pk)), owner=user)
    return codes


def disable_mfa(principal: Principal, code: str, *, now: datetime) -> None:
    """Remove every device and recovery code, on a fresh code; the user's other sessions are over.

    The principal's goes on with what else it was begun with, which of staff is not enough.

    Raises WrongCode, TooManyAttempts or NoSecondFactor.
    """
    prove_factor(principal.user, code, now=now)
    _remove_factors(principal.user, ended=AuthSession.objects.others(principal), now=now)


def remove_factors(user: Any, *, now: datetime) -> None:
    """Remove every device and recovery code of somebody who has lost them; all their sessions are over.

    The caller has made sure who asks for it.
    """
    _remove_factors(user, ended=AuthSession.objects.of_user(user), now=now)


def remove_device(principal: Principal, device: Any, *, now: datetime) -> None:
    """Remove one of the principal's devices; their other sessions are over.

    With the last confirmed one goes the whole second factor, recovery codes too.
    """
    _remove_device(device, ended=AuthSession.objects.others(principal), now=now)


def remove_device_of_user(device: Any, *, now: datetime) -> None:
    """Remove a device that its user has lost; all their sessions are over.

    The caller has made sure who asks for it.
    """
    _remove_device(device, ended=AuthSession.objects.of_user(device.user), now=now)


@transaction.atomic
def _remove_device(device: Any, *, ended: AuthSessionQuerySet, now: datetime) -> None:
    user = device.user
    locked_user(user.pk)  # of two who remove one of two each, one must see that it was the last
    device.delete()
    if not device.confirmed:
        return  # nobody was asked for it
    if not django_otp.user_has_device(user):
        _remove_factors(user, ended=ended, now=now)
        return
    revoke_sessions(ended, user_id=user.pk, reason=AuthSession.Reason.MFA, now=now)
    send_notice.enqueue(str(user.pk), "mfa_device_removed")
    MFA_DEVICE_REMOVED.emit(MFADeviceRemoved(user_id=str(user.pk), device=device.name), owner=user)


@transaction.atomic
def _remove_factors(user: Any, *, ended: AuthSessionQuerySet, now: datetime) -> None:
    locked_user(user.pk)
    for device in list(django_otp.devices_for_user(user, confirmed=None)):
        device.delete()
    RecoveryCode.objects.filter(owner=user).delete()
    MFAChallenge.objects.filter(owner=user, used_at=None).update(used_at=now)
    revoke_sessions(ended, user_id=user.pk, reason=AuthSession.Reason.MFA, now=now)
    for session in AuthSession.objects.of_user(user).filter(revoked_at=None):
        AuthSession.objects.filter(pk=session.pk).update(amr=" ".join(without_device(session.methods)))
    send_notice.enqueue(str(user.pk), "mfa_disabled")
    MFA_DISABLED.emit(MFADisabled(user_id=str(user.pk)), owner=user)


def _new_codes(user: Any, *, now: datetime) -> list[str]:
    codes = [new_recovery_code() for _ in range(settings.recovery_codes)]
    RecoveryCode.objects.bulk_create(
        RecoveryCode(owner=user, digest=token_digest(plain_recovery_code(code)), created_at=now)
        for code in codes
    )
    return codes


def _is_fresh(principal: Principal, *, now: datetime) -> bool:
    age = timedelta(seconds=settings.fresh_factor_seconds)
    return principal.auth_time is not None and now - principal.auth_time <= age

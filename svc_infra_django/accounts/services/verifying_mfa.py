"""The second step of a login, and every other place that wants a code."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import django_otp
from django.db import transaction
from django.views.decorators.debug import sensitive_variables
from django_otp.models import Device, ThrottlingMixin

from ..conf import settings
from ..errors import InvalidMFAToken, NoSecondFactor, TooManyAttempts, WrongCode
from ..events import PROOF_FAILED, RECOVERY_CODE_USED, ProofFailed, RecoveryCodeUsed
from ..hashing import looks_like_recovery_code, plain_recovery_code, token_digest
from ..models import MFAChallenge, RecoveryCode, Throttle
from ..signing import has_password_state
from ..tasks import send_notice
from .issuing_tokens import Client, Tokens, issue_tokens
from .throttling import forget, take_attempt, take_slot


@dataclass(frozen=True, slots=True)
class Proven:
    """A user who has proved all that is wanted of them, and by what."""

    user: Any
    amr: tuple[str, ...]
    tenant: str = ""
    device: Any = None
    """The second factor, if there was one."""


def begin_session(proven: Proven, *, client: Client, now: datetime) -> Tokens:
    """Tokens for whoever has proved enough."""
    return issue_tokens(proven.user, amr=proven.amr, client=client, now=now, tenant=proven.tenant)


@sensitive_variables()
def finish_second_step(challenge: MFAChallenge, code: str, *, now: datetime) -> Proven:
    """Use up the challenge and a code.

    Raises InvalidMFAToken, WrongCode, or TooManyAttempts when the user's codes are stopped.
    """
    if not MFAChallenge.objects.try_once(challenge, limit=settings.mfa_challenge_attempts):
        raise InvalidMFAToken()
    return use_challenge(challenge, prove_factor(challenge.owner, code, now=now), now=now)


@sensitive_variables()
def challenge_of(mfa_token: str, *, now: datetime) -> MFAChallenge:
    """The login that waits for its second step. Raises InvalidMFAToken."""
    return open_challenge(now=now, digest=token_digest(mfa_token))


def open_challenge(*, now: datetime, **which: Any) -> MFAChallenge:
    """As `challenge_of`, for who knows the challenge by another of its fields."""
    challenge = MFAChallenge.objects.open(now=now).select_related("owner").filter(**which).first()
    if challenge is None or not challenge.owner.is_active:
        raise InvalidMFAToken()
    if not has_password_state(challenge.owner, challenge.password_state):
        raise InvalidMFAToken()
    return challenge


def use_challenge(challenge: MFAChallenge, device: Any, *, now: datetime) -> Proven:
    """Finish the second step, which `device` has decided. Raises InvalidMFAToken for all callers but one."""
    if not MFAChallenge.objects.use(challenge, now=now):
        raise InvalidMFAToken()
    amr = (*challenge.methods, "otp", "mfa")
    return Proven(user=challenge.owner, amr=amr, tenant=challenge.tenant, device=device)


@sensitive_variables()
def prove_factor(user: Any, code: str, *, now: datetime) -> Any:
    """Use up a code of one of the user's confirmed devices, or a recovery code; a device of theirs.

    The attempt is counted for the user before the code is looked at; a good code sets the count back.
    Raises WrongCode, TooManyAttempts, or NoSecondFactor.
    """
    devices = list(django_otp.devices_for_user(user))
    if not devices:
        raise NoSecondFactor()
    take_code_slot(user, now=now)
    burnt = _burn_recovery_code(user, code, now=now)
    try:
        device = devices[0] if burnt else _fitting_device(user, code, devices)
    except WrongCode:
        PROOF_FAILED.emit(ProofFailed(user_id=str(user.pk), method="otp"), owner=user)
        raise
    forget_codes(user)
    return device


def take_code_slot(user: Any, *, now: datetime) -> None:
    """Count one code of the user, before it is looked at. Raises TooManyAttempts.

    The user hears of that, once in a window: whoever sends codes knows the password.
    """
    subject, seconds = str(user.pk), settings.mfa_window_seconds
    try:
        take_attempt(Throttle.Scope.MFA, subject, limit=settings.mfa_attempts, seconds=seconds, now=now)
    except TooManyAttempts:
        with suppress(TooManyAttempts):
            take_slot(Throttle.Scope.NOTICE, subject, limit=1, seconds=seconds, now=now)
            send_notice.enqueue(subject, "codes_stopped")
        raise


def forget_codes(user: Any) -> None:
    """A code was good: the user's wrong ones do not count any more."""
    forget(Throttle.Scope.MFA, str(user.pk))


def _fitting_device(user: Any, code: str, devices: list[Any]) -> Any:
    # Some devices read the code with int(), which takes blanks, signs and the digits of every script.
    if not (code.isascii() and code.isalnum()):
        raise WrongCode()
    for number, device in enumerate(devices):
        if django_otp.verify_token(user, device.persistent_id, code) is not None:
            _excuse([each.persistent_id for each in devices[:number]])
            return device
    raise WrongCode()


def _excuse(devices: list[str]) -> None:
    # The code was another device's: these must not slow down the next login for it.
    for device in map(Device.from_persistent_id, devices):
        if isinstance(device, ThrottlingMixin):
            device.throttle_reset()


@transaction.atomic
def _burn_recovery_code(user: Any, code: str, *, now: datetime) -> bool:
    if not looks_like_recovery_code(code):
        return False
    if not RecoveryCode.objects.burn(user, token_digest(plain_recovery_code(code)), now=now):
        return False
    remaining = RecoveryCode.objects.unused(user).count()
    RECOVERY_CODE_USED.emit(RecoveryCodeUsed(user_id=str(user.pk), remaining=remaining), owner=user)
    return True

"""The second step of a login, and every other place that wants a code."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import django_otp
from django.db import transaction
from django.views.decorators.debug import sensitive_variables
from django_otp.models import Device, ThrottlingMixin

from ..conf import settings
from ..errors import InvalidMFAToken, NoSecondFactor, WrongCode
from ..events import RECOVERY_CODE_USED, RecoveryCodeUsed
from ..hashing import looks_like_recovery_code, plain_recovery_code, token_digest
from ..models import MFAChallenge, RecoveryCode, Throttle
from ..signing import has_password_state
from .issuing_tokens import Client, Tokens, issue_tokens
from .throttling import forget, take_slot


@sensitive_variables()
def finish_login(mfa_token: str, code: str, *, client: Client, now: datetime) -> Tokens:
    """Turn the token of the first step and a code into a session.

    Raises InvalidMFAToken, WrongCode, or TooManyAttempts when the user's codes are stopped.
    """
    challenges = MFAChallenge.objects
    challenge = (
        challenges.open(now=now).select_related("owner").filter(digest=token_digest(mfa_token)).first()
    )
    if challenge is None or not challenges.try_once(challenge, limit=settings.mfa_challenge_attempts):
        raise InvalidMFAToken()
    user = challenge.owner
    if not user.is_active or not has_password_state(user, challenge.password_state):
        raise InvalidMFAToken()
    prove_factor(user, code, now=now)
    with transaction.atomic():
        if not challenges.use(challenge, now=now):
            raise InvalidMFAToken()
        amr = (*challenge.methods, "otp", "mfa")
        return issue_tokens(user, amr=amr, client=client, now=now, tenant=challenge.tenant)


@sensitive_variables()
def prove_factor(user: Any, code: str, *, now: datetime) -> None:
    """Use up a code of one of the user's confirmed devices, or a recovery code.

    The attempt is counted for the user before the code is looked at; a good code sets the count back.
    Raises WrongCode, TooManyAttempts, or NoSecondFactor.
    """
    devices = [device.persistent_id for device in django_otp.devices_for_user(user)]
    if not devices:
        raise NoSecondFactor()
    take_code_slot(user, now=now)
    if not (_burn_recovery_code(user, code, now=now) or _fits_a_device(user, code, devices)):
        raise WrongCode()
    forget_codes(user)


def take_code_slot(user: Any, *, now: datetime) -> None:
    """Count one code of the user, before it is looked at. Raises TooManyAttempts."""
    take_slot(
        Throttle.Scope.MFA,
        str(user.pk),
        limit=settings.mfa_attempts,
        seconds=settings.mfa_window_seconds,
        now=now,
    )


def forget_codes(user: Any) -> None:
    """A code was good: the user's wrong ones do not count any more."""
    forget(Throttle.Scope.MFA, str(user.pk))


def _fits_a_device(user: Any, code: str, devices: list[str]) -> bool:
    # Some devices read the code with int(), which takes blanks, signs and the digits of every script.
    if not (code.isascii() and code.isalnum()):
        return False
    for number, device in enumerate(devices):
        if django_otp.verify_token(user, device, code) is not None:
            _excuse(devices[:number])
            return True
    return False


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

"""A new password: with the present one, or with a key from a mail."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.views.decorators.debug import sensitive_variables

from ...principals import Principal
from ..compat import addresses_of, folded, locked_user, may_have_a_first_password, unproven_address
from ..conf import settings
from ..errors import PresentPasswordMissing
from ..events import PASSWORD_CHANGED, PasswordChanged
from ..models import AuthSession, Throttle
from ..querysets import AuthSessionQuerySet
from ..signing import RESET, bad_key, demand_state, password_state, reset_state, subject_of
from ..tasks import send_notice, send_reset_mail
from .ending_sessions import revoke_sessions
from .enrolling_mfa import prove_password, require_fresh_factor
from .issuing_tokens import Client
from .signing_up import demand_good_password, prove, take_mail_slots, write_password


@sensitive_variables()
def change_password(
    principal: Principal, *, current: str | None, new: str, code: str | None = None, now: datetime
) -> None:
    """Set a new password with the present one; every session but the principal's is over.

    An account that a provider made has none. Its first one wants a fresh login by the provider instead,
    or `code` if there is a second factor.

    Raises PresentPasswordMissing, WrongPassword, FreshFactorRequired, WrongCode, TooManyAttempts or
    PasswordRefused.
    """
    user = principal.user
    is_first = may_have_a_first_password(user)
    if is_first:
        require_fresh_factor(principal, password=None, code=code, now=now)
    elif current is None:
        raise _present_password_missing()
    else:
        prove_password(user, current, now=now)
    demand_good_password(new, user)
    with transaction.atomic():
        if is_first and locked_user(user.pk).has_usable_password():
            raise _present_password_missing()  # it was not the first: another one came meanwhile
        write_password(user, new)
        AuthSession.objects.of_principal(principal).update(password_state=password_state(user))
        ended = AuthSession.objects.others(principal)
        _announce(user, ended=ended, by_reset=False, is_first=is_first, now=now)


def _present_password_missing() -> PresentPasswordMissing:
    return PresentPasswordMissing.at("/body/current_password", PresentPasswordMissing().message)


def request_reset(email: str, *, client: Client, now: datetime) -> None:
    """Have a key mailed if the address is known; seem to in any case. Raises TooManyAttempts."""
    address = folded(email)
    # Counted apart: strangers who sign up with somebody's address must not keep them from a new password.
    # Those who ask for one in their place do not either, for the key is in the mail.
    take_mail_slots(address, client=client, now=now, scope=Throttle.Scope.RESET)
    # Whether anybody has the address is looked up when the mail is made, so this takes the same time.
    send_reset_mail.enqueue(address)


@sensitive_variables()
@transaction.atomic
def reset_password(key: str, new: str, *, now: datetime) -> None:
    """Set a new password with the key from the mail; every session is over, and the address is proven.

    It does not log in, so it passes no second factor by. Raises InvalidKey or PasswordRefused.
    """
    subject, wanted = subject_of(RESET, key, max_age=settings.password_reset_seconds)
    user_id, _, address = subject.partition(":")
    user = _locked(user_id)
    if user is None or not user.is_active:
        raise bad_key()
    demand_state(RESET, wanted, reset_state(user, addresses_of(user)))
    demand_good_password(new, user)
    is_first = not user.has_usable_password()
    write_password(user, new)
    row = unproven_address(user, address)
    if row is not None:
        prove(row)
    _announce(user, ended=AuthSession.objects.of_user(user), by_reset=True, is_first=is_first, now=now)


def _locked(user_id: str) -> Any:
    try:
        return locked_user(user_id)
    except (ValueError, ValidationError):
        raise bad_key() from None


def _announce(
    user: Any, *, ended: AuthSessionQuerySet, by_reset: bool, is_first: bool, now: datetime
) -> None:
    revoke_sessions(ended, user_id=user.pk, reason=AuthSession.Reason.PASSWORD, now=now)
    tell_of_password(user, by_reset=by_reset, is_first=is_first)


def tell_of_password(user: Any, *, by_reset: bool = False, is_first: bool = False) -> None:
    """Have it known that the user has another password, or a first one."""
    send_notice.enqueue(str(user.pk), "password_set" if is_first else "password_changed")
    payload = PasswordChanged(user_id=str(user.pk), by_reset=by_reset, is_first=is_first)
    PASSWORD_CHANGED.emit(payload, owner=user)

"""Make oneself an account, and prove the address it was made with.

The answer to a stranger is the same whether the address is known or not; what differs is the mail.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import make_password
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.views.decorators.debug import sensitive_variables

from ...errors import FieldProblem
from ..compat import (
    check_address,
    check_password_rules,
    folded,
    is_taken,
    locked_address,
    mark_proven,
    new_user,
    waiting_address,
)
from ..conf import settings
from ..errors import AddressRefused, PasswordRefused, SignupClosed
from ..events import EMAIL_VERIFIED, USER_SIGNED_UP, EmailVerified, UserSignedUp
from ..models import Throttle
from ..signing import VERIFY, bad_key, demand_state, subject_of, verification_state
from ..tasks import send_signup_mail
from ..validators import KnownPasswordValidator
from .enrolling_mfa import prove_password
from .issuing_tokens import Client
from .throttling import hold, take_slot

HOUR = 60 * 60


@sensitive_variables()
def sign_up(email: str, password: str, *, client: Client, now: datetime) -> None:
    """Make an account that waits for its address to be proven, or seem to.

    A known address gets a mail instead. Of several sign-ups with an address that nobody has proven
    the last one counts. Raises SignupClosed, AddressRefused, PasswordRefused or TooManyAttempts.
    """
    if not settings.signup_open:
        raise SignupClosed()
    address = folded(email)
    demand_good_address(address)
    model = get_user_model()
    demand_good_password(password, model(**{model.get_email_field_name(): address}))
    take_mail_slots(address, client=client, now=now)
    with transaction.atomic():
        # Most user models have an address more than once: two at once would make two users, and then
        # nobody could prove it.
        hold(Throttle.Scope.MAIL, address)
        _make_or_renew(address, password)
        send_signup_mail.enqueue(address)


@sensitive_variables()
def verify_email(key: str, password: str, *, now: datetime) -> None:
    """Take the key from the mail and the password of the sign-up: the address is its user's.

    The key alone is not enough. A stranger may have signed up with the address too, and whoever owns
    it must not open the stranger's account by following the mail. Raises InvalidKey, WrongPassword or
    TooManyAttempts.
    """
    prove_password(_waiting(key).user, password, now=now)
    with transaction.atomic():
        prove(_waiting(key))


def prove(address: Any) -> None:
    """Mark the address as its user's. Raises InvalidKey if another has proven it meanwhile."""
    try:
        with transaction.atomic():
            is_proven = mark_proven(address)
    except IntegrityError:
        is_proven = False
    if not is_proven:
        raise bad_key()
    EMAIL_VERIFIED.emit(EmailVerified(user_id=str(address.user_id)), owner=address.user)


@transaction.atomic
def _waiting(key: str) -> Any:
    subject, wanted = subject_of(VERIFY, key, max_age=settings.email_verification_seconds)
    address = locked_address(subject)
    if address is None or not address.user.is_active:
        raise bad_key()
    demand_state(VERIFY, wanted, verification_state(address))
    return address


@sensitive_variables()
def demand_good_password(password: str, user: object) -> None:
    """Raise PasswordRefused, with every reason, for a password that breaks the rules."""
    try:
        check_password_rules(password, user)
        KnownPasswordValidator().validate(password, user)
    except ValidationError as error:
        problems = [FieldProblem("/body/password", "password_refused", text) for text in error.messages]
        raise PasswordRefused(errors=problems) from None


@sensitive_variables()
def write_password(user: Any, password: str) -> None:
    """Set it without a word: whoever calls this tells what there is to tell."""
    user.set_password(password)
    user.is_told = True
    user.save(update_fields=["password"])


def take_mail_slots(address: str, *, client: Client, now: datetime, scope: str = Throttle.Scope.MAIL) -> None:
    """Count a mail to `address` asked for by `client`. Raises TooManyAttempts."""
    if client.network:
        take_slot(
            Throttle.Scope.SIGNUP, client.network, limit=settings.signups_per_client, seconds=HOUR, now=now
        )
    take_slot(scope, address, limit=settings.mails_per_hour, seconds=HOUR, now=now)


def demand_good_address(address: str) -> None:
    """Raise AddressRefused, with every reason, for an address that nobody may have here."""
    try:
        check_address(address)
    except ValidationError as error:
        problems = [FieldProblem("/body/email", "address_refused", text) for text in error.messages]
        raise AddressRefused(errors=problems) from None


@sensitive_variables()
def _make_or_renew(address: str, password: str) -> None:
    waiting = waiting_address(address) if settings.email_verification else None
    # Looked at again: if its owner has proved it meanwhile, nobody else's password must get in.
    locked = locked_address(str(waiting.pk)) if waiting is not None else None
    if locked is not None and not locked.verified:
        # The key in an earlier mail is bound to the earlier password, and dead from here on.
        write_password(locked.user, password)
        return
    if waiting is not None or is_taken(address):
        make_password(password)  # as long as it takes for a new account
        return
    try:
        with transaction.atomic():
            user = new_user(address, password)
    except IntegrityError:
        # Somebody was faster with the same address; they have a mail, and so will we.
        return
    USER_SIGNED_UP.emit(UserSignedUp(user_id=str(user.pk)), owner=user)

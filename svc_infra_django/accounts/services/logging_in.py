"""From address and password to tokens, or to the second step."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from django.contrib.auth import authenticate, get_user_model
from django.contrib.auth.hashers import check_password as matches_hash
from django.db import transaction
from django.views.decorators.debug import sensitive_variables
from django_otp import user_has_device

from ..compat import address_is_proven, folded, staff_named, user_with_address
from ..conf import settings
from ..errors import InvalidCredentials, TooManyAttempts
from ..events import LOGIN_FAILED, LoginFailed
from ..hashing import new_token, token_digest
from ..models import AuthSession, MFAChallenge, Throttle, lacks_factor
from ..signing import password_state, password_states, subject_digest
from ..tasks import send_signup_mail
from .issuing_tokens import Client, Tokens
from .throttling import counted_as, forget, give_back, take_attempt, take_slot
from .verifying_mfa import Proven, begin_session

HOUR = 60 * 60


@dataclass(frozen=True, slots=True)
class SecondStep:
    """The password was right; a code is wanted. The token is good for that and nothing else."""

    mfa_token: str = field(repr=False)
    expires_in: int
    challenge: MFAChallenge
    must_enrol: bool = False
    """Staff without a device: add one with the token, instead of sending a code."""


def begun(outcome: Proven | SecondStep, *, client: Client, now: datetime) -> Tokens | SecondStep:
    """Tokens for whoever has proved enough, or the second step that is still wanted."""
    return outcome if isinstance(outcome, SecondStep) else begin_session(outcome, client=client, now=now)


@sensitive_variables()
def prove_login(email: str, password: str, *, client: Client, now: datetime) -> Proven | SecondStep:
    """Check address and password.

    Raises InvalidCredentials, the same for every reason, and TooManyAttempts, the same for accounts
    that do not exist. One password hash is computed in every case, so the time tells nothing either.
    """
    address = folded(email)
    candidate = user_with_address(address)
    subject = counted_as(candidate, address)
    _take_slots(subject, client=client, now=now)
    user = check_password(candidate, password)
    if user is not None and settings.email_verification and not address_is_proven(user, address):
        _mail_again(address, now=now)
        user = None
    _demand(user, subject, client=client)
    with transaction.atomic():
        _settle(subject, client=client)
        return after_first_factor(user, amr=("pwd",), now=now)


@sensitive_variables()
def log_in_staff(name: str, password: str, *, client: Client, now: datetime) -> Proven | SecondStep:
    """The first step into the admin, by username or address.

    Attempts count together with those of `prove_login`. Raises InvalidCredentials, for whoever is not staff
    too, or TooManyAttempts.
    """
    # Who has the address is counted as at the API's door, staff or not: else the two tell who has an account.
    owner = user_with_address(folded(name))
    candidate = staff_named(name)
    subject = counted_as(candidate or owner, name)
    _take_slots(subject, client=client, now=now)
    user = check_password(candidate, password)
    _demand(user, subject, client=client)
    with transaction.atomic():
        _settle(subject, client=client)
        return after_first_factor(user, amr=("pwd",), now=now)


def after_first_factor(
    user: Any, *, amr: Iterable[str], now: datetime, tenant: str = ""
) -> Proven | SecondStep:
    """What any first factor leads to: that is enough, or the second step.

    Raises InvalidCredentials if the user is disabled.
    """
    if not user.is_active:
        raise InvalidCredentials()
    amr = tuple(amr)
    return second_step(user, amr=amr, now=now, tenant=tenant) or Proven(user, amr=amr, tenant=tenant)


def second_step(user: Any, *, amr: Collection[str], now: datetime, tenant: str = "") -> SecondStep | None:
    """What is still wanted of a user with a confirmed device, or of staff without one; else None."""
    must_enrol = not user_has_device(user)
    if must_enrol and not lacks_factor(user, amr):
        return None
    token = new_token("mfa")
    challenge = MFAChallenge.objects.create(
        owner=user,
        tenant=tenant,
        digest=token_digest(token),
        amr=" ".join(amr),
        password_state=password_state(user),
        created_at=now,
        expires_at=now + timedelta(seconds=settings.mfa_challenge_seconds),
    )
    seconds = settings.mfa_challenge_seconds
    return SecondStep(mfa_token=token, expires_in=seconds, challenge=challenge, must_enrol=must_enrol)


@sensitive_variables()
def check_password(candidate: Any, password: str) -> Any:
    """The user if the project's authentication backends take the password, else None.

    Without a candidate the backends are asked about a name that nobody has: Django then hashes for
    nothing, which is what we want. A password that Django hashes anew here ends no session.
    """
    model = get_user_model()
    name = candidate.get_username() if candidate is not None else f"nobody-{uuid4().hex}"
    user = authenticate(None, **{model.USERNAME_FIELD: name}, password=password)
    if candidate is None or user is None or user.pk != candidate.pk:
        return None
    _carry_over(user, password, before=candidate.password)
    return user if user.is_active else None


def _demand(user: Any, subject: str, *, client: Client) -> None:
    # In no transaction: what hears of the failure must not be undone by the refusal.
    if user is None:
        LOGIN_FAILED.emit(LoginFailed(account=subject_digest(subject), client_address=client.address))
        raise InvalidCredentials()


def _settle(subject: str, *, client: Client) -> None:
    forget(Throttle.Scope.LOGIN, subject)
    give_back(Throttle.Scope.CLIENT, client.network)


def _mail_again(address: str, *, now: datetime) -> None:
    # Whoever knows the password may have lost the mail; nobody else learns that it was sent. Counted apart:
    # a sign-up that is stopped sooner, after some logins, would tell that the address was nobody's before.
    with suppress(TooManyAttempts):
        take_slot(Throttle.Scope.NOTICE, address, limit=settings.mails_per_hour, seconds=HOUR, now=now)
        send_signup_mail.enqueue(address)


def _take_slots(subject: str, *, client: Client, now: datetime) -> None:
    wanted = [(Throttle.Scope.LOGIN, subject, settings.login_attempts)]
    if client.network:
        wanted.insert(0, (Throttle.Scope.CLIENT, client.network, settings.login_attempts_per_client))
    for scope, counted, limit in wanted:
        take_attempt(
            scope,
            counted,
            limit=limit,
            seconds=settings.login_window_seconds,
            now=now,
            client_address=client.address,
        )


@sensitive_variables()
def _carry_over(user: Any, password: str, *, before: str) -> None:
    # Django hashes the password anew when its parameters have risen. It is the same password, so the
    # user's other sessions must not end. If it is another one, set by somebody meanwhile, they must.
    if user.password == before or not matches_hash(password, before):
        return
    present = password_state(user)
    user.password, fresh = before, user.password
    former = password_states(user)
    user.password = fresh
    AuthSession.objects.of_user(user).filter(password_state__in=former).update(password_state=present)

"""To a provider and back: the login that somebody else vouches for.

What is kept meanwhile is a row: which provider, which browser, which secrets, where to end. It is
deleted before anything that came back is looked at, so a state is good once, whoever has it.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from hmac import compare_digest
from secrets import token_urlsafe
from typing import Any

from django.views.decorators.debug import sensitive_variables

from ...errors import SvcInfraError
from ...sealing import seal, unseal
from ..conf import settings
from ..errors import CallbackUnset, InvalidHandoff, InvalidState, ProviderRefused, TargetRefused
from ..hashing import new_token, token_digest
from ..models import OAuthFlow, OAuthHandoff, Throttle
from ..providers import Provider, Secrets
from ..signing import has_password_state, password_state
from .connecting_providers import connect, user_behind
from .issuing_tokens import Client, Tokens
from .logging_in import SecondStep, after_first_factor, begun
from .throttling import take_slot
from .verifying_mfa import Proven

RELATIVE = re.compile(r"/(?![/\\])[\x21-\x7e]*")
BROWSER = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class Departure:
    """Where the browser goes, the state it comes back with, and what it must bring from here."""

    url: str
    state: str = field(repr=False)
    browser: str = field(repr=False)
    expires_in: int


@dataclass(frozen=True, slots=True)
class Arrival:
    """How it ended: at a front end (`target`, with a code or an error), or here, with the outcome itself."""

    target: str = ""
    code: str = field(default="", repr=False)
    error: str = ""
    outcome: Tokens | SecondStep | None = None


@sensitive_variables()
def depart(
    provider: str, *, target: str, browser: str, client: Client, now: datetime, owner: Any = None
) -> Departure:
    """Begin a login by `provider`, or with `owner`, connect the provider to their account.

    `browser` is what this browser was given before, if it was. Raises UnknownProvider, TargetRefused,
    TooManyAttempts, ProviderUnavailable or ProviderRefused.
    """
    found = Provider(provider)
    if not settings.oauth_callback_url:
        raise CallbackUnset()
    _demand_target(target)
    _take_slot(client, now=now)
    secrets = Secrets(nonce=token_urlsafe(32), verifier=token_urlsafe(48))
    state = new_token("st")
    browser = browser if BROWSER.fullmatch(browser) else token_urlsafe(32)
    url = found.authorization_url(state=state, secrets=secrets)
    digest = token_digest(state)
    OAuthFlow.objects.create(
        provider=found.key,
        digest=digest,
        browser_digest=token_digest(browser),
        sealed_secrets=seal(json.dumps(asdict(secrets)), context=_context(digest)),
        target=target,
        owner=owner,
        password_state=password_state(owner) if owner is not None else "",
        created_at=now,
        expires_at=now + timedelta(seconds=settings.oauth_flow_seconds),
    )
    return Departure(url=url, state=state, browser=browser, expires_in=settings.oauth_flow_seconds)


@sensitive_variables()
def arrive(
    *, state: str, code: str, issuer: str | None, browser: str, client: Client, now: datetime
) -> Arrival:
    """Go on with a login that comes back from its provider; without a code, the provider refused it.

    Raises InvalidState, and without a `target` whatever else went wrong: ProviderRefused,
    ProviderUnavailable, or what `user_behind` and `connect` raise.
    """
    flow = _popped(state, browser=browser, now=now)
    try:
        return _vouched_for(flow, code=code, issuer=issuer, client=client, now=now)
    except SvcInfraError as error:
        if not flow.target or (error.status >= 500 and error.status != 503):
            raise
        return Arrival(target=flow.target, error=error.code)


@sensitive_variables()
def exchange(code: str, *, state: str, now: datetime) -> Proven | SecondStep:
    """Whoever the code that ended at the front end is for, or the second step that is wanted of them.

    `state` is what the front end was told when the login was begun: a code from elsewhere, put into
    the address by somebody who wants their own account used, does not go with it. Raises
    InvalidHandoff.
    """
    rows = OAuthHandoff.objects.select_related("owner")
    handoff = rows.filter(digest=token_digest(code), expires_at__gt=now).first()
    if handoff is None or OAuthHandoff.objects.filter(pk=handoff.pk).delete()[0] != 1:
        raise InvalidHandoff()
    if not compare_digest(handoff.state_digest, token_digest(state)):
        raise InvalidHandoff()
    return after_first_factor(handoff.owner, amr=("fed",), now=now)


def _vouched_for(flow: OAuthFlow, *, code: str, issuer: str | None, client: Client, now: datetime) -> Arrival:
    if not code:
        raise ProviderRefused()
    secrets = Secrets(**json.loads(unseal(flow.sealed_secrets, context=_context(flow.digest))))
    identity = Provider(flow.provider).identify(code, secrets=secrets, issuer=issuer)
    if flow.owner is not None:
        # Whoever had begun it may have been thrown out meanwhile.
        if not flow.owner.is_active or not has_password_state(flow.owner, flow.password_state):
            raise InvalidState()
        connect(flow.owner, identity)
        return Arrival(target=flow.target)
    user = user_behind(identity, now=now)
    if not flow.target:
        proven = after_first_factor(user, amr=("fed",), now=now)
        return Arrival(outcome=begun(proven, client=client, now=now))
    handoff = new_token("oc")
    OAuthHandoff.objects.create(
        owner=user,
        digest=token_digest(handoff),
        state_digest=flow.digest,
        created_at=now,
        expires_at=now + timedelta(seconds=settings.oauth_handoff_seconds),
    )
    return Arrival(target=flow.target, code=handoff)


def _popped(state: str, *, browser: str, now: datetime) -> OAuthFlow:
    rows = OAuthFlow.objects.select_related("owner")
    flow = rows.filter(digest=token_digest(state), expires_at__gt=now).first()
    if flow is None or OAuthFlow.objects.filter(pk=flow.pk).delete()[0] != 1:
        raise InvalidState()
    if not compare_digest(flow.browser_digest, token_digest(browser)):
        raise InvalidState()
    return flow


def _demand_target(target: str) -> None:
    if target and target not in settings.oauth_front_ends and not RELATIVE.fullmatch(target):
        raise TargetRefused.at("/query/next", TargetRefused().message, code="target_refused")


def _take_slot(client: Client, *, now: datetime) -> None:
    if client.network:
        take_slot(
            Throttle.Scope.OAUTH,
            client.network,
            limit=settings.oauth_flows_per_client,
            seconds=settings.login_window_seconds,
            now=now,
        )


def _context(digest: str) -> str:
    return f"accounts.oauth:{digest}"

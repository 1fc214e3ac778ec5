"""What an access token is worth now."""

from __future__ import annotations

from datetime import datetime
from functools import cache, partial
from typing import Any

from django.contrib.auth import get_user_model
from django.db import InterfaceError, OperationalError, models, router
from django.views.decorators.debug import sensitive_variables

from ...principals import LazyUser, Principal
from ...rows import PreparedLookup
from ..conf import settings
from ..errors import InvalidAccessToken, SessionsUnreadable
from ..jwt import Claims, InvalidJWT, digest_of, named_key, opened
from ..models import AuthSession, lacks_factor
from .keeping_keys import key_ring
from .remembering_sessions import GoodToken, SessionState, memory, ticket
from .sharing_sessions import shared_memory

# What decides whether a session is good, and what a principal says of it; the rest is read when asked for.
NEEDED = (
    *("id", "owner_id", "tenant", "amr", "auth_time", "password_state"),
    *("idle_expires_at", "expires_at", "revoked_at"),
)


def check_access_token(token: str, *, now: datetime) -> Principal:
    """The principal behind `token`. Raises InvalidAccessToken, whatever is wrong.

    That session, user and password still stand is remembered for less than `revocation_seconds`, so
    logging out, disabling the user or changing the password stops every process within that time.
    Raises SessionsUnreadable if the database does not answer: what nobody can say is never taken for
    good.
    """
    name = digest_of(token)
    known = memory.recall(name)
    if known is None or known.ends_at <= now.timestamp() or known.kid not in key_ring().keys:
        known, user = _looked_up(token, name, now=now)
    else:
        user = LazyUser(known.state.user_id, partial(_read_user, known.state))
    state = known.state
    return Principal(user, "jwt", known.session_id, state.tenant, None, state.amr, state.auth_time)


@sensitive_variables()
def read_claims(token: str, *, now: datetime) -> Claims:
    """What a token of ours says, whether its session stands or not. Raises InvalidAccessToken."""
    ring = key_ring()
    try:
        return opened(token, ring=ring, now=now)
    except InvalidJWT:
        # Perhaps a key that another process signs with since a moment ago.
        renewed = key_ring(wanted=named_key(token))
    try:
        if renewed is not ring:
            return opened(token, ring=renewed, now=now)
    except InvalidJWT:
        pass
    raise InvalidAccessToken()


def _looked_up(token: str, name: bytes, *, now: datetime) -> tuple[GoodToken, Any]:
    """From the cache that all processes share, else from the database."""
    claims = read_claims(token, now=now)
    begun = ticket(claims.subject)
    shared, generation = shared_memory.recall(claims.subject, claims.session_id)
    if shared is not None and _is_current(shared, claims, now=now):
        state, user = shared, LazyUser(shared.user_id, partial(_read_user, shared))
    else:
        session = read_session(claims, now=now)
        user = session.owner
        # The idle end is never later than the absolute one.
        state = SessionState(
            user.pk, session.tenant, session.methods, session.auth_time, session.idle_expires_at
        )
        shared_memory.share(claims.subject, claims.session_id, state, generation)
    ends_at = min(state.ends_at.timestamp(), claims.expires_at + settings.token_leeway_seconds)
    known = GoodToken(state, str(claims.session_id), claims.kid, ends_at)
    memory.keep(name, known, begun)
    return known, user


def _is_current(state: SessionState, claims: Claims, *, now: datetime) -> bool:
    # A token that knows of a later proof than what is remembered comes from a step-up elsewhere.
    return state.ends_at > now and int(state.auth_time.timestamp()) >= claims.auth_time


def read_session(claims: Claims, *, now: datetime) -> AuthSession:
    """The session and its owner in one query, whatever is remembered. Raises InvalidAccessToken.

    From the database that is written to: a copy may lag behind.
    """
    row = _found(_sessions, claims.session_id, AuthSession)
    session: AuthSession = AuthSession.from_db(_home(AuthSession), NEEDED, row[: len(NEEDED)])
    session.owner = _made(get_user_model(), row[len(NEEDED) :])
    if str(session.owner.pk) != claims.subject or not session.is_good(now=now):
        raise InvalidAccessToken()
    return session


def _read_user(state: SessionState) -> Any:
    model = get_user_model()
    user = _made(model, _found(_users, state.user_id, model))
    if not user.is_active or lacks_factor(user, state.amr):
        raise InvalidAccessToken()
    return user


def _found(lookup: PreparedLookup, key: Any, model: type[models.Model]) -> tuple[Any, ...]:
    try:
        row = lookup.get(key, using=_home(model))
    except (OperationalError, InterfaceError) as error:
        raise SessionsUnreadable() from error
    if row is None:
        raise InvalidAccessToken()
    return row


def _made(model: type[models.Model], row: tuple[Any, ...]) -> Any:
    return model.from_db(_home(model), _columns(model), row)


def _home(model: type[models.Model]) -> str:
    return router.db_for_write(model)


@cache
def _columns(model: type[models.Model]) -> list[str]:
    return [field.attname for field in model._meta.concrete_fields]


def _all_sessions() -> models.QuerySet[Any, tuple[Any, ...]]:
    owners = (f"owner__{column}" for column in _columns(get_user_model()))
    return AuthSession.objects.values_list(*NEEDED, *owners)


def _all_users() -> models.QuerySet[Any, tuple[Any, ...]]:
    model = get_user_model()
    return model._base_manager.values_list(*_columns(model))


_sessions = PreparedLookup(_all_sessions)
_users = PreparedLookup(_all_users)

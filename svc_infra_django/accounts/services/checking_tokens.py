"""What an access token is worth now."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.db import InterfaceError, OperationalError, models, router
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables

from ...lookups import PreparedLookup, Row
from ...principals import LazyUser, Principal
from ..conf import settings
from ..errors import InvalidAccessToken, SessionsUnreadable
from ..jwt import Claims, InvalidJWT, digest_of, named_key, opened
from ..models import AuthSession, lacks_factor, may_speak, methods, stands
from .keeping_keys import key_ring
from .remembering_sessions import GoodToken, SessionState, memory, ticket, unchanged
from .sharing_sessions import shared_memory

# What decides whether a session is good, and what a principal says of it; the rest is read when asked for.
NEEDED = (
    *("id", "owner_id", "tenant", "amr", "auth_time", "password_state", "idle_expires_at", "revoked_at"),
)


@sensitive_variables()
def check_access_token(token: str, *, now: datetime | None = None) -> Principal:
    """The principal behind `token`, also of what is no HTTP request. Raises InvalidAccessToken.

    That session, user and password still stand is remembered for less than `revocation_seconds`, so
    logging out, disabling the user or changing the password stops every process within that time.
    Raises SessionsUnreadable if the database does not answer: what nobody can say is never taken for
    good.
    """
    name = digest_of(f"Bearer {token}")  # as the header that it comes in most
    now = now or timezone.now()
    return remembered(name, at=now.timestamp()) or look_up(token, name, now=now)


acheck_access_token = sync_to_async(check_access_token)


def remembered(name: bytes, *, at: float) -> Principal | None:
    """The principal behind the token that `look_up` was told this name of, if it was good a moment ago."""
    known = memory.recall(name)
    if known is None or known.ends_at <= at or known.kid not in key_ring().keys:
        return None
    return Principal(LazyUser(known.user_id, known.read_user), *known.told)


@sensitive_variables()
def read_claims(token: str, *, now: datetime, name: bytes | None = None) -> Claims:
    """What a token of ours says, whether its session stands or not. Raises InvalidAccessToken.

    `name` is as for `look_up`.
    """
    ring = key_ring()
    name = name or digest_of(token)
    try:
        return opened(token, name, ring=ring, now=now)
    except InvalidJWT:
        # Perhaps a key that another process signs with since a moment ago.
        renewed = key_ring(wanted=named_key(token))
    try:
        if renewed is not ring:
            return opened(token, name, ring=renewed, now=now)
    except InvalidJWT:
        pass
    raise InvalidAccessToken()


@sensitive_variables()
def look_up(token: str, name: bytes, *, now: datetime) -> Principal:
    """As `check_access_token`, by the cache that all processes share, else by the database.

    What is found is remembered by `name`, a digest of something that has the whole token in it.
    """
    claims = read_claims(token, now=now, name=name)
    begun = ticket(claims.subject)
    shared, generation = shared_memory.recall(claims.subject, claims.session_text)
    if shared is not None and _is_current(shared, claims, now=now):
        state, user = shared, LazyUser(shared.user_id, partial(_read_user, shared))
    else:
        state, _, owner = read_session(claims, now=now)
        user = LazyUser(state.user_id, owner.made)
        shared_memory.share(claims.subject, claims.session_text, state, generation)
    ends_at = min(state.ends_at.timestamp(), claims.expires_at + settings.token_leeway_seconds)
    told = ("jwt", claims.session_text, state.tenant, None, state.amr, state.auth_time)
    memory.keep(name, GoodToken(claims.kid, ends_at, state.user_id, partial(_read_user, state), told), begun)
    return Principal(user, *told)


def _is_current(state: SessionState, claims: Claims, *, now: datetime) -> bool:
    # A token that knows of a later proof than what is remembered comes from a step-up elsewhere.
    return state.ends_at > now and int(state.auth_time.timestamp()) >= claims.auth_time


def read_session(claims: Claims, *, now: datetime) -> tuple[SessionState, Row, Row]:
    """What the session is worth, and its row and its owner's, in one query, whatever is remembered.

    From the database that is written to: a copy may lag behind. Raises InvalidAccessToken.
    """
    session, owner = _found(_sessions, claims.session_id, AuthSession)
    state = _worked_out(session, owner)
    # What is no column the project works out for itself, and is asked for each time.
    is_good = may_speak(owner, state.amr, until=state.ends_at, now=now)
    if not is_good or str(state.user_id) != claims.subject:
        raise InvalidAccessToken()
    return state, session, owner


def _worked_out(session: Row, owner: Row) -> SessionState:
    """What the columns say, remembered while they are the same: to read them costs more than to find them."""
    name = session.fingerprint
    state = unchanged.recall(name)
    if state is None:
        if not stands(session, owner):
            raise InvalidAccessToken()
        # The idle end is never later than the absolute one.
        state = SessionState(
            owner.pk, session.tenant, methods(session.amr), session.auth_time, session.idle_expires_at
        )
        unchanged.keep(name, state, unchanged.ticket())
    return state


def _read_user(state: SessionState) -> Any:
    (row,) = _found(_users, state.user_id, get_user_model())
    user = row.made()
    if not user.is_active or lacks_factor(user, state.amr):
        raise InvalidAccessToken()
    return user


def _found(lookup: PreparedLookup, key: Any, model: type[models.Model]) -> tuple[Row, ...]:
    try:
        rows = lookup.get(key, using=router.db_for_write(model))
    except (OperationalError, InterfaceError) as error:
        raise SessionsUnreadable() from error
    if rows is None:
        raise InvalidAccessToken()
    return rows


def _all_sessions() -> models.QuerySet[Any, Any]:
    owners = (f"owner__{field.attname}" for field in get_user_model()._meta.concrete_fields)
    return AuthSession.objects.select_related("owner").only(*NEEDED, *owners)


_sessions = PreparedLookup(_all_sessions)
_users = PreparedLookup(lambda: get_user_model()._base_manager.all())

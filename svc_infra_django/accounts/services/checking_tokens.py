"""What an access token is worth now."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Any

from django.contrib.auth import get_user_model
from django.db import InterfaceError, OperationalError, models, router
from django.views.decorators.debug import sensitive_variables

from ...principals import LazyUser, Principal
from ...rows import PreparedLookup
from ..errors import InvalidAccessToken, SessionsUnreadable
from ..jwt import Claims, InvalidJWT, opened
from ..models import AuthSession
from ..signing import has_password_state
from .remembering_sessions import SessionState, memory

SESSION_COLUMNS = (
    *("revoked_at", "expires_at", "idle_expires_at", "password_state"),
    *("tenant", "amr", "auth_time"),
)


@sensitive_variables()
def check_access_token(token: str, *, now: datetime) -> Principal:
    """The principal behind `token`. Raises InvalidAccessToken, whatever is wrong.

    That session, user and password still stand is remembered for less than `revocation_seconds`, so
    logging out, disabling the user or changing the password stops every process within that time.
    Raises SessionsUnreadable if the database does not answer: what nobody can say is never taken for
    good.
    """
    try:
        claims = opened(token, now=now)
    except InvalidJWT:
        raise InvalidAccessToken() from None
    state = memory.recall(claims.subject, claims.session_id)
    if state is not None and state.ends_at > now:
        user: Any = LazyUser(state.user_id, partial(_read_user, state.user_id))
    else:
        state, user = _read(claims, now=now)
    return Principal(
        user=user,
        method="jwt",
        credential_id=str(claims.session_id),
        tenant=state.tenant,
        amr=state.amr,
        auth_time=state.auth_time,
    )


def _read(claims: Claims, *, now: datetime) -> tuple[SessionState, Any]:
    """Session and user in one query, from the database that is written to: a copy may lag behind."""
    ticket = memory.ticket(claims.subject)
    row = _found(_sessions, claims.session_id, router.db_for_write(AuthSession))
    revoked_at, expires_at, idle_expires_at, password, tenant, amr, auth_time = row[: len(SESSION_COLUMNS)]
    user = _made(row[len(SESSION_COLUMNS) :])
    if (
        revoked_at is not None
        or min(expires_at, idle_expires_at) <= now
        or str(user.pk) != claims.subject
        or not user.is_active
        or not has_password_state(user, password)
    ):
        raise InvalidAccessToken()
    state = SessionState(user.pk, tenant, tuple(amr.split()), auth_time, min(expires_at, idle_expires_at))
    memory.keep(claims.subject, claims.session_id, state, ticket)
    return state, user


def _read_user(user_id: Any) -> Any:
    user = _made(_found(_users, user_id, router.db_for_write(get_user_model())))
    if not user.is_active:
        raise InvalidAccessToken()
    return user


def _found(lookup: PreparedLookup, key: Any, using: str) -> tuple[Any, ...]:
    try:
        row = lookup.get(key, using=using)
    except (OperationalError, InterfaceError) as error:
        raise SessionsUnreadable() from error
    if row is None:
        raise InvalidAccessToken()
    return row


def _made(row: tuple[Any, ...]) -> Any:
    model = get_user_model()
    return model.from_db(router.db_for_write(model), _user_columns(), row)


def _user_columns() -> list[str]:
    return [field.attname for field in get_user_model()._meta.concrete_fields]


def _all_sessions() -> models.QuerySet[Any, tuple[Any, ...]]:
    owners = (f"owner__{column}" for column in _user_columns())
    return AuthSession.objects.values_list(*SESSION_COLUMNS, *owners)


def _all_users() -> models.QuerySet[Any, tuple[Any, ...]]:
    return get_user_model()._base_manager.values_list(*_user_columns())


_sessions = PreparedLookup(_all_sessions)
_users = PreparedLookup(_all_users)

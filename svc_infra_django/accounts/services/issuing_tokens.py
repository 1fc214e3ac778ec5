"""Begin a session and keep it going: the two tokens of a login, and their rotation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Network, ip_address
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.auth.models import update_last_login
from django.db import transaction
from django.db.models.query_utils import DeferredAttribute
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables

from ...observability.logging import get_logger
from ..conf import settings
from ..errors import InvalidCredentials, InvalidRefreshToken
from ..events import SESSION_REUSE_DETECTED, USER_LOGGED_IN, SessionReuseDetected, UserLoggedIn
from ..hashing import new_token, token_digest
from ..jwt import AccessToken
from ..models import AuthSession, RefreshToken
from ..signing import password_state
from ..tasks import send_notice
from .ending_sessions import revoke_sessions
from .keeping_keys import key_ring

IPV6_PREFIX = 64

logger = get_logger("svc_infra_django.accounts")


@dataclass(frozen=True, slots=True)
class Client:
    """Where a request comes from. Raises ValueError for an address that is no IP address."""

    address: str = ""
    user_agent: str = ""

    def __post_init__(self) -> None:
        # The zone of a link-local address means something on this machine only.
        plain = self.address.partition("%")[0]
        object.__setattr__(self, "address", str(ip_address(plain)) if plain else "")

    @property
    def network(self) -> str:
        """What is counted as one client: the address, or the /64 that one IPv6 customer has."""
        if not self.address:
            return ""
        parsed = ip_address(self.address)
        if isinstance(parsed, IPv4Address):
            return str(parsed)
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(IPv6Network((int(parsed), IPV6_PREFIX), strict=False))


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a client holds of a session. Neither token can be had a second time."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_in: int
    session: AuthSession
    token_type: str = "Bearer"  # noqa: S105  # the name of a scheme (RFC 6750)


@transaction.atomic
def issue_tokens(
    user: Any,
    *,
    amr: Iterable[str],
    tenant: str = "",
    client: Client | None = None,
    now: datetime | None = None,
) -> Tokens:
    """Begin a session for `user`, who has proved by `amr` (RFC 8176) who they are.

    The caller has checked every factor; this asks for none. Raises InvalidCredentials if the user is
    disabled.
    """
    now = now or timezone.now()
    client = client or Client()
    if not user.is_active:
        raise InvalidCredentials()
    expires_at = now + timedelta(seconds=settings.session_seconds)
    session = AuthSession.objects.create(
        owner=user,
        tenant=tenant,
        amr=" ".join(amr),
        auth_time=now,
        password_state=password_state(user),
        created_at=now,
        refreshed_at=now,
        idle_expires_at=_idle_end(now, expires_at),
        expires_at=expires_at,
        user_agent=client.user_agent[:255],
        client_address=client.address or None,
    )
    tokens = _mint(session, parent=None, now=now)
    # As Django asks it: a user model may have done away with the column.
    if isinstance(getattr(type(user), "last_login", None), DeferredAttribute):
        update_last_login(None, user)  # type: ignore[arg-type]  # takes any user model
    payload = UserLoggedIn(
        user_id=str(user.pk), session_id=session.pk, amr=list(session.methods), client_address=client.address
    )
    USER_LOGGED_IN.emit(payload, owner=user, tenant=tenant)
    return tokens


aissue_tokens = sync_to_async(issue_tokens)


@sensitive_variables()
def refresh_tokens(token: str, *, client: Client | None = None, now: datetime) -> Tokens:
    """Exchange a refresh token for the next pair. Raises InvalidRefreshToken.

    A token that was exchanged before is a copy in the wrong hands, or the right ones: its whole
    session ends (RFC 9700, section 4.14.2).
    """
    digest = token_digest(token)
    with transaction.atomic():
        if RefreshToken.objects.use(digest, now=now):
            return _rotated(digest, now=now)
        _end_if_reused(digest, client=client or Client(), now=now)
    # Outside the block: what ended the session must be committed.
    raise InvalidRefreshToken()


def _rotated(digest: str, *, now: datetime) -> Tokens:
    used = RefreshToken.objects.select_related("session__owner").get(digest=digest)
    session = used.session
    if not session.is_good(now=now):
        raise InvalidRefreshToken()
    session.refreshed_at = now
    session.idle_expires_at = _idle_end(now, session.expires_at)
    # Under the present key, so that the one in SECRET_KEY_FALLBACKS can go some day.
    session.password_state = password_state(session.owner)
    session.save(update_fields=["refreshed_at", "idle_expires_at", "password_state"])
    return _mint(session, parent=used, now=now)


def _end_if_reused(digest: str, *, client: Client, now: datetime) -> None:
    rows = RefreshToken.objects.select_related("session__owner")
    reused = rows.filter(digest=digest, used_at__isnull=False).first()
    if reused is None:
        return
    session = reused.session
    family = AuthSession.objects.filter(pk=session.pk)
    if revoke_sessions(family, user_id=session.owner_id, reason=AuthSession.Reason.REUSE, now=now):
        logger.warning("refresh token reused", session_id=str(session.pk), user_id=str(session.owner_id))
        payload = SessionReuseDetected(
            user_id=str(session.owner_id), session_id=session.pk, client_address=client.address
        )
        send_notice.enqueue(str(session.owner_id), "session_reused")
        SESSION_REUSE_DETECTED.emit(payload, owner=session.owner, tenant=session.tenant)


@sensitive_variables()
def _mint(session: AuthSession, *, parent: RefreshToken | None, now: datetime) -> Tokens:
    refresh_token = new_token("rt")
    RefreshToken.objects.create(
        session=session,
        parent=parent,
        digest=token_digest(refresh_token),
        created_at=now,
        expires_at=session.idle_expires_at,
    )
    access = AccessToken(key_ring())
    access.set_iat(at_time=now)
    access.set_exp(from_time=now)
    access["sub"] = str(session.owner_id)
    access["sid"] = str(session.pk)
    access["amr"] = list(session.methods)
    access["acr"] = session.acr
    access["auth_time"] = int(session.auth_time.timestamp())
    return Tokens(
        access_token=str(access),
        refresh_token=refresh_token,
        expires_in=settings.access_token_seconds,
        session=session,
    )


def _idle_end(now: datetime, end: datetime) -> datetime:
    return min(now + timedelta(seconds=settings.session_idle_seconds), end)

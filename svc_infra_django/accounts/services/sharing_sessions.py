"""What all processes remember of sessions together, if they have a cache in common."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import lru_cache, partial
from hashlib import sha256
from secrets import token_hex
from time import monotonic
from typing import Any, TypeVar

import orjson
from django.contrib.auth import get_user_model
from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.core.signals import setting_changed
from django.db import transaction

from ...cache.backends import outages, shared
from ...observability.logging import get_logger
from ...observability.metrics import metrics
from ..conf import settings
from .remembering_sessions import LIMIT, SessionState, memory

ResultT = TypeVar("ResultT")

PREFIX = "svc_accounts"
GENERATION_SECONDS = 24 * 60 * 60
PAUSE_SECONDS = 1.0

logger = get_logger("svc_infra_django.accounts")


class SharedMemory:
    """Good sessions in the cache that `shared_cache` names; without one it knows nothing.

    Each user has a generation there, a random name, and a session is good while it bears the present
    one. Whoever changes a user's sessions gives the user a new generation after the commit. Nothing is
    deleted, and a reader stamps what it reads with the generation from before: so a slow one puts
    nothing back. An outage is a miss.
    """

    def __init__(self) -> None:
        self._asks_again_at = float("-inf")

    def recall(self, subject: str, session_id: str) -> tuple[SessionState | None, str]:
        """The session, if all agree that it is good, and the generation to share it under."""
        if not settings.shared_cache:
            return None, ""
        nothing: tuple[SessionState | None, str] = (None, "")
        return self._tried(lambda cache: _recalled(cache, subject, session_id), nothing)

    def share(self, subject: str, session_id: str, state: SessionState, generation: str) -> None:
        """Tell the others what was read after `recall` gave the generation."""
        if not generation:
            return
        text = orjson.dumps([generation, state.tenant, state.amr, state.auth_time, state.ends_at]).decode()
        seconds = settings.shared_cache_seconds
        self._tried(lambda cache: cache.set(_session_key(session_id), text, seconds), None)

    def renew(self, subject: str) -> None:
        """Have every process read the user's sessions anew. Tried even shortly after an outage."""
        if not settings.shared_cache:
            return

        def begin(cache: BaseCache) -> bool:
            cache.set(_user_key(subject), token_hex(16), GENERATION_SECONDS)
            return True

        if not self._tried(begin, False, always=True):
            metrics.increment("accounts.revocations_unshared")
            logger.error("ended sessions could not be told to other processes", user_id=subject)

    def _tried(
        self, ask: Callable[[BaseCache], ResultT], otherwise: ResultT, *, always: bool = False
    ) -> ResultT:
        if monotonic() < self._asks_again_at and not always:
            return otherwise
        try:
            return ask(shared(caches[settings.shared_cache]))
        except outages() as error:
            self._asks_again_at = monotonic() + PAUSE_SECONDS
            logger.warning("the shared cache does not answer", error=type(error).__name__)
            return otherwise


def _recalled(cache: BaseCache, subject: str, session_id: str) -> tuple[SessionState | None, str]:
    user_key, session_key = _user_key(subject), _session_key(session_id)
    found = cache.get_many([user_key, session_key])
    generation = found.get(user_key)
    if generation is None:
        cache.add(user_key, token_hex(16), GENERATION_SECONDS)
        generation = cache.get(user_key) or ""
    text = found.get(session_key)
    # Whoever writes into the cache may have put anything there.
    is_text = isinstance(text, str) and isinstance(generation, str)
    return _state(subject, text, generation) if is_text else None, generation


# What the same texts say is the same, and to read them takes longer than to look them up.
@lru_cache(maxsize=LIMIT)
def _state(subject: str, text: str, generation: str) -> SessionState | None:
    try:
        stamp, tenant, amr, auth_time, ends_at = orjson.loads(text)
        at, until = datetime.fromisoformat(auth_time), datetime.fromisoformat(ends_at)
    except (TypeError, ValueError):
        return None
    if not generation or stamp != generation:
        return None
    user_id = get_user_model()._meta.pk.to_python(subject)
    return SessionState(user_id, tenant, tuple(amr), at, until)


@lru_cache(maxsize=LIMIT)
def _user_key(subject: str) -> str:
    # A digest, because a user's key may be any text.
    return f"{PREFIX}:user:{sha256(subject.encode()).hexdigest()}"


def _session_key(session_id: str) -> str:
    return f"{PREFIX}:session:{session_id}"


shared_memory = SharedMemory()


def _forget_user_model(*, setting: str, **_: Any) -> None:
    if setting == "AUTH_USER_MODEL":
        _state.cache_clear()


setting_changed.connect(_forget_user_model, dispatch_uid="svc_infra_django.accounts.sharing_sessions")


def forget_sessions(user_id: Any, *, using: str | None = None) -> None:
    """Have the user's sessions looked at anew; call it in the transaction that changes them."""
    subject = str(user_id)
    memory.forget(subject)
    transaction.on_commit(partial(_forget_everywhere, subject), using=using)


def _forget_everywhere(subject: str) -> None:
    shared_memory.renew(subject)
    # Again: another thread may have read the state from before the commit.
    memory.forget(subject)

"""Keys that were read a moment ago: in this process, and in the cache that all processes share.

An entry of the shared cache lives for `cache_seconds` after the rows were read, and what a process
takes from it lives as long again there. So no process believes anything that is older than twice
that time, whoever changed it and by whatever way, and whether or not the shared cache answers. A
change that our services make is marked in the shared cache, and then seen sooner.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from functools import cache as once
from hashlib import blake2b
from ipaddress import IPv4Network, IPv6Network
from math import inf
from time import time
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.core.signals import setting_changed
from django.db import connection, models, transaction
from django.db.models.base import ModelState

from ...cache import cache
from ...cache.errors import CacheUnavailable
from ...memory import Memory, Ticket
from ...observability.redaction import is_secret_name
from ..conf import settings
from ..hashing import LAST_SHOWN
from ..limits import Quota, Rate
from ..models import ApiKey

MOST = 10_000
SLACK = 0.1
CHANGED = "changed"
MUTABLE = frozenset({list, dict, set, bytearray})


@dataclass(frozen=True, slots=True)
class KnownKey:
    """What was read of a key and its owner; no digest, no password, nothing that opens anything."""

    row: ApiKey
    user: Any
    user_id: Any
    id: UUID
    id_text: str
    told: tuple[Any, ...]
    """What its principal says but for the user."""

    ends_at: float
    """In seconds since 1970; infinity if it does not end by itself."""

    networks: tuple[IPv4Network | IPv6Network, ...]
    rate: Rate | None
    quota: Quota | None

    @classmethod
    def of(cls, key: ApiKey) -> KnownKey:
        """To be kept, with copies of the rows."""
        return cls(
            row=_copied(key, shown(ApiKey)),
            user=_copied(key.owner, shown(get_user_model())),
            user_id=key.owner_id,
            id=key.pk,
            id_text=str(key.pk),
            told=("api_key", str(key.pk), key.acting_tenant, key.granted_scopes),
            ends_at=key.expires_at.timestamp() if key.expires_at else inf,
            networks=key.networks,
            rate=key.rate_in_force,
            quota=key.quota_in_force,
        )

    def owner(self) -> Any:
        """The owner as a row of this call's own. What looks like a secret is read when it is asked for."""
        return _copied(self.user)

    def key(self) -> ApiKey:
        """The key with its owner, as rows of this call's own."""
        key: ApiKey = _copied(self.row)
        key.owner = self.owner()
        return key


def _copied(row: Any, columns: Collection[str] | None = None) -> Any:
    """A row like this one, with all or some of its columns and nothing that was fetched besides.

    Much faster than `from_db`, and as `copy.copy` of a row would be but for columns that can be changed
    in place, of which each row has its own.
    """
    model: Any = type(row)
    values = row.__dict__
    made = model.__new__(model)
    state = made._state = ModelState()
    state.adding, state.db = False, row._state.db
    for name in columns or values:
        value = values[name]
        if name != "_state":
            made.__dict__[name] = value if type(value) not in MUTABLE else deepcopy(value)
    return made


nearby = Memory[KnownKey](MOST)
"""What this process knows; the group is a key's last characters, which its text and its row have."""


class Reading(NamedTuple):
    """What the text of a key says, and the digests by pepper that its row may have."""

    environment: str
    digests: dict[str, bytes]


readings = Memory[Reading](MOST)
"""Of the texts of keys that there are, each worked out once; whether a key serves is not among it."""

unchanged = Memory[KnownKey](MOST)
"""What was worked out of rows, by their fingerprint: true of a row that is read again and is the same."""


def name_of(text: str) -> bytes:
    """By what this process knows a key: nothing that could be sent in its place."""
    return blake2b(text.encode("utf-8", "replace")).digest()


def shared(name: bytes, digest: bytes, *, ticket: Ticket) -> KnownKey | None:
    """What the processes know together, if that is young enough; this one then knows it too."""
    if not may_remember():
        return None
    known = _read(cache.get_shared(_place(digest)))
    if known is not None:
        nearby.keep(name, known, ticket)
    return known


def begin_to_read(text: str) -> Ticket:
    """To be had before the row of a key is read."""
    return nearby.ticket(text[-LAST_SHOWN:], seconds=settings.cache_seconds - SLACK)


def remember(name: bytes, digest: bytes, known: KnownKey, *, ticket: Ticket) -> None:
    """Keep what was read from the database with the ticket."""
    if not may_remember():
        return
    nearby.keep(name, known, ticket)
    # Who was slow may hold rows from before a change that the others have forgotten by now.
    is_quick = ticket.seconds_left > settings.cache_seconds - 2 * SLACK
    if is_quick and not cache.is_paused and (text := _written(known)):
        with suppress(CacheUnavailable):  # logged there, and then the database is asked
            # Never over what is there: that may be the mark of a change.
            cache.add(_place(digest), text, settings.cache_seconds)


def forget(key: ApiKey) -> None:
    """Believe nothing about the key any more: now, and again when the open transaction has committed."""
    _forget_now(key)
    if connection.in_atomic_block:
        transaction.on_commit(lambda: _forget_now(key), robust=True)


def may_remember() -> bool:
    """Not in a transaction, which may see what never comes to be."""
    return bool(settings.cache_seconds) and not is_in_transaction()


def is_in_transaction() -> bool:
    """Whether there is a transaction that may have changed something."""
    # The one round a whole request has only begun, and has written nothing of its own.
    return connection.in_atomic_block and (
        not connection.settings_dict["ATOMIC_REQUESTS"] or bool(connection.savepoint_ids)
    )


def _forget_now(key: ApiKey) -> None:
    nearby.forget(key.last4)
    # A mark and no deletion: a process that read the rows before would put them back.
    cache.set(_place(bytes(key.digest)), CHANGED, 2 * settings.cache_seconds + 5)


def _place(digest: bytes) -> str:
    return f"svc:apikey:{digest.hex()}"


def _written(known: KnownKey) -> str | None:
    rows = [_texts(known.row), _texts(known.user)]
    try:
        return orjson.dumps([time(), known.row._state.db, *rows]).decode()
    except TypeError:  # a column of the project's that has no text: the database is asked each time
        return None


def _texts(row: models.Model) -> list[Any]:
    fields = map(row._meta.get_field, shown(type(row)))
    return [
        None if getattr(row, field.attname) is None else field.value_to_string(row)  # type: ignore[union-attr]
        for field in fields
    ]


def _read(text: Any) -> KnownKey | None:
    if not isinstance(text, str) or text == CHANGED:
        return None
    try:
        read_at, database, key_texts, owner_texts = orjson.loads(text)
        # The cache drops it in time; this is for a writer that stood still between reading and writing.
        if not -SLACK <= time() - read_at <= settings.cache_seconds + 1:
            return None
        key = _row(ApiKey, database, key_texts)
        key.owner = _row(get_user_model(), database, owner_texts)
        return KnownKey.of(key)
    except (ValueError, TypeError, ValidationError):  # of another version of the code, or of the tables
        return None


def _row(model: type[models.Model], database: str, texts: list[Any]) -> Any:
    names = shown(model)
    fields = (model._meta.get_field(name) for name in names)
    values = [
        None if text is None else field.to_python(text)  # type: ignore[union-attr]
        for field, text in zip(fields, texts, strict=True)
    ]
    return model.from_db(database, names, values)


@once
def shown(model: type[models.Model]) -> tuple[str, ...]:
    """The columns that may be remembered: all but what looks like a secret."""
    return tuple(
        field.attname
        for field in model._meta.concrete_fields
        if field.attname != "digest" and not is_secret_name(field.attname)
    )


def _forget_everything(*, setting: str, **_: Any) -> None:
    if setting in ("SVC_INFRA", "SECRET_KEY", "SECRET_KEY_FALLBACKS", "AUTH_USER_MODEL", "CACHES"):
        for memory in (nearby, readings, unchanged):
            memory.clear()
        shown.cache_clear()


setting_changed.connect(_forget_everything, dispatch_uid="svc_infra_django.apikeys.remembering")

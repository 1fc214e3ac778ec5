"""Tags: names under which values are forgotten together, without looking for them.

Each tag has a stamp in the cache, a random text. A value is kept with the stamps that its tags had
before it was computed, and counts only while they are still the same; to invalidate a tag is to change
its stamp. So a value that was computed from old rows while the tag was invalidated is never used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from secrets import token_hex

from asgiref.sync import sync_to_async
from django.db import DEFAULT_DB_ALIAS, connections, transaction

from .backends import cache
from .errors import CacheUnavailable
from .keys import portable

STAMP_SECONDS = 7 * 24 * 3600


def invalidate(*tags: str, using: str = DEFAULT_DB_ALIAS) -> None:
    """Forget every value under `tags`: now, or when the transaction open on `using` commits.

    Until the commit, this transaction computes such values anew and keeps none of them. If the cache is
    out, it is logged, and the values live until their time is over.
    """
    forget = _Invalidation(tags)
    if connections[using].in_atomic_block:
        transaction.on_commit(forget, using=using, robust=True)
    else:
        forget()


ainvalidate = sync_to_async(invalidate)


def pending(using: str = DEFAULT_DB_ALIAS) -> frozenset[str]:
    """Tags that the transaction open on `using` will invalidate when it commits."""
    waiting = connections[using].run_on_commit
    return frozenset(
        tag for _, action, *_ in waiting if isinstance(action, _Invalidation) for tag in action.tags
    )


def stamp_key(tag: str) -> str:
    """Where the stamp of a tag is kept."""
    return f"svc:tag:{portable(tag)}"


def current_stamps(tags: Sequence[str], found: Mapping[str, str]) -> list[str] | None:
    """The stamps of `tags` among cached values `found`; None if one is missing."""
    stamps = [found.get(stamp_key(tag)) for tag in tags]
    return None if None in stamps else [str(stamp) for stamp in stamps]


def ensured_stamps(tags: Iterable[str], found: Mapping[str, str]) -> list[str] | None:
    """As `current_stamps`, making those that are missing; None if the cache is out."""
    stamps = []
    for tag in tags:
        stamp = found.get(stamp_key(tag)) or _made(stamp_key(tag))
        if not stamp:
            return None
        stamps.append(stamp)
    return stamps


def _made(key: str) -> str | None:
    stamp = token_hex(8)
    if cache.is_paused:
        return None
    try:
        is_ours = cache.add(key, stamp, STAMP_SECONDS)
    except CacheUnavailable:
        return None
    return stamp if is_ours else cache.get(key)


class _Invalidation:
    """A class, so that the open transaction can be asked which tags wait in it."""

    def __init__(self, tags: Iterable[str]) -> None:
        self.tags = tuple(tags)

    def __call__(self) -> None:
        # Deleted, not replaced: the old stamp never comes back, and an idle tag leaves nothing behind.
        cache.delete_many([stamp_key(tag) for tag in self.tags])

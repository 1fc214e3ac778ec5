"""Whose rights this process knows, and how it learns that they have changed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Lock
from time import monotonic
from typing import Any
from uuid import UUID

from django.contrib.auth import get_user_model
from django.db import connections, router, transaction
from django.utils import timezone

from ...identifiers import uuid7_at
from ...observability.metrics import metrics
from ...principals import ANSWERS
from ..conf import settings
from ..models import Assignment, Role, RoleChange, RolePermission
from .deciding import NOTHING, Held, Rights, Scope

LONGEST_MEMORY = 60.0
"""Seconds after which rights are read again in any case, and how far back changes are looked for."""

MANY_CHANGES = 1000


@dataclass(slots=True)
class Known:
    """Rights, and until when they need no second look (on the monotonic clock)."""

    rights: Rights
    fresh_until: float
    verdicts: dict[str, bool | None]
    """Those of `rights` that were asked for, everywhere."""

    changing: tuple[_Drop, ...] = ()
    """What the open transaction had changed when they were read; elsewhere they are not believed."""


def rights_of(user: Any, *, now: datetime | None = None) -> Rights:
    """The user's rights. Nobody who is anonymous or disabled has any.

    Within `recheck_seconds` they come from the user object or this process's memory. After that one small
    query asks for changes, for all users together; the rights are read again, in one query, if theirs have
    changed, a grant of theirs has ended, or nothing is known of them.
    """
    if not user.is_active:
        return NOTHING
    # In the object itself: a user who is not read yet need not be read for this.
    known: Known | None = user.__dict__.get(ANSWERS)
    if known is not None and known.fresh_until > monotonic() and now is None:
        return known.rights
    if user.is_anonymous or user.pk is None:
        return NOTHING
    if changing := _changing():
        return _rights_meanwhile(user, known, changing, now=now)
    now = now or timezone.now()
    rights, seconds = _memory.rights(user, now)
    if rights.good_until is not None:
        seconds = min(seconds, (rights.good_until - now).total_seconds())
    user.__dict__[ANSWERS] = Known(rights, monotonic() + seconds, rights.verdicts)
    return rights


def _rights_meanwhile(
    user: Any, known: Known | None, changing: tuple[_Drop, ...], *, now: datetime | None
) -> Rights:
    """The rights in a transaction that has changed some, and may still take that back."""
    if known is not None and known.changing == changing and now is None:
        return known.rights
    rights = Rights(held_by(user, now=now or timezone.now()))
    user.__dict__[ANSWERS] = Known(rights, float("-inf"), {}, changing)
    return rights


def has_ended(rights: Rights, now: datetime) -> bool:
    """Whether a grant has ended since the rights were read."""
    return rights.good_until is not None and rights.good_until <= now


def forget(user: Any, change: RoleChange) -> None:
    """Read the rights of this user, or of everybody, again: here at once, elsewhere by the row of the change.

    Until the open transaction commits, other threads go on with what is true for them.
    """
    keys = None if user is None else (str(user.pk),)
    for each in () if user is None else (user, user.__dict__.get("_wrapped")):
        known = getattr(each, "__dict__", {}).pop(ANSWERS, None)
        if known is not None:
            known.fresh_until = float("-inf")  # a Principal may have it too
    transaction.on_commit(_Drop(keys, change.pk), using=router.db_for_write(RoleChange))


@dataclass(frozen=True, slots=True)
class _Drop:
    """What is to be done about a change when it is committed; until then it waits in the connection."""

    keys: tuple[str, ...] | None
    change: UUID

    def __call__(self) -> None:
        _memory.drop(self.keys, {self.change})


def _changing() -> tuple[_Drop, ...]:
    """What the open transaction has changed of roles and grants. A rollback takes it from here too."""
    waiting: Any = connections[router.db_for_write(RoleChange)].run_on_commit
    return tuple(entry[1] for entry in waiting if isinstance(entry[1], _Drop)) if waiting else ()


def forget_everything() -> None:
    """Begin with an empty memory, as after a change that no row tells of. User objects keep their copy."""
    global _memory
    _memory = _Memory()


class _Memory:
    """Rights by user, the least used forgotten first.

    A generation is read before the rows are and checked before they are kept: what was dropped in between
    may have changed under the reader's eyes.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._asking = Lock()
        self._entries: OrderedDict[str, tuple[float, Rights]] = OrderedDict()
        self._generation = 0
        self._asked_at = float("-inf")
        self._seen: set[UUID] = set()

    def rights(self, user: Any, now: datetime) -> tuple[Rights, float]:
        """The rights, and for how many seconds the caller need not ask again."""
        recheck = settings.recheck_seconds
        if connections[router.db_for_write(Assignment)].in_atomic_block:
            # What it sees may be old.
            return Rights(held_by(user, now=now)), recheck
        key = str(user.pk)
        with self._lock:
            generation, entry = self._generation, self._entries.get(key)
        if entry is not None and monotonic() - max(self._asked_at, entry[0]) >= recheck:
            self._ask()
            with self._lock:
                generation, entry = self._generation, self._entries.get(key)
        if entry is not None:
            read_at, rights = entry
            if monotonic() - read_at < LONGEST_MEMORY and not has_ended(rights, now):
                with self._lock:
                    if key in self._entries:
                        self._entries.move_to_end(key)
                return rights, max(0.0, max(self._asked_at, read_at) + recheck - monotonic())
        metrics.increment("rbac.rights_read")
        read_at = monotonic()
        rights = Rights(held_by(user, now=now))
        with self._lock:
            if self._generation == generation:
                self._entries[key] = (read_at, rights)
                self._entries.move_to_end(key)
                if len(self._entries) > settings.max_rights:
                    self._entries.popitem(last=False)
        return rights, recheck

    def drop(self, keys: Iterable[str] | None, seen: Iterable[UUID] = ()) -> None:
        with self._lock:
            self._generation += 1
            if len(self._seen) > MANY_CHANGES:
                self._seen.clear()  # they are looked at once more
            self._seen.update(seen)
            if keys is None:
                self._entries.clear()
            else:
                for key in keys:
                    self._entries.pop(key, None)

    def _ask(self) -> None:
        """Drop whoever a change concerns that this process has not seen; one thread asks for all."""
        with self._asking:
            asked_at = monotonic()
            if asked_at - self._asked_at < settings.recheck_seconds:
                return
            # Changes are found by when they were written, which may be long before they were committed.
            since = uuid7_at(timezone.now() - timedelta(seconds=LONGEST_MEMORY))
            changes = RoleChange.objects.using(router.db_for_write(RoleChange)).filter(id__gte=since)
            rows = list(changes.order_by("-id").values_list("id", "user_key")[:MANY_CHANGES])
            with self._lock:
                new = [user_key for id, user_key in rows if id not in self._seen]
                self._seen = {id for id, _ in rows}
            if new:
                self.drop(None if "" in new or len(rows) == MANY_CHANGES else new)
            self._asked_at = asked_at


_memory = _Memory()

HELD = """
WITH RECURSIVE direct (tenant, object_type, object_id, expires_at, role_id) AS (
    {direct}
), given (tenant, object_type, object_id, expires_at, role_id) AS (
    SELECT direct.* FROM direct JOIN {role} r ON r.id = direct.role_id
    WHERE (direct.expires_at IS NULL OR direct.expires_at > %s) AND r.tenant IN ('', direct.tenant)
    UNION
    SELECT given.tenant, given.object_type, given.object_id, given.expires_at, r.id
    FROM given
    JOIN {includes} i ON i.from_role_id = given.role_id
    JOIN {role} r ON r.id = i.to_role_id AND r.tenant IN ('', given.tenant)
)
SELECT p.pattern, p.denies, given.tenant, given.object_type, given.object_id, given.expires_at
FROM given JOIN {permission} p ON p.role_id = given.role_id
"""

DIRECT = """
    SELECT a.tenant, a.object_type, a.object_id, a.expires_at, a.role_id
    FROM {assignment} a WHERE a.user_id = %s
"""

THROUGH_GROUPS = """
    UNION ALL
    SELECT a.tenant, a.object_type, a.object_id, a.expires_at, a.role_id
    FROM {membership} m JOIN {assignment} a ON a.group_id = m.group_id WHERE m.{user} = %s
"""


def held_by(user: Any, *, now: datetime) -> list[Held]:
    """Read all that live grants give the user and their groups, through every role included, in one query.

    SQL by hand, because Django's queries cannot follow a hierarchy.
    """
    # Where the rows are written: what a copy that lags behind still has would be believed for a minute.
    connection = connections[router.db_for_write(Assignment)]
    quoted = connection.ops.quote_name
    model = get_user_model()
    key = model._meta.pk.get_db_prep_value(user.pk, connection)
    direct, parameters = DIRECT, [key]
    names = {
        "assignment": quoted(Assignment._meta.db_table),
        "role": quoted(Role._meta.db_table),
        "permission": quoted(RolePermission._meta.db_table),
        "includes": quoted(Role.includes.through._meta.db_table),
    }
    groups = getattr(model, "groups", None)
    if groups is not None:  # a user model without PermissionsMixin has none
        direct, parameters = DIRECT + THROUGH_GROUPS, [key, key]
        names["membership"] = quoted(groups.through._meta.db_table)
        names["user"] = quoted(groups.field.m2m_column_name())
    query = HELD.format(direct=direct.format(**names), **names)
    with connection.cursor() as cursor:
        cursor.execute(query, [*parameters, connection.ops.adapt_datetimefield_value(now)])
        rows = cursor.fetchall()
    return [
        Held(pattern, Scope(tenant, object_type, object_id), _moment(expires_at, connection), bool(denies))
        for pattern, denies, tenant, object_type, object_id, expires_at in rows
    ]


def _moment(value: Any, connection: Any) -> datetime | None:
    # SQLite gives text back, PostgreSQL a datetime.
    field: Any = Assignment._meta.get_field("expires_at")
    for convert in connection.ops.get_db_converters(field.get_col("given")):
        value = convert(value, field, connection)
    moment: datetime | None = value
    return moment

"""What a user's roles permit: one query, then look-ups in sets."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from django.db.models import Model

from ...principals import covered

ANSWERS_KEPT = 10_000


class Scope(NamedTuple):
    """Where a grant counts, or where a question is asked: everywhere, in a tenant, about an object."""

    tenant: str = ""
    object_type: str = ""
    object_id: str = ""

    @property
    def is_object(self) -> bool:
        return bool(self.object_type)

    def counts_in(self, asked: Scope) -> bool:
        """Whether a grant here answers a question there."""
        return self.tenant in ("", asked.tenant) and (not self.object_type or self[1:] == asked[1:])

    def meets(self, given: Scope) -> bool:
        """Whether something lies in both: a denial here takes from what is given there."""
        return ("" in (self.tenant, given.tenant) or self.tenant == given.tenant) and (
            not (self.object_type and given.object_type) or self[1:] == given[1:]
        )

    def __str__(self) -> str:
        about = f"on {self.object_type} {self.object_id}" if self.object_type else ""
        within = f"in the tenant {self.tenant!r}" if self.tenant else ""
        return " ".join(filter(None, (about, within))) or "everywhere"


EVERYWHERE = Scope()


def scope_of(obj: Any) -> Scope | None:
    """Where a question about `obj` is asked; None where roles have nothing to say of it.

    A model instance is an object, of its `tenant` if it has one that is text. Anything else with such a
    `tenant` (a Principal) stands for the tenant.
    """
    if obj is None:
        return EVERYWHERE
    if isinstance(obj, Scope):
        return obj
    is_row = isinstance(obj, Model)
    tenant = getattr(obj, "tenant", "" if is_row else None)
    if not isinstance(tenant, str):
        return None
    if not is_row or obj.pk is None:
        return Scope(tenant)
    return Scope(tenant, type_of(type(obj)), str(obj.pk))


def scope_of_grant(given: Any) -> Scope:
    """Where an Assignment counts."""
    return Scope(given.tenant, given.object_type, given.object_id)


def type_of(model: type[Model]) -> str:
    """How grants name a model: `orders.order`. A proxy is its concrete model."""
    return str((model._meta.concrete_model or model)._meta.label_lower)


@dataclass(frozen=True, slots=True)
class Held:
    """One permission or wildcard that a user holds, or is denied, through a role."""

    pattern: str
    scope: Scope = EVERYWHERE
    expires_at: datetime | None = None
    denies: bool = False


class Rights:
    """All that a user's roles permit, compiled for look-ups whose cost does not grow with it."""

    __slots__ = ("_everywhere", "_scopes", "good_until", "held", "verdicts")

    def __init__(self, held: Iterable[Held] = ()) -> None:
        self.held = tuple(held)
        self.good_until: datetime | None = min(
            (one.expires_at for one in self.held if one.expires_at is not None), default=None
        )
        """When the first grant ends and the rights must be read again."""

        self._scopes = _Scopes(self.held)
        self._everywhere = self._scopes[EVERYWHERE]
        self.verdicts = self._everywhere.known
        """What was asked before and is so everywhere; ask `verdict` for the rest."""

    def allow(self, permission: str, scope: Scope = EVERYWHERE) -> bool:
        """Whether a pattern covers `permission` there (`principals.covered`) and none denies it."""
        if scope is EVERYWHERE:  # to hash it would take longer than all the rest
            try:
                return self.verdicts[permission] is True
            except KeyError:
                pass
        return self.verdict(permission, scope) is True

    def deny(self, permission: str, scope: Scope = EVERYWHERE) -> bool:
        """Whether a role takes it away, whatever gives it."""
        return self.verdict(permission, scope) is False

    def verdict(self, permission: str, scope: Scope = EVERYWHERE) -> bool | None:
        """True where it is allowed, False where it is denied, None where roles do not speak of it."""
        answers = self._everywhere if scope is EVERYWHERE else self._scopes[scope]
        try:
            return answers.known[permission]
        except KeyError:
            return answers.worked_out(permission)

    def patterns(self, scope: Scope = EVERYWHERE) -> frozenset[str]:
        """Permissions and wildcards that count there, before what is denied is taken away."""
        return self._scopes[scope].allowed


class _Answers:
    """True (allowed), False (denied) or None (not given) for each permission; each is worked out once."""

    __slots__ = ("allowed", "denied", "known")

    def __init__(self, allowed: frozenset[str], denied: frozenset[str]) -> None:
        self.allowed = allowed
        self.denied = denied
        # A plain dict: a subclass with __missing__ takes twice as long.
        self.known: dict[str, bool | None] = {}

    def worked_out(self, permission: str) -> bool | None:
        answer: bool | None = None
        if self.denied and takes_from(self.denied, permission):
            answer = False
        elif not self.allowed.isdisjoint(covering(permission)):
            answer = True
        if len(self.known) >= ANSWERS_KEPT:
            self.known.clear()  # whoever asks for names that they make up gets no memory for it
        self.known[permission] = answer
        return answer


class _Scopes(dict[Scope, _Answers]):
    """The answers of each scope that a grant names; a question about any other one is that of its tenant."""

    __slots__ = ("_held", "_objects", "_tenants")

    def __init__(self, held: Collection[Held]) -> None:
        super().__init__()
        self._held = held
        self._tenants = {one.scope.tenant for one in held}
        self._objects = {one.scope[1:] for one in held if one.scope.is_object}

    def __missing__(self, asked: Scope) -> _Answers:
        tenant = asked.tenant if asked.tenant in self._tenants else ""
        known = Scope(tenant, *asked[1:]) if asked[1:] in self._objects else Scope(tenant)
        if known in self:
            return self[known]
        here = [one for one in self._held if one.scope.counts_in(known)]
        self[known] = answers = _Answers(
            frozenset(one.pattern for one in here if not one.denies),
            frozenset(one.pattern for one in here if one.denies),
        )
        return answers


def covering(permission: str) -> Iterator[str]:
    """Every pattern that covers the permission: `a.b.c` is covered by itself, `*`, `a.*` and `a.b.*`."""
    yield permission
    yield "*"
    dot = permission.find(".")
    while dot >= 0:
        yield f"{permission[:dot]}.*"
        dot = permission.find(".", dot + 1)


def takes_from(denied: Collection[str], pattern: str) -> bool:
    """Whether one of `denied` covers `pattern` or, if that is a wildcard, anything below it."""
    if not set(denied).isdisjoint(covering(pattern)):
        return True
    return pattern.endswith("*") and any(covered(each, [pattern]) for each in denied)


NOTHING = Rights()

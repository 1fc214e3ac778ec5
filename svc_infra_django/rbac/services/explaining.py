"""Why somebody may, or what they lack."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Q
from django.utils import timezone

from ...principals import TEST_TENANT, Principal, covered
from ..models import Assignment, Role, RolePermission
from .checking import allowed_elsewhere, roles_answer, with_included
from .deciding import EVERYWHERE, Scope, covering, scope_of, scope_of_grant

MODEL_BACKEND = "django.contrib.auth.backends.ModelBackend"


@dataclass(frozen=True, slots=True)
class Link:
    """One step of the way from a user to a permission."""

    kind: str
    """`user`, `superuser`, `group`, `backend`, `role`, `granted`, `pattern`, `denied` or `permission`."""

    name: str
    """Blank where whoever asked may not know it."""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}".strip()


@dataclass(frozen=True, slots=True)
class Explanation:
    """The answer, and the way to it: the links that lead to yes, or the link that is missing."""

    allowed: bool
    path: tuple[Link, ...]
    missing: str = ""

    def __str__(self) -> str:
        if self.allowed:
            return "allowed: " + " → ".join(str(link) for link in self.path)
        return f"denied: {self.missing}"


@dataclass(frozen=True, slots=True)
class Way:
    """From one grant, through the roles that lead on from it, to a pattern that covers the permission."""

    grant: Assignment
    roles: tuple[str, ...]
    pattern: str
    denies: bool

    @property
    def scope(self) -> Scope:
        return scope_of_grant(self.grant)

    def speaks_of(self, permission: str) -> bool:
        """Whether the pattern covers it, or denies something below it."""
        is_below = self.denies and permission.endswith("*") and covered(self.pattern, [permission])
        return is_below or covered(permission, [self.pattern])

    def links(self, *, is_own: bool, names_roles: bool) -> tuple[Link, ...]:
        group, (first, *others) = self.grant.group, self.roles
        place = "" if self.scope == EVERYWHERE else str(self.scope)
        return (
            *([Link("group", group.name if is_own or names_roles else "")] if group else []),
            Link("role", first if is_own or names_roles else ""),
            *([Link("granted", place)] if place else []),
            *(Link("role", name if names_roles else "") for name in others),
            Link("denied" if self.denies else "pattern", self.pattern),
        )


def explain(
    user: Any,
    permission: str,
    *,
    obj: Any = None,
    tenant: str = "",
    scopes: Collection[str] | None = None,
    asked_by: Principal | None = None,
    now: datetime | None = None,
) -> Explanation:
    """Say why `user` may do it in `tenant`, or to `obj`, reading the rows anew and compiling nothing.

    It looks as `Principal.can` does: the scopes of the credential if there are any, superuser, what roles
    deny, Django's own permissions and other backends, then what roles give. `asked_by` is told no more than
    they may know: names of roles and groups that are not theirs only with `svc_rbac.view_role`, and of
    somebody else no grant in another tenant, nor, within a tenant, what they are called. Without it, all is
    told.
    """
    now = now or timezone.now()
    is_own = asked_by is not None and asked_by.user.pk == user.pk
    names_roles = asked_by is None or asked_by.can("svc_rbac.view_role")
    # Staff of a tenant make anybody one of theirs by an id, and that must be no way to everybody's name.
    is_known = asked_by is None or is_own or not asked_by.tenant
    start, goal = Link("user", str(user if is_known else user.pk)), Link("permission", permission)
    asked = scope_of(obj) if obj is not None else Scope(tenant)

    def no(missing: str, *links: Link) -> Explanation:
        return Explanation(False, (start, *links), missing)

    def yes(*links: Link) -> Explanation:
        return Explanation(True, (start, *links, goal))

    if scopes is not None and not covered(permission, scopes):
        return no("No scope of this credential covers it.")
    if not user.is_active:
        return no("The user is disabled.")
    homes = {tenant} if tenant.startswith(TEST_TENANT) else {"", tenant}
    if asked is not None and tenant and asked.tenant not in homes:
        return no("It belongs to another tenant.")
    if user.is_superuser:
        return yes(Link("superuser", "yes"))

    asked = asked or EVERYWHERE
    ways = list(_ways(user, permission)) if roles_answer() else []
    if asked_by is not None and not is_own:
        ways = [way for way in ways if way.grant.tenant in ("", tenant)]
    live = [way for way in ways if way.grant.expires_at is None or way.grant.expires_at > now]
    denial, gift = judged(live, asked, Scope(tenant))
    if denial is not None:
        name = repr(denial.roles[0]) if is_own or names_roles else "of theirs"
        return no(f"The role {name} denies it.", *denial.links(is_own=is_own, names_roles=names_roles))
    # A fresh copy, so that permissions cached on the caller's object do not speak for the rows.
    backend = allowed_elsewhere(user._meta.model._default_manager.get(pk=user.pk), permission)
    if backend:
        return yes(*_django_links(user, permission, backend, is_named=is_own or names_roles))
    if gift is not None:
        return yes(*gift.links(is_own=is_own, names_roles=names_roles))
    if not roles_answer():
        return no("Roles are not asked: RoleBackend is not in AUTHENTICATION_BACKENDS.")
    hindrances = [_hindrance(way, now) for way in ways if not way.denies and (is_own or names_roles)]
    return no(" ".join(dict.fromkeys(hindrances)) or _nothing_granted(permission, tenant, names_roles))


def judged(ways: Sequence[Way], asked: Scope, home: Scope) -> tuple[Way | None, Way | None]:
    """The first way that denies and the first that gives, where it is asked; denials count at home too."""
    here = [way for way in ways if way.scope.counts_in(asked)]
    denials = (way for way in ways if way.denies and (way in here or way.scope.counts_in(home)))
    return next(denials, None), next((way for way in here if not way.denies), None)


def _ways(user: Any, permission: str) -> Iterator[Way]:
    """Every way from the user's grants to a pattern that covers the permission, shorter ways first."""
    theirs = Q(user_id=user.pk)
    if hasattr(user, "groups"):
        theirs |= Q(group__in=user.groups.all())
    grants = list(
        Assignment.objects.filter(theirs).select_related("role", "group").order_by("created_at", "id")
    )
    reached = with_included(grant.role_id for grant in grants)
    roles = Role.objects.in_bulk(reached)
    below: dict[Any, list[Any]] = {}
    for link in Role.includes.through.objects.filter(from_role_id__in=reached).order_by("id"):
        below.setdefault(link.from_role_id, []).append(link.to_role_id)
    said: dict[Any, list[tuple[str, bool]]] = {}
    for each in RolePermission.objects.filter(role_id__in=reached).order_by("pattern"):
        said.setdefault(each.role_id, []).append((each.pattern, each.denies))
    for grant in grants:
        seen = {grant.role_id}
        waiting: list[tuple[Any, tuple[str, ...]]] = [(grant.role_id, (roles[grant.role_id].name,))]
        for key, names in waiting:
            if roles[key].tenant not in ("", grant.tenant):
                continue
            found = (Way(grant, names, pattern, denies) for pattern, denies in said.get(key, ()))
            yield from (way for way in found if way.speaks_of(permission))
            for other in below.get(key, ()):
                if other not in seen:
                    seen.add(other)
                    waiting.append((other, (*names, roles[other].name)))


def _hindrance(way: Way, now: datetime) -> str:
    expires_at = way.grant.expires_at
    if expires_at is not None and expires_at <= now:
        return f"The grant of the role {way.roles[0]!r} ended at {expires_at.isoformat()}."
    return f"The role {way.roles[0]!r} is granted {way.scope} only."


def _django_links(user: Any, permission: str, backend: str, *, is_named: bool) -> tuple[Link, ...]:
    app_label, _, codename = permission.partition(".")
    if backend == MODEL_BACKEND:
        wanted = Q(permissions__codename=codename, permissions__content_type__app_label=app_label)
        group = user.groups.filter(wanted).order_by("name").first()
        return () if group is None else (Link("group", group.name if is_named else ""),)
    return (Link("backend", backend),)


def _nothing_granted(permission: str, tenant: str, names_roles: bool) -> str:
    missing = "No role of theirs has it, and Django's own permissions do not give it to them either."
    if not names_roles:
        return missing
    roles = (
        RolePermission.objects.filter(
            pattern__in=list(covering(permission)), denies=False, role__tenant__in={"", tenant}
        )
        .order_by("role__name")
        .values_list("role__name", flat=True)
        .distinct()[:5]
    )
    names = ", ".join(repr(name) for name in roles)
    return f"{missing} Roles that have it: {names}." if names else missing

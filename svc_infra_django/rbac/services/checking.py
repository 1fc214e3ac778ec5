"""Who may do what, to which rows, and who may hand it on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from asgiref.sync import sync_to_async
from django.apps import apps
from django.contrib import auth
from django.contrib.auth import get_permission_codename
from django.core.exceptions import FieldDoesNotExist, PermissionDenied, ValidationError
from django.db import router
from django.db.models import CharField, Model, Q, QuerySet, TextField
from django.utils import timezone

from ...observability.logging import get_logger
from ...principals import Principal, covered
from ..errors import BeyondOwnRights, NotForDelegates
from ..models import Role, RolePermission
from ..querysets import key_of, model_named
from .deciding import NOTHING, Held, Rights, Scope, covering, takes_from, type_of
from .remembering import held_by, rights_of

RowT = TypeVar("RowT", bound=Model)

logger = get_logger("svc_infra_django.rbac")


def check(who: Any, permission: str, obj: Any = None, *, tenant: str = "") -> bool:
    """Whether a user (in `tenant`) or a Principal may do `permission`, to `obj` if there is one.

    The answer of `Principal.can`: scopes of the credential, superuser, denials, Django's own permissions and
    other backends, roles.
    """
    return as_principal(who, tenant).can(permission, obj)


acheck = sync_to_async(check)


def as_principal(who: Any, tenant: str = "") -> Principal:
    """The Principal itself, or one for a user who asks through no credential."""
    return who if isinstance(who, Principal) else Principal(who, "question", tenant=tenant)


def list_objects(who: Any, permission: str, rows: QuerySet[RowT], *, tenant: str = "") -> QuerySet[RowT]:
    """Those of `rows` to which a user (in `tenant`) or a Principal may do it: `check` as a queryset.

    The rows cost one query however many grants there are; the rights are read as for any check. What a
    backend other than roles says of single objects is not in it.
    """
    principal = as_principal(who, tenant)
    user, model = principal.user, rows.model
    if not (user.is_authenticated and user.is_active):
        return rows.none()
    if principal.scopes is not None and not covered(permission, principal.scopes):
        return rows.none()
    has_tenant = _has_tenant(model)
    if principal.is_test and not has_tenant:
        return rows.none()
    if has_tenant and principal.tenant:
        rows = rows.filter(tenant__in={principal.tenant, principal.tenant if principal.is_test else ""})
    if user.is_superuser:
        return rows
    rights = rights_of(user) if roles_answer() else NOTHING
    if principal.tenant and rights.deny(permission, Scope(principal.tenant)):
        return rows.none()
    if has_tenant is None:  # its tenant is nothing that a grant could name
        rights = NOTHING
    if not user.has_perm(permission):
        rows = rows.filter(_where(rights, model, has_tenant, lambda place: rights.allow(permission, place)))
    return rows.exclude(_where(rights, model, has_tenant, lambda place: rights.deny(permission, place)))


def _has_tenant(model: type[Model]) -> bool | None:
    """Whether rows have a tenant that is text; None if what they call so is something else."""
    try:
        field = model._meta.get_field("tenant")
    except FieldDoesNotExist:
        return None if hasattr(model, "tenant") else False
    return True if isinstance(field, (CharField, TextField)) else None


def _where(rights: Rights, model: type[Model], has_tenant: bool | None, holds: Callable[[Scope], bool]) -> Q:
    """The rows for whose scope `holds` is true because a grant names their tenant or themselves."""
    places = [one.scope for one in rights.held]
    kind = type_of(model)
    objects = {place.object_id for place in places if place.object_type == kind}

    def rows(tenant: str) -> list[Any]:
        found = (key_of(model, each) for each in objects if holds(Scope(tenant, kind, each)))
        return [key for key in found if key is not None]

    where = Q(pk__in=rows(""))
    if has_tenant:
        tenants = {place.tenant for place in places} - {""}
        whole = {tenant for tenant in tenants if holds(Scope(tenant))}
        where |= Q(tenant__in=whole)
        for tenant in tenants - whole:
            where |= Q(tenant=tenant, pk__in=rows(tenant))
    return where


def find_object(object_type: str, object_id: str) -> Model | None:
    """The row that a grant names by type and id, or None. Of models without a table of ours there is none."""
    try:
        found: Model | None = model_named(object_type)._default_manager.filter(pk=object_id).first()
    except (LookupError, ValueError, ValidationError):
        return None
    return found


@dataclass(frozen=True, slots=True)
class Effect:
    """What a role gives and takes, with all that it includes."""

    allows: frozenset[str] = frozenset()
    denies: frozenset[str] = frozenset()


NO_EFFECT = Effect()


def effect_of(
    patterns: Iterable[str] = (), denies: Iterable[str] = (), *, includes: Iterable[Any] = ()
) -> Effect:
    """The effect of patterns and included roles (by primary key) together."""
    everything = RolePermission.objects.using(router.db_for_write(RolePermission))
    included = everything.filter(role_id__in=with_included(includes))
    rows = list(included.values_list("pattern", "denies"))
    return Effect(
        frozenset(patterns).union(pattern for pattern, is_denied in rows if not is_denied),
        frozenset(denies).union(pattern for pattern, is_denied in rows if is_denied),
    )


def with_included(roles: Iterable[Any]) -> set[Any]:
    """The primary keys of these roles and of all that they include; one query for each level."""
    # Where they are written: a copy that lags behind does not know yet what a role gives by now.
    links = Role.includes.through.objects.using(router.db_for_write(Role))
    found: set[Any] = set(roles)
    waiting = found
    while waiting:
        below = links.filter(from_role_id__in=waiting).values_list("to_role_id", flat=True)
        waiting = set(below) - found
        found = found | waiting
    return found


def check_widening(
    actor: Any, before: Effect, after: Effect, *, scope: Scope, until: datetime | None = None
) -> None:
    """Raise BeyondOwnRights unless the actor holds all that is given anew and all that is denied no more.

    It must be theirs in `scope`, at least `until` then (None is for ever). None, the project, holds all.
    Raises NotForDelegates for API keys.
    """
    if actor is None:
        return
    refuse_delegates(actor)
    user = user_of(actor)
    # Read now: what the actor lost a moment ago must not be handed on.
    held = held_by(user, now=timezone.now()) if user.is_active and roles_answer() else []
    for pattern in sorted((after.allows - before.allows) | (before.denies - after.denies)):
        if not holds(actor, held, pattern, scope=scope, until=until, excepted=after.denies):
            logger.warning("a grant was refused", permission=pattern, user_id=str(user.pk))
            raise BeyondOwnRights(permission=pattern)


def holds(
    actor: Any,
    held: list[Held],
    pattern: str,
    *,
    scope: Scope,
    until: datetime | None,
    excepted: frozenset[str],
) -> bool:
    """Whether the whole of `pattern`, but for what is `excepted`, is the actor's in `scope` until then.

    `held` is what their roles give and deny.
    What a backend other than roles allows has no end and counts everywhere.
    """
    user = user_of(actor)
    if not user.is_active:
        return False
    if isinstance(actor, Principal) and (
        scope.tenant != actor.tenant or (actor.scopes is not None and not covered(pattern, actor.scopes))
    ):
        return False
    if user.is_superuser:
        return True
    if any(
        one.denies
        and one.scope.meets(scope)
        and takes_from([one.pattern], pattern)
        and not covered(one.pattern, excepted)
        for one in held
    ):
        return False
    above = set(covering(pattern))
    return any(
        not one.denies
        and one.pattern in above
        and one.scope.counts_in(scope)
        and (one.expires_at is None or (until is not None and one.expires_at >= until))
        for one in held
    ) or bool(allowed_elsewhere(user, pattern))


def allowed_elsewhere(user: Any, permission: str) -> str:
    """The dotted path of the first other backend that allows it, or an empty string.

    As in Django, a backend that raises PermissionDenied ends the search.
    """
    if not user.is_active:
        return ""
    for backend in auth.get_backends():
        if getattr(backend, "answers_from_roles", False) or not hasattr(backend, "has_perm"):
            continue
        try:
            if backend.has_perm(user, permission):
                return f"{type(backend).__module__}.{type(backend).__qualname__}"
        except PermissionDenied:
            return ""
    return ""


def roles_answer() -> bool:
    """Whether RoleBackend is among the project's backends."""
    return any(getattr(backend, "answers_from_roles", False) for backend in auth.get_backends())


def refuse_delegates(actor: Any) -> None:
    """Raise NotForDelegates if an API key acts."""
    if isinstance(actor, Principal) and actor.is_delegated:
        raise NotForDelegates()


def user_of(actor: Any) -> Any:
    """The user behind an actor."""
    return actor.user if isinstance(actor, Principal) else actor


def known_permissions() -> set[str]:
    """Every permission that the installed models bring, without asking the database."""
    known = set()
    for model in apps.get_models():
        options = model._meta
        codenames = [get_permission_codename(action, options) for action in options.default_permissions]
        codenames += [codename for codename, _ in options.permissions]
        known |= {f"{options.app_label}.{codename}" for codename in codenames}
    return known

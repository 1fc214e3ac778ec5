"""Roles as an authentication backend: `user.has_perm`, the admin, templates, DRF and Ninja all ask it."""

from __future__ import annotations

from time import monotonic
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.auth.models import Permission
from django.core.exceptions import PermissionDenied

from ..principals import ANSWERS
from .services.deciding import EVERYWHERE, Rights, scope_of
from .services.remembering import Known, rights_of


class RoleBackend:
    """Answers permission questions from the user's roles; signs nobody in, so it knows no `get_user`.

    Put it before ModelBackend in AUTHENTICATION_BACKENDS: what a role denies is then denied, whatever
    Django's own permissions say. About a model instance the grants count that hold everywhere, in its
    `tenant`, and for itself; anything else with a `tenant` stands for the tenant.
    """

    answers_from_roles = True

    def authenticate(self, request: Any, **credentials: Any) -> None:
        """Nobody: Django asks every backend."""
        return None

    async def aauthenticate(self, request: Any, **credentials: Any) -> None:
        """As `authenticate`."""
        return None

    def has_perm(self, user_obj: Any, perm: str, obj: Any = None) -> bool:
        """Raises PermissionDenied where a role denies it, so that no backend behind this one is asked."""
        verdict = self.verdict(user_obj, perm, obj)
        if verdict is False:
            raise PermissionDenied
        return verdict is True

    def verdict(self, user_obj: Any, perm: str, obj: Any = None) -> bool | None:
        """True where a role permits it, False where one denies it, None where roles do not speak of it.

        `Principal.can` asks this first where the backend is the project's first.
        """
        if obj is None:
            known: Known | None = user_obj.__dict__.get(ANSWERS)
            if known is not None and known.fresh_until > monotonic() and user_obj.is_active:
                try:
                    return known.verdicts[perm]
                except KeyError:
                    pass
        scope = scope_of(obj)
        return None if scope is None else rights_of(user_obj).verdict(perm, scope)

    def denies(self, user_obj: Any, perm: str, obj: Any = None) -> bool:
        """Whether a role takes it from the user, whatever gives it. From superusers nothing is taken."""
        scope = scope_of(obj)
        return scope is not None and not user_obj.is_superuser and rights_of(user_obj).deny(perm, scope)

    def get_all_permissions(self, user_obj: Any, obj: Any = None) -> set[str]:
        """What the roles permit, with wildcards spelt out as the permissions that exist (one more query)."""
        scope = scope_of(obj)
        if scope is None:
            return set()
        rights = rights_of(user_obj)
        found = {pattern for pattern in rights.patterns(scope) if not pattern.endswith("*")}
        if len(found) < len(rights.patterns(scope)):
            existing = Permission.objects.order_by().values_list("content_type__app_label", "codename")
            found |= {f"{label}.{codename}" for label, codename in existing}
        return {name for name in found if rights.allow(name, scope)}

    def get_group_permissions(self, user_obj: Any, obj: Any = None) -> set[str]:
        """Roles are Django's groups by another name, so this is all of them."""
        return self.get_all_permissions(user_obj, obj)

    def has_module_perms(self, user_obj: Any, app_label: str) -> bool:
        """Whether a role permits anything in the app."""
        rights = rights_of(user_obj)
        return any(_is_of(pattern, app_label, rights) for pattern in rights.patterns())

    ahas_perm = sync_to_async(has_perm)
    aget_all_permissions = sync_to_async(get_all_permissions)
    aget_group_permissions = sync_to_async(get_group_permissions)
    ahas_module_perms = sync_to_async(has_module_perms)


def _is_of(pattern: str, app_label: str, rights: Rights) -> bool:
    if pattern == "*":
        return not rights.deny(f"{app_label}.any", EVERYWHERE)
    return pattern.partition(".")[0] == app_label and (pattern.endswith("*") or rights.allow(pattern))

"""Roles as an authentication backend: `user.has_perm`, the admin, templates, DRF and Ninja all ask it."""

from __future__ import annotations

from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.auth.backends import BaseBackend
from django.contrib.auth.models import Permission

from .services.deciding import rights_of, tenant_of


class RoleBackend(BaseBackend):
    """Answers permission questions from the user's roles; signs nobody in.

    Put it beside ModelBackend in AUTHENTICATION_BACKENDS. The first question costs one query, the
    rest none: the answer is kept on the user object, as ModelBackend keeps its own. An object with
    a `tenant` adds the grants of that tenant to those that hold everywhere; of other objects roles
    say nothing.
    """

    answers_from_roles = True

    def has_perm(self, user_obj: Any, perm: str, obj: Any = None) -> bool:
        tenant = tenant_of(obj)
        return tenant is not None and rights_of(user_obj).allow(perm, tenant=tenant)

    def get_all_permissions(self, user_obj: Any, obj: Any = None) -> set[str]:
        """What the roles permit, with wildcards spelt out as the permissions that exist (one more query)."""
        tenant = tenant_of(obj)
        if tenant is None:
            return set()
        rights = rights_of(user_obj)
        patterns = rights.patterns(tenant)
        found = {pattern for pattern in patterns if not pattern.endswith("*")}
        if len(found) < len(patterns):
            existing = Permission.objects.order_by().values_list("content_type__app_label", "codename")
            found |= {
                name
                for name in (f"{label}.{codename}" for label, codename in existing)
                if rights.allow(name, tenant=tenant)
            }
        return found

    def get_group_permissions(self, user_obj: Any, obj: Any = None) -> set[str]:
        """Roles are Django's groups by another name, so this is all of them."""
        return self.get_all_permissions(user_obj, obj)

    def has_module_perms(self, user_obj: Any, app_label: str) -> bool:
        """Whether a role permits anything in the app."""
        return any(
            pattern == "*" or pattern.partition(".")[0] == app_label
            for pattern in rights_of(user_obj).patterns()
        )

    async def ahas_perm(self, user_obj: Any, perm: str, obj: Any = None) -> bool:
        return await sync_to_async(self.has_perm)(user_obj, perm, obj)

    async def aget_all_permissions(self, user_obj: Any, obj: Any = None) -> set[str]:
        return await sync_to_async(self.get_all_permissions)(user_obj, obj)

    async def aget_group_permissions(self, user_obj: Any, obj: Any = None) -> set[str]:
        return await sync_to_async(self.get_group_permissions)(user_obj, obj)

    async def ahas_module_perms(self, user_obj: Any, app_label: str) -> bool:
        return await sync_to_async(self.has_module_perms)(user_obj, app_label)

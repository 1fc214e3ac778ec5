"""What of the project's settings would leave roles without effect."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.apps import apps
from django.conf import settings as django_settings
from django.contrib.auth import get_permission_codename
from django.core.checks import CheckMessage, Warning

from ..config.checks import register
from ..config.sections import BadSettings
from ..principals import covered
from .conf import settings

BACKEND = "svc_infra_django.rbac.backends.RoleBackend"


@register("svc_infra")
def check_backend(app_configs: Any, **_: Any) -> Iterable[CheckMessage]:
    """W001: roles are granted and nobody asks them."""
    if BACKEND not in django_settings.AUTHENTICATION_BACKENDS:
        yield Warning(
            "Roles have no effect: RoleBackend is not in AUTHENTICATION_BACKENDS.",
            hint=f'Add "{BACKEND}" after ModelBackend. See docs/reference/rbac.md.',
            id="svc_rbac.W001",
        )


@register("svc_infra")
def check_declared_roles(app_configs: Any, **_: Any) -> Iterable[CheckMessage]:
    """W002: a declared role names a permission that no model has."""
    try:
        declared = settings.roles
    except BadSettings:
        return  # svc_config.E002 says what is wrong
    known = known_permissions() if declared else set()
    for name, patterns in declared.items():
        for pattern in patterns:
            if not any(covered(permission, [pattern]) for permission in known):
                yield Warning(
                    f'SVC_INFRA["rbac"]["roles"][{name!r}]: no permission is called {pattern!r}.',
                    hint="Correct the name, or add it to the permissions of a model's Meta.",
                    id="svc_rbac.W002",
                )


def known_permissions() -> set[str]:
    """Every permission that the installed models bring, without asking the database."""
    known = set()
    for model in apps.get_models():
        options = model._meta
        codenames = [get_permission_codename(action, options) for action in options.default_permissions]
        codenames += [codename for codename, _ in options.permissions]
        known |= {f"{options.app_label}.{codename}" for codename in codenames}
    return known

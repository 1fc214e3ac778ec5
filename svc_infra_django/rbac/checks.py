"""What of the project's settings would leave roles without effect."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Warning

from ..config.checks import register
from ..config.sections import BadSettings
from ..principals import covered
from .conf import settings
from .services.checking import known_permissions

BACKEND = "svc_infra_django.rbac.backends.RoleBackend"


@register("svc_infra")
def check_backend(app_configs: Any, **_: Any) -> Iterable[CheckMessage]:
    """W001: roles are granted and nobody asks them."""
    if BACKEND not in django_settings.AUTHENTICATION_BACKENDS:
        yield Warning(
            "Roles have no effect: RoleBackend is not in AUTHENTICATION_BACKENDS.",
            hint=f'Add "{BACKEND}" before ModelBackend. See docs/reference/rbac.md.',
            id="svc_rbac.W001",
        )


@register("svc_infra")
def check_order(app_configs: Any, **_: Any) -> Iterable[CheckMessage]:
    """W003: what a role denies, another backend allows first."""
    backends = list(django_settings.AUTHENTICATION_BACKENDS)
    if BACKEND in backends and backends.index(BACKEND) > 0:
        yield Warning(
            "RoleBackend is not the first of AUTHENTICATION_BACKENDS: what a backend before it allows is "
            "allowed even if a role denies it.",
            hint=f'Put "{BACKEND}" first. It signs nobody in, so logins stay as they are.',
            id="svc_rbac.W003",
        )


@register("svc_infra")
def check_declared_roles(app_configs: Any, **_: Any) -> Iterable[CheckMessage]:
    """W002: a declared role names a permission that no model has."""
    try:
        declared = settings.roles
    except BadSettings:
        return  # svc_config.E002 says what is wrong
    known = known_permissions() if declared else set()
    for name, role in declared.items():
        for pattern in (*role.permissions, *role.denies):
            if not any(covered(permission, [pattern]) for permission in known):
                yield Warning(
                    f'SVC_INFRA["rbac"]["roles"][{name!r}]: no permission is called {pattern!r}.',
                    hint="Correct the name, or add it to the permissions of a model's Meta.",
                    id="svc_rbac.W002",
                )

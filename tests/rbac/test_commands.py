from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from svc_infra_django.rbac import grant
from svc_infra_django.rbac.models import Role


def run(*arguments: str) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue().strip()


def test_sync_roles_says_what_it_did(db: None, svc_settings: Any) -> None:
    svc_settings(rbac={"roles": {"clerk": ("a.b",)}})

    assert run("sync_roles") == "made: clerk"
    assert run("sync_roles") == "Nothing to do: the roles are as declared."


def test_sync_roles_tells_bad_settings(db: None, svc_settings: Any) -> None:
    svc_settings(rbac={"roles": {"clerk": ("nonsense",)}})

    with pytest.raises(CommandError, match="clerk"):
        run("sync_roles")


def test_migrate_syncs_too(db: None, svc_settings: Any) -> None:
    svc_settings(rbac={"roles": {"clerk": ("a.b",)}})

    call_command("migrate", verbosity=0)

    assert Role.objects.get().name == "clerk"


def test_explain_permission_prints_the_path_or_the_missing_link(user: Any, make_role: Any) -> None:
    assert run("explain_permission", "ada", "a.b").startswith("denied: No role of theirs has it")
    grant(user, make_role("clerk", "a.b"), tenant="acme")
    assert run("explain_permission", "ada", "a.b", "--tenant", "acme").startswith(
        "allowed: user ada → role clerk"
    )
    with pytest.raises(CommandError, match="no user"):
        run("explain_permission", "nobody", "a.b")

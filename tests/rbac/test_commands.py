from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from svc_infra_django.rbac import grant
from svc_infra_django.rbac.models import Role, RoleChange


def run(*arguments: str) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue().strip()


def test_sync_roles_says_what_it_did(db: None, svc_settings: Any) -> None:
    svc_settings(rbac={"roles": {"clerk": ("a.b",)}})

    assert run("sync_roles") == "made: clerk"
    assert run("sync_roles") == "Nothing to do: the roles are as declared."
    svc_settings(rbac={"roles": {"clerk": ["a.b"]}, "mirror_groups": True})
    assert run("sync_roles") == "mirrored in a group: clerk"


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


def test_explain_permission_asks_about_an_object(user: Any, make_role: Any) -> None:
    from django.contrib.auth.models import Group

    group = Group.objects.create(name="one")
    grant(user, make_role("keeper", "auth.change_group"), obj=group)

    asked = ("explain_permission", "ada", "auth.change_group", "--object")
    assert f"granted on auth.group {group.pk}" in run(*asked, f"auth.group:{group.pk}")
    for wrong in ("auth.group:0", "auth.group", "no.model:1", "auth.group:x"):
        with pytest.raises(CommandError, match="write it as"):
            run(*asked, wrong)


POLICY = """
[roles.guest]
permissions = ["reports.view_report"]
denies = ["reports.view_secret"]

[roles.boss]
includes = ["clerk", "guest"]

[users.root]
superuser = true

[users.gone]
active = false
permissions = ["auth.view_group"]

[[grants]]
user = "bob"
role = "boss"

[[grants]]
group = "nights"
role = "clerk"
tenant = "acme"

[[grants]]
user = "eve"
role = "clerk"
object = "shop.cart:7"
expires_at = 2001-01-01T00:00:00Z

[users.eve]
groups = ["nights"]
"""

CASES = """
cases = [
    {user = "bob", permission = "orders.add_order", allowed = true},
    {user = "bob", permission = "reports.view_secret", allowed = false},
    {user = "bob", permission = "reports.view_report", allowed = true, tenant = "acme"},
    {user = "bob", permission = "reports.view_report", allowed = false, scopes = ["orders.*"]},
    {user = "eve", permission = "orders.add_order", allowed = true, tenant = "acme"},
    {user = "eve", permission = "orders.add_order", allowed = false},
    {user = "eve", permission = "orders.add_order", allowed = false, object = "shop.cart:7"},
    {user = "root", permission = "a.b", allowed = true},
    {user = "gone", permission = "auth.view_group", allowed = false},
]
"""


@pytest.fixture
def policy(db: None, svc_settings: Any, tmp_path: Any) -> Any:
    svc_settings(rbac={"roles": {"clerk": ("orders.add_order",)}})

    def write(text: str) -> str:
        file = tmp_path / "policy.toml"
        file.write_text(text, encoding="utf-8")
        return str(file)

    return write


def test_a_policy_that_holds_leaves_no_trace(policy: Any) -> None:
    from django.contrib.auth.models import Group, User

    assert run("test_policy", policy(CASES + POLICY)).endswith("9 of 9 cases hold.")

    assert not Role.objects.exists()
    assert not User.objects.exists()
    assert not Group.objects.exists()
    assert not RoleChange.objects.exists()


def test_a_policy_that_does_not_hold_fails_with_every_reason(policy: Any) -> None:
    wrong = CASES.replace("true", "TRUE").replace("false", "true").replace("TRUE", "false")

    with pytest.raises(CommandError) as failed:
        run("test_policy", policy(wrong + POLICY))

    lines = str(failed.value).splitlines()
    assert len(lines) == 9
    assert (
        "bob orders.add_order: should be denied, but allowed: user bob → role boss → role clerk" in lines[0]
    )
    assert lines[1].endswith("should be allowed, but denied: The role 'boss' denies it.")
    assert "ended at 2001-01-01" in lines[6]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("cases = 7", "cases"),
        ("nonsense", "Expected"),
        ('cases = [{user = "x", permission = "a.b", allow = true}]', "allow"),
        ('cases = []\n[[grants]]\nuser = "x"\nrole = "nobody"', "no such role"),
        ('cases = []\n[[grants]]\nrole = "clerk"', "either a user or a group"),
        ('cases = []\n[[grants]]\nuser = "x"\nrole = "clerk"\nobject = "x"', "is no object"),
        ("cases = []\n[roles.clerk]", "exists already"),
        ('cases = []\n[users.x]\npermissions = ["no.such"]', "no permission"),
    ],
)
def test_a_policy_that_is_written_wrongly_is_told(policy: Any, text: str, told: str) -> None:
    with pytest.raises(CommandError, match=told):
        run("test_policy", policy(text))


def test_a_policy_that_is_not_there_is_told(db: None) -> None:
    with pytest.raises(CommandError, match=r"none\.toml"):
        run("test_policy", "none.toml")

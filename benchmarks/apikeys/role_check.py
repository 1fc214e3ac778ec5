"""What one check of a permission costs: `python -m benchmarks.apikeys.role_check WHO HOW RULES ROLES`.

Prints nanoseconds: the quickest of several rounds, because a check is over before the machine is slow.
WHO is ours or a peer, HOW is `rights`, `can`, `has_perm` or `cold`, RULES is how many permissions
the user has, ROLES how many roles there are that are not theirs.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from timeit import repeat
from typing import Any

import django
from django.conf import settings

APPS = ["django.contrib.auth", "django.contrib.contenttypes"]
MODEL_BACKEND = "django.contrib.auth.backends.ModelBackend"
OUR_APPS = ["svc_infra_django.config", "svc_infra_django.observability", "svc_infra_django.rbac"]

SECONDS = 0.5
"""For about how long a check is repeated."""

CASBIN_MODEL = """
[request_definition]
r = sub, act
[policy_definition]
p = sub, act
[role_definition]
g = _, _
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = g(r.sub, p.sub) && r.act == p.act
"""

Check = tuple[str, dict[str, Any]]
"""A statement and its names, so that no call of ours is measured beside it."""


def main(who: str, how: str, rules: int, roles: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        statement, given = CONTENDERS[who](Path(folder), how, rules, roles)
        assert eval(statement, given)  # noqa: S307 - an expression of this file
        number, rounds = 1, 300
        if how != "cold":
            number, taken = 1, 0.0
            while (taken := min(repeat(statement, globals=given, number=number, repeat=3))) < 0.005:
                number *= 2
            rounds = min(100, max(10, int(SECONDS / taken)))
        return min(repeat(statement, globals=given, number=number, repeat=rounds)) / number * 1e9


def frozen_set(folder: Path, how: str, rules: int, roles: int) -> Check:
    return "permission in held", {"held": frozenset(names(rules)), "permission": wanted(rules)}


def ours(folder: Path, how: str, rules: int, roles: int) -> Check:
    prepare(folder, OUR_APPS, ["svc_infra_django.rbac.backends.RoleBackend", MODEL_BACKEND])
    from django.contrib.auth.models import User

    from svc_infra_django.rbac import define_role, grant, rights_of
    from svc_infra_django.rbac.models import Role, RolePermission
    from svc_infra_django.rbac.services.remembering import forget_everything

    others = Role.objects.bulk_create(Role(name=f"other {number}") for number in range(roles))
    RolePermission.objects.bulk_create(
        RolePermission(role=role, pattern=f"others.do_{number}") for role in others for number in range(3)
    )
    user = User.objects.create(username="ada")
    grant(user, define_role("clerk", names(rules)))
    permission = wanted(rules)
    if how == "rights":
        return "allow(permission)", {"allow": rights_of(user).allow, "permission": permission}
    if how == "has_perm":
        return called(lambda: user.has_perm(permission))
    if how == "can":
        from svc_infra_django.principals import Principal

        return "can(permission)", {"can": Principal(user, "jwt").can, "permission": permission}

    def cold() -> bool:
        forget_everything()
        return User(pk=user.pk).has_perm(permission)

    return called(cold)


class Willing:
    """A backend that allows everything and looks at nothing: what Django's loop costs by itself."""

    def has_perm(self, user_obj: Any, perm: str, obj: Any = None) -> bool:
        return True


def willing(folder: Path, how: str, rules: int, roles: int) -> Check:
    prepare(folder, [], ["benchmarks.apikeys.role_check.Willing", MODEL_BACKEND])
    from django.contrib.auth.models import User

    user = User.objects.create(username="ada")
    permission = wanted(rules)
    return called(lambda: user.has_perm(permission))


def model_backend(folder: Path, how: str, rules: int, roles: int) -> Check:
    prepare(folder, [], [MODEL_BACKEND])
    from django.contrib.auth.models import Group, Permission, User
    from django.contrib.contenttypes.models import ContentType

    kind = ContentType.objects.create(app_label="app", model="thing")
    made = Permission.objects.bulk_create(
        Permission(content_type=kind, codename=name.partition(".")[2], name=name) for name in names(rules)
    )
    group = Group.objects.create(name="clerk")
    group.permissions.add(*made)
    user = User.objects.create(username="ada")
    user.groups.add(group)
    permission = wanted(rules)
    if how == "has_perm":
        return called(lambda: user.has_perm(permission))
    return called(lambda: User(pk=user.pk).has_perm(permission))


def guardian(folder: Path, how: str, rules: int, roles: int) -> Check:
    prepare(folder, ["guardian"], [MODEL_BACKEND, "guardian.backends.ObjectPermissionBackend"])
    from django.contrib.auth.models import Group, User
    from guardian.core import ObjectPermissionChecker
    from guardian.shortcuts import assign_perm

    user = User.objects.create(username="ada")
    rows = Group.objects.bulk_create(Group(name=name) for name in names(rules))
    assign_perm("auth.view_group", user, Group.objects.all())
    row = rows[rules // 2]
    if how == "cold":
        return called(lambda: ObjectPermissionChecker(User(pk=user.pk)).has_perm("view_group", row))
    checker = ObjectPermissionChecker(user)
    return called(lambda: checker.has_perm("view_group", row))


def rules_package(folder: Path, how: str, rules: int, roles: int) -> Check:
    prepare(folder, ["rules"], ["rules.permissions.ObjectPermissionBackend", MODEL_BACKEND])
    import rules as package
    from django.contrib.auth.models import Group, User

    user = User.objects.create(username="ada")
    user.groups.add(Group.objects.create(name="clerk"))
    for name in names(rules):
        package.add_perm(name, package.is_group_member("clerk"))
    permission = wanted(rules)
    if how == "cold":
        return called(lambda: User(pk=user.pk, is_active=True).has_perm(permission))
    return called(lambda: user.has_perm(permission))


def casbin(folder: Path, how: str, rules: int, roles: int) -> Check:
    import casbin as package

    model = folder / "model.conf"
    model.write_text(CASBIN_MODEL, encoding="utf-8")
    enforcer = package.Enforcer(str(model))
    enforcer.add_policies([["clerk", name] for name in names(rules)])
    enforcer.add_grouping_policy("ada", "clerk")
    permission = wanted(rules)
    return called(lambda: enforcer.enforce("ada", permission))


CONTENDERS: dict[str, Callable[[Path, str, int, int], Check]] = {
    "frozenset": frozen_set,
    "ours": ours,
    "willing": willing,
    "model-backend": model_backend,
    "guardian": guardian,
    "rules": rules_package,
    "casbin": casbin,
}


def names(rules: int) -> list[str]:
    return [f"app.do_thing_{number}" for number in range(rules)]


def wanted(rules: int) -> str:
    return f"app.do_thing_{rules // 2}"


def called(check: Callable[[], Any]) -> Check:
    return "check()", {"check": check}


def prepare(folder: Path, apps: list[str], backends: list[str]) -> None:
    settings.configure(
        SECRET_KEY="not a secret, and long enough for every check that looks at it",
        USE_TZ=True,
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": folder / "check.sqlite3"}},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=[*APPS, *apps],
        AUTHENTICATION_BACKENDS=backends,
        LOGGING_CONFIG=None,
    )
    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)


if __name__ == "__main__":
    who, how, rules, roles = sys.argv[1:]
    print(main(who, how, int(rules), int(roles)))

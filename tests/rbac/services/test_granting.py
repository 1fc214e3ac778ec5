from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.utils import timezone

from svc_infra_django.errors import ValidationError
from svc_infra_django.events import any_event
from svc_infra_django.principals import Principal
from svc_infra_django.rbac import grant, sync_declared_roles, withdraw
from svc_infra_django.rbac.errors import (
    BeyondOwnRights,
    NotForDelegates,
    NotGranted,
    RoleDeclared,
    RoleOfAnotherTenant,
    RoleRetired,
    RoleUnknown,
)
from svc_infra_django.rbac.events import ROLE_GRANTED, ROLE_WITHDRAWN
from svc_infra_django.rbac.models import Assignment, Role
from svc_infra_django.rbac.services.defining import define_role, remove_role
from tests.conftest import held_up

NOW = timezone.now()
DAY = timedelta(days=1)


@pytest.fixture
def heard() -> Any:
    events: list[Any] = []

    def listen(event: Any, **_: Any) -> None:
        events.append(event)

    any_event.connect(listen)
    yield events
    any_event.disconnect(listen)


def patterns(name: str) -> list[str]:
    return sorted(Role.objects.get(name=name).permissions.values_list("pattern", flat=True))


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_a_grant_that_is_withdrawn_while_it_is_given_again_is_given_anew(user: Any, make_role: Any) -> None:
    grant(user, make_role("clerk"))
    given: list[Assignment] = []

    with transaction.atomic():
        withdraw(user, "clerk")
        granter = held_up(lambda: given.append(grant(user, "clerk", reason="back again")))
    granter.join()

    assert [each.reason for each in given] == ["back again"]
    assert Assignment.objects.get() == given[0]


def test_granting_and_withdrawing_are_told(
    user: Any, stranger: Any, make_role: Any, heard: list[Any]
) -> None:
    stranger.is_superuser = True
    grant(user, make_role("clerk"), tenant="acme", reason="new", actor=stranger)
    withdraw(user, "clerk", tenant="acme", reason="left", actor=stranger)

    assert [event.type for event in heard] == [ROLE_GRANTED, ROLE_WITHDRAWN]
    assert {(event.owner, event.tenant, event.payload.actor_id) for event in heard} == {
        (user, "acme", str(stranger.pk))
    }
    assert [event.payload.reason for event in heard] == ["new", "left"]


def test_granting_the_same_again_changes_and_tells_nothing(
    user: Any, make_role: Any, heard: list[Any]
) -> None:
    role = make_role("clerk")
    first = grant(user, role, expires_at=NOW + DAY)
    assert grant(user, role, expires_at=NOW + DAY) == first

    assert len(heard) == 1
    moved = grant(user, role, expires_at=NOW + 2 * DAY)
    assert (moved.pk, moved.expires_at) == (first.pk, NOW + 2 * DAY)
    assert len(heard) == 2


def test_an_ended_grant_is_given_anew(user: Any, make_role: Any) -> None:
    role = make_role("clerk", "a.b")
    grant(user, role, expires_at=NOW - DAY, now=NOW - 2 * DAY)
    assert not user.has_perm("a.b")

    grant(user, role)

    assert user.has_perm("a.b")


def test_what_cannot_be_granted(user: Any, make_role: Any) -> None:
    role = make_role("clerk", tenant="acme")

    with pytest.raises(RoleUnknown):
        grant(user, "nothing")
    with pytest.raises(RoleUnknown):
        grant(user, "clerk")
    with pytest.raises(RoleOfAnotherTenant):
        grant(user, role)
    with pytest.raises(RoleOfAnotherTenant):
        grant(user, role, tenant="other")
    with pytest.raises(ValidationError):
        grant(user, role, tenant="acme", expires_at=NOW, now=NOW)
    with pytest.raises(ValidationError):
        grant(user, role, tenant="acme", expires_at=NOW + 36_526 * DAY, now=NOW)
    with pytest.raises(NotGranted):
        withdraw(user, role, tenant="acme")


def test_a_tenants_own_role_goes_before_the_projects_of_that_name(user: Any, make_role: Any) -> None:
    make_role("clerk", "a.everywhere")
    own = make_role("clerk", "a.acme", tenant="acme")

    assert grant(user, "clerk", tenant="acme").role == own


def test_an_actor_who_lacks_a_permission_of_the_role_cannot_grant_it(
    user: Any, stranger: Any, make_role: Any
) -> None:
    grant(stranger, make_role("half", "a.b"))
    role = make_role("whole", "a.b", "a.c")

    with pytest.raises(BeyondOwnRights) as refused:
        grant(user, role, actor=stranger)

    assert refused.value.extra["permission"] == "a.c"
    grant(stranger, make_role("rest", "a.c"))
    grant(user, role, actor=stranger)


def test_a_wildcard_is_given_only_by_who_holds_it(user: Any, stranger: Any, make_role: Any) -> None:
    stranger.user_permissions.add(*Permission.objects.filter(content_type__app_label="svc_rbac"))
    role = make_role("all of it", "svc_rbac.*")

    with pytest.raises(BeyondOwnRights):
        grant(user, role, actor=stranger)
    grant(stranger, role)
    grant(user, role, actor=stranger)


def test_nobody_gives_for_longer_than_they_have(user: Any, stranger: Any, make_role: Any) -> None:
    role = make_role("clerk", "a.b")
    grant(stranger, role, expires_at=NOW + DAY)

    for until in (None, NOW + 2 * DAY):
        for somebody in (user, stranger):
            with pytest.raises(BeyondOwnRights):
                grant(somebody, role, expires_at=until, actor=stranger)
    grant(user, role, expires_at=NOW + DAY, actor=stranger)


def test_a_right_in_one_tenant_is_given_in_that_tenant_only(user: Any, stranger: Any, make_role: Any) -> None:
    role = make_role("clerk", "a.b")
    grant(stranger, role, tenant="acme")
    actor = Principal(stranger, "jwt", tenant="acme")

    for tenant in ("", "victim-corp"):
        with pytest.raises(BeyondOwnRights):
            grant(user, role, tenant=tenant, actor=actor)
        with pytest.raises(BeyondOwnRights):
            grant(user, role, tenant=tenant, actor=stranger)
    grant(user, role, tenant="acme", actor=actor)


def test_a_disabled_actor_gives_nothing(user: Any, make_user: Any, make_role: Any) -> None:
    gone = make_user("gone", is_superuser=True, is_active=False)

    with pytest.raises(BeyondOwnRights):
        grant(user, make_role("clerk", "a.b"), actor=gone)


def test_a_key_changes_no_roles_whatever_its_owner_may(user: Any, make_user: Any, make_role: Any) -> None:
    robot = Principal(make_user("root", is_superuser=True), "api_key")
    role = make_role("clerk", "a.b")
    grant(user, role)

    for change in (
        lambda: grant(user, role, reason="x", actor=robot),
        lambda: withdraw(user, role, actor=robot),
        lambda: define_role("x", ["a.b"], actor=robot),
        lambda: remove_role(role, actor=robot),
    ):
        with pytest.raises(NotForDelegates):
            change()


def test_declared_roles_become_what_the_settings_say(user: Any, svc_settings: Callable[..., None]) -> None:
    svc_settings(rbac={"roles": {"clerk": ("a.b", "a.c"), "boss": ("*",)}})
    assert sync_declared_roles().made == ("clerk", "boss")
    grant(user, "clerk")

    svc_settings(rbac={"roles": {"clerk": ("a.c", "a.d")}})
    synced = sync_declared_roles()

    assert (synced.made, synced.changed, synced.emptied) == ((), ("clerk",), ("boss",))
    assert patterns("clerk") == ["a.c", "a.d"]
    assert patterns("boss") == []
    assert Assignment.objects.get().role.source == "code"
    synced = sync_declared_roles()
    assert (synced.made, synced.changed, synced.emptied) == ((), (), ())


def test_a_role_of_that_name_made_by_hand_becomes_the_declared_one(
    make_role: Any, svc_settings: Callable[..., None]
) -> None:
    role = make_role("clerk", "a.everything")
    other = make_role("clerk", "a.mine", tenant="acme")
    svc_settings(rbac={"roles": {"clerk": ("a.b",)}})

    assert sync_declared_roles().changed == ("clerk",)

    assert [permission.pattern for permission in role.permissions.all()] == ["a.b"]
    assert [permission.pattern for permission in other.permissions.all()] == ["a.mine"]
    with pytest.raises(RoleDeclared):
        remove_role(role)


def test_who_was_given_an_empty_role_does_not_get_what_is_declared_under_its_name(
    user: Any, make_role: Any, svc_settings: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    grant(user, make_role("auditor"))
    svc_settings(rbac={"roles": {"auditor": ("*",)}})

    assert sync_declared_roles().refused == ("auditor",)

    assert not user.has_perm("a.b")
    call_command("migrate", verbosity=0)
    assert "made by hand" in caplog.text
    with pytest.raises(CommandError, match="auditor"):
        call_command("sync_roles")


def test_nor_who_has_a_role_that_includes_an_empty_one_of_that_name(
    svc_settings: Any, make_role: Any
) -> None:
    manager = make_role("manager", includes=[make_role("clerk")])
    svc_settings(rbac={"roles": {"clerk": ("orders.add_order",)}})

    assert sync_declared_roles().refused == ("clerk",)
    assert not manager.includes.get().permissions.exists()


def test_a_role_that_is_declared_no_more_is_withdrawn_and_not_granted(
    user: Any, stranger: Any, svc_settings: Callable[..., None]
) -> None:
    svc_settings(rbac={"roles": {"boss": ("*",)}})
    sync_declared_roles()
    grant(user, "boss")
    svc_settings(rbac={"roles": {}})
    sync_declared_roles()

    with pytest.raises(RoleRetired):
        grant(stranger, "boss", actor=user)
    withdraw(user, "boss")


def test_a_name_withdraws_whichever_role_of_that_name_they_have(user: Any, make_role: Any) -> None:
    everywhere = make_role("clerk", "a.b")
    grant(user, everywhere, tenant="acme")
    make_role("clerk", "a.c", tenant="acme")

    withdraw(user, "clerk", tenant="acme")

    assert not Assignment.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_of_eight_who_grant_at_once_all_get_the_one_grant(user: Any, make_role: Any) -> None:
    role = make_role("clerk", "a.b")
    given = together(8, lambda: grant(user, role).pk)

    assert len(set(given)) == 1
    assert Assignment.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_eight_processes_may_sync_at_once(db: None, svc_settings: Callable[..., None]) -> None:
    svc_settings(rbac={"roles": {"clerk": ("a.b", "a.c"), "boss": ("*",)}})
    together(8, sync_declared_roles)

    assert (patterns("clerk"), patterns("boss")) == (["a.b", "a.c"], ["*"])


def together(times: int, act: Callable[[], Any]) -> list[Any]:
    """Do it in that many threads at the same moment; all must come back."""
    barrier = threading.Barrier(times)
    found: list[Any] = []

    def run() -> None:
        try:
            barrier.wait(60)
            found.append(act())
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == times
    return found


def test_a_denial_is_not_made_to_end_sooner_by_who_lacks_what_it_denies(
    make_role: Any, make_user: Any, user: Any
) -> None:
    granter = make_user("granter")
    grant(granter, make_role("granter", "svc_rbac.*"))
    barred = make_role("barred", denies=["orders.*"])
    grant(user, barred, expires_at=NOW + 2 * DAY)

    with pytest.raises(BeyondOwnRights):
        grant(user, barred, expires_at=NOW + DAY, actor=granter)
    assert Assignment.objects.get(user=user).expires_at == NOW + 2 * DAY

    assert grant(user, barred, expires_at=NOW + 3 * DAY, actor=granter).expires_at == NOW + 3 * DAY
    assert grant(user, barred, actor=granter).expires_at is None

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from svc_infra_django.apikeys import change_key, issue_key, revoke_key, rotate_key, verify_key
from svc_infra_django.apikeys.errors import (
    ForeignTenant,
    InvalidKey,
    KeyAlreadyRevoked,
    KeyNotUsable,
    KeysCannotManageKeys,
    LimitLoosened,
    OwnerDisabled,
    QuotaExceeded,
    ScopeNotHeld,
    TooManyKeys,
)
from svc_infra_django.apikeys.events import KEY_ISSUED, KEY_REVOKED, KEY_ROTATED
from svc_infra_django.apikeys.models import ApiKey
from svc_infra_django.errors import ValidationError
from svc_infra_django.events import any_event
from svc_infra_django.principals import Principal

NOW = timezone.now()


@pytest.fixture
def heard() -> Any:
    events: list[Any] = []

    def listen(event: Any, **_: Any) -> None:
        events.append(event)

    any_event.connect(listen)
    yield events
    any_event.disconnect(listen)


def test_the_key_is_recognised_by_its_ends(user: Any) -> None:
    key, secret = issue_key(owner=user, name="robot")

    assert (key.prefix, key.last4) == ("svc_sk_live_", secret[-4:])
    assert str(key) == f"robot (svc_sk_live_…{secret[-4:]})"


def test_the_brand_is_the_projects(user: Any, svc_settings: Callable[..., None]) -> None:
    svc_settings(apikeys={"brand": "acme"})

    _, secret = issue_key(owner=user, name="robot")

    assert secret.startswith("acme_sk_live_")
    svc_settings(apikeys={"brand": "newname"})
    verify_key(secret)


def test_scopes_beyond_the_owners_rights_are_refused_by_name(user: Any, permit: Any) -> None:
    user = permit(user, "view_role")

    with pytest.raises(ScopeNotHeld) as refused:
        issue_key(owner=user, name="robot", scopes=["svc_rbac.view_role", "svc_rbac.add_role"])

    assert refused.value.status == 403
    assert refused.value.extra["permission"] == "svc_rbac.add_role"
    assert [problem.pointer for problem in refused.value.errors] == ["/body/scopes/1"]
    assert not ApiKey.objects.exists()


@pytest.mark.parametrize("scope", ["*", "svc_rbac.*"])
def test_a_wildcard_scope_needs_the_wildcard(user: Any, permit: Any, make_user: Any, scope: str) -> None:
    user = permit(user, "view_role", "add_role", "change_role", "delete_role")

    with pytest.raises(ScopeNotHeld):
        issue_key(owner=user, name="robot", scopes=[scope])
    issue_key(owner=make_user("root", is_superuser=True), name="robot", scopes=[scope])


@pytest.mark.parametrize(
    "scope", ["", "a", "a.b*", "a.**", "*.b", " a.b", "a.b\n", "a.b\0", "é.b", "a." + "b" * 300]
)
def test_malformed_scopes_are_a_field_problem(make_user: Any, scope: str) -> None:
    with pytest.raises(ValidationError) as refused:
        issue_key(owner=make_user("root", is_superuser=True), name="robot", scopes=["a.b", scope])

    assert [problem.pointer for problem in refused.value.errors] == ["/body/scopes/1"]


def test_no_scope_at_all_is_not_every_scope(user: Any, permit: Any) -> None:
    key, _ = issue_key(owner=permit(user, "view_role"), name="robot", scopes=[])

    assert key.granted_scopes == frozenset()
    assert not Principal(user, "api_key", scopes=key.granted_scopes).can("svc_rbac.view_role")


def test_a_project_may_want_scopes_of_every_new_key(user: Any, permit: Any, svc_settings: Any) -> None:
    user = permit(user, "view_role")
    before, _ = issue_key(owner=user, name="before")
    svc_settings(apikeys={"scopes_required": True})

    with pytest.raises(ValidationError) as caught:
        issue_key(owner=user, name="robot", actor=user)

    assert [problem.pointer for problem in caught.value.errors] == ["/body/scopes"]
    assert issue_key(owner=user, name="robot", scopes=["svc_rbac.view_role"])[0].scopes
    assert rotate_key(before)[0].scopes is None


def test_a_disabled_user_gets_no_key(make_user: Any) -> None:
    with pytest.raises(OwnerDisabled):
        issue_key(owner=make_user("gone", is_active=False), name="robot")


def test_a_key_of_who_is_disabled_by_now_has_no_successor(user: Any) -> None:
    key, _ = issue_key(owner=user, name="robot")
    type(user).objects.update(is_active=False)

    with pytest.raises(OwnerDisabled):
        rotate_key(key)


def test_a_superuser_who_is_disabled_by_now_makes_no_key_for_others(user: Any, make_user: Any) -> None:
    gone = make_user("gone", is_superuser=True, is_active=False)

    with pytest.raises(ScopeNotHeld):
        issue_key(owner=user, name="robot", actor=gone)


def test_the_end_must_be_in_the_future(user: Any) -> None:
    with pytest.raises(ValidationError):
        issue_key(owner=user, name="robot", expires_at=NOW, now=NOW)


def test_a_longest_life_is_kept_and_is_the_default(user: Any, svc_settings: Callable[..., None]) -> None:
    svc_settings(apikeys={"max_lifetime": timedelta(days=30)})

    assert issue_key(owner=user, name="robot", now=NOW)[0].expires_at == NOW + timedelta(days=30)
    with pytest.raises(ValidationError):
        issue_key(owner=user, name="robot", expires_at=NOW + timedelta(days=31), now=NOW)


def test_a_key_makes_rotates_and_revokes_no_key(issued: tuple[ApiKey, str], user: Any) -> None:
    robot = Principal(user, "api_key", credential_id=str(issued[0].pk))

    with pytest.raises(KeysCannotManageKeys):
        issue_key(owner=user, name="child", actor=robot)
    with pytest.raises(KeysCannotManageKeys):
        rotate_key(issued[0], actor=robot)
    with pytest.raises(KeysCannotManageKeys):
        revoke_key(issued[0], actor=robot)

    assert ApiKey.objects.count() == 1


def test_a_key_for_somebody_else_is_no_way_to_their_rights(make_user: Any, permit: Any) -> None:
    boss = make_user("boss", is_superuser=True)
    staff = permit(make_user("staff", is_staff=True), "add_apikey")

    with pytest.raises(ScopeNotHeld):
        issue_key(owner=boss, name="mine now", actor=staff)
    with pytest.raises(ScopeNotHeld):
        issue_key(owner=boss, name="mine now", scopes=["svc_rbac.add_role"], actor=staff)
    with pytest.raises(ScopeNotHeld):
        rotate_key(issue_key(owner=boss, name="robot")[0], actor=staff)

    key, _ = issue_key(owner=boss, name="both", scopes=["svc_apikeys.add_apikey"], actor=staff)
    assert key.owner == boss


def test_a_principal_makes_keys_in_its_own_tenant_only(user: Any) -> None:
    actor = Principal(user, "jwt", tenant="acme")

    issue_key(owner=user, name="ours", tenant="acme", actor=actor)
    for tenant in ("", "victim-corp"):
        with pytest.raises(ForeignTenant):
            issue_key(owner=user, name="theirs", tenant=tenant, actor=actor)
        with pytest.raises(ForeignTenant):
            rotate_key(issue_key(owner=user, name="theirs", tenant=tenant)[0], actor=actor)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "x" * 101),
        ("name", "a\0"),
        ("name", "\ud800"),
        ("tenant", "x" * 129),
        ("tenant", "\0"),
        ("scopes", ["a.b"] * 101),
        ("allowed_networks", ["192.0.2.1"] * 51),
        ("rate", "often"),
        ("quota", "1/week"),
    ],
)
def test_text_that_does_not_fit_is_a_field_problem(user: Any, field: str, value: Any) -> None:
    with pytest.raises(ValidationError) as refused:
        issue_key(**{"owner": user, "name": "robot", field: value})

    assert [problem.pointer for problem in refused.value.errors] == [f"/body/{field}"]


def test_rotation_links_the_successor_and_keeps_what_the_key_was(make_user: Any) -> None:
    root = make_user("root", is_superuser=True)
    key, _ = issue_key(
        owner=root, name="robot", scopes=["a.b"], tenant="acme", expires_at=NOW + timedelta(90), now=NOW
    )

    successor, _ = rotate_key(key, grace=timedelta(hours=1), now=NOW + timedelta(days=80))

    key.refresh_from_db()
    assert key.successor == successor
    assert (successor.name, successor.scopes, successor.tenant) == ("robot", ["a.b"], "acme")
    assert successor.expires_at == NOW + timedelta(days=170)
    assert key.expires_at == NOW + timedelta(days=80, hours=1)
    assert key.state(now=NOW + timedelta(days=80)) == "rotated"


def test_a_successor_lives_no_longer_than_the_project_allows_by_now(
    user: Any, svc_settings: Callable[..., None]
) -> None:
    endless, _ = issue_key(owner=user, name="endless", now=NOW)
    long, _ = issue_key(owner=user, name="long", expires_at=NOW + timedelta(days=900), now=NOW)
    svc_settings(apikeys={"max_lifetime": timedelta(days=30)})

    for key in (endless, long):
        assert rotate_key(key, now=NOW)[0].expires_at == NOW + timedelta(days=30)


def test_a_successor_has_the_limits_of_the_key(user: Any) -> None:
    key, _ = issue_key(
        owner=user, name="robot", allowed_networks=["192.0.2.1"], rate="5/minute", quota="9/day"
    )

    successor, _ = rotate_key(key)

    assert successor.allowed_networks == ["192.0.2.1/32"]
    assert (successor.rate, successor.quota) == ("5/minute", "9/day")


def test_a_scope_that_the_owner_has_lost_is_refused_to_the_successor(user: Any, permit: Any) -> None:
    user = permit(user, "view_role")
    key, _ = issue_key(owner=user, name="robot", scopes=["svc_rbac.view_role"])
    user.user_permissions.clear()

    with pytest.raises(ScopeNotHeld):
        rotate_key(key)
    assert ApiKey.objects.count() == 1


def test_the_grace_is_capped_and_never_lengthens_a_life(user: Any, svc_settings: Callable[..., None]) -> None:
    svc_settings(apikeys={"max_rotation_grace": timedelta(hours=3)})
    endless, _ = issue_key(owner=user, name="endless", now=NOW)
    short, _ = issue_key(owner=user, name="short", expires_at=NOW + timedelta(hours=1), now=NOW)
    none, _ = issue_key(owner=user, name="none", now=NOW)

    rotate_key(endless, grace=timedelta(days=365), now=NOW)
    rotate_key(short, grace=timedelta(days=365), now=NOW)
    rotate_key(none, grace=timedelta(seconds=-5), now=NOW)

    ends = dict(ApiKey.objects.exclude(successor=None).values_list("name", "expires_at"))
    assert ends == {"endless": NOW + timedelta(hours=3), "short": NOW + timedelta(hours=1), "none": NOW}


def test_only_an_active_key_can_be_rotated(user: Any) -> None:
    rotated, _ = issue_key(owner=user, name="rotated", now=NOW)
    rotate_key(rotated, now=NOW)
    revoked, _ = issue_key(owner=user, name="revoked", now=NOW)
    revoke_key(revoked)
    expired, _ = issue_key(owner=user, name="expired", expires_at=NOW + timedelta(1), now=NOW)

    for key in (rotated, revoked, expired):
        with pytest.raises(KeyNotUsable):
            rotate_key(key, now=NOW + timedelta(days=1))


def test_a_key_is_revoked_once(issued: tuple[ApiKey, str]) -> None:
    revoke_key(issued[0])

    with pytest.raises(KeyAlreadyRevoked):
        revoke_key(issued[0])


def test_each_step_of_a_keys_life_is_told_without_the_secret(user: Any, heard: list[Any]) -> None:
    key, secret = issue_key(owner=user, name="robot", tenant="acme", actor=user)
    _, other = rotate_key(key, actor=user)
    revoke_key(key, actor=user)

    assert [event.type for event in heard] == [KEY_ISSUED, KEY_ROTATED, KEY_REVOKED]
    assert {(event.owner, event.tenant) for event in heard} == {(user, "acme")}
    assert {event.payload.actor_id for event in heard} == {str(user.pk)}
    told = "".join(event.payload.model_dump_json() for event in heard)
    assert secret[12:-4] not in told
    assert other[12:-4] not in told


def test_a_rolled_back_key_never_was(user: Any) -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        _, secret = issue_key(owner=user, name="robot")
        raise ZeroDivisionError

    with pytest.raises(InvalidKey):
        verify_key(secret)


def test_a_key_without_an_owner_cannot_be_stored(issued: tuple[ApiKey, str]) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        ApiKey.objects.filter(pk=issued[0].pk).update(owner=None)


@pytest.mark.django_db(transaction=True)
def test_of_eight_who_rotate_at_once_one_wins(user: Any) -> None:
    key, _ = issue_key(owner=user, name="robot")
    won, lost = together(8, lambda: rotate_key(key))

    assert len(won) == 1
    assert {type(error) for error in lost} == {KeyNotUsable}
    assert ApiKey.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_of_eight_who_revoke_at_once_one_wins(user: Any) -> None:
    key, _ = issue_key(owner=user, name="robot")
    won, lost = together(8, lambda: revoke_key(ApiKey.objects.get(pk=key.pk)))

    assert len(won) == 1
    assert {type(error) for error in lost} == {KeyAlreadyRevoked}


def together(times: int, act: Callable[[], Any]) -> tuple[list[Any], list[Exception]]:
    """Do it in that many threads at the same moment; what was returned and what was raised."""
    barrier = threading.Barrier(times)
    won: list[Any] = []
    lost: list[Exception] = []

    def run() -> None:
        try:
            barrier.wait(60)
            won.append(act())
        except Exception as error:
            lost.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return won, lost


@pytest.mark.parametrize(
    ("limits", "refused"),
    [
        ({"rate": "60/minute"}, []),
        ({"rate": "1/second", "quota": "40/day"}, []),
        ({"quota": "30/month"}, []),
        ({"rate": "61/minute"}, ["rate"]),
        ({"rate": "2/second"}, ["rate"]),
        ({"quota": "1/hour"}, []),
        ({"quota": "2/hour"}, ["quota"]),
        ({"rate": "1000/minute", "quota": "1000/month"}, ["rate", "quota"]),
    ],
)
def test_owners_tighten_the_usual_limits_and_do_not_loosen_them(
    user: Any, permit: Any, svc_settings: Any, limits: dict[str, str], refused: list[str]
) -> None:
    svc_settings(apikeys={"default_rate": "60/minute", "default_quota": "40/day"})

    if refused:
        with pytest.raises(LimitLoosened) as found:
            issue_key(owner=user, name="robot", actor=user, **limits)  # type: ignore[arg-type]
        assert [each.pointer for each in found.value.errors] == [f"/body/{field}" for field in refused]
        issue_key(owner=user, name="robot", **limits)  # type: ignore[arg-type]
        user = permit(user, "change_apikey")
    issue_key(owner=user, name="robot", actor=user, **limits)  # type: ignore[arg-type]


def test_an_owner_does_not_lift_the_limit_that_an_operator_set(user: Any, stranger: Any, permit: Any) -> None:
    key, _ = issue_key(owner=user, name="robot", rate="60/minute", quota="100/day")

    for wish in ({"rate": ""}, {"rate": "100/minute"}, {"quota": ""}, {"quota": "101/month"}):
        with pytest.raises(LimitLoosened):
            change_key(key, actor=Principal(user, "session"), **wish)

    assert change_key(key, rate="30/minute", name="new", actor=Principal(user, "session")).rate == "30/minute"
    operator = Principal(permit(stranger, "change_apikey"), "session")
    assert change_key(key, rate="", actor=operator).rate == ""


def test_an_owner_does_not_lift_the_networks_that_an_operator_set(
    user: Any, stranger: Any, permit: Any
) -> None:
    key, _ = issue_key(owner=user, name="robot", allowed_networks=["192.0.2.0/24", "2001:db8::/32"])
    owner = Principal(user, "session")

    for wish, refused in (
        ([], ""),
        (["0.0.0.0/0"], "/0"),
        (["192.0.2.7", "192.0.2.0/23"], "/1"),
        (["2001:db8::/31"], "/0"),
        (["::ffff:198.51.100.0/120"], "/0"),
    ):
        with pytest.raises(LimitLoosened) as found:
            change_key(key, allowed_networks=wish, actor=owner)
        assert [each.pointer for each in found.value.errors] == [f"/body/allowed_networks{refused}"]

    narrower = ["192.0.2.7/32", "2001:db8:1::/48"]
    assert change_key(key, allowed_networks=narrower, actor=owner).allowed_networks == narrower
    assert change_key(key, name="new", actor=owner).allowed_networks == narrower
    operator = Principal(permit(stranger, "change_apikey"), "session")
    assert change_key(key, allowed_networks=[], actor=operator).allowed_networks == []
    assert change_key(key, allowed_networks=["192.0.2.0/24"], actor=owner).allowed_networks


def test_a_credential_with_scopes_makes_no_key_that_may_more(make_user: Any, permit: Any) -> None:
    for owner in (permit(make_user("ada"), "view_role", "add_role"), make_user("root", is_superuser=True)):
        token = Principal(owner, "token", scopes=frozenset({"svc_rbac.view_role"}))

        for scopes in (None, ["svc_rbac.add_role"], ["svc_rbac.view_role", "svc_rbac.add_role"]):
            with pytest.raises(ScopeNotHeld):
                issue_key(owner=owner, name="robot", scopes=scopes, actor=token)
        key, _ = issue_key(owner=owner, name="robot", scopes=["svc_rbac.view_role"], actor=token)
        rotate_key(key, actor=token)
        with pytest.raises(ScopeNotHeld):
            rotate_key(issue_key(owner=owner, name="whole")[0], actor=token)


def test_no_replica_is_asked_how_many_keys_there_are_or_what_they_spent(
    user: Any, svc_settings: Any, no_replica: Any
) -> None:
    svc_settings(apikeys={"max_keys_per_owner": 2})
    no_replica("svc_apikeys")
    key, secret = issue_key(owner=user, name="robot", quota="1/month", actor=user)
    verify_key(secret)

    _, successor = rotate_key(key, actor=user)

    for text in (secret, successor):
        with pytest.raises(QuotaExceeded):
            verify_key(text)
    with pytest.raises(TooManyKeys):
        issue_key(owner=user, name="one too many", actor=user)


def test_a_successor_has_spent_what_the_key_had_spent(user: Any) -> None:
    key, secret = issue_key(owner=user, name="robot", quota="3/month")
    verify_key(secret)
    verify_key(secret)

    _, successor = rotate_key(key, actor=user)

    verify_key(successor)
    with pytest.raises(QuotaExceeded):
        verify_key(successor)


def test_an_owner_has_so_many_usable_keys_and_no_more(user: Any, permit: Any, svc_settings: Any) -> None:
    svc_settings(apikeys={"max_keys_per_owner": 2})
    first, _ = issue_key(owner=user, name="robot", actor=user)
    issue_key(owner=user, name="robot", expires_at=NOW + timedelta(days=1), actor=user)

    with pytest.raises(TooManyKeys):
        issue_key(owner=user, name="robot", actor=user)
    with pytest.raises(TooManyKeys):
        rotate_key(first, actor=user)

    issue_key(owner=user, name="robot", tenant="acme", actor=user)
    successor, _ = rotate_key(first, grace=timedelta(0), actor=user)
    revoke_key(successor, actor=user)
    issue_key(owner=user, name="robot", actor=user)
    issue_key(owner=user, name="the project's own")
    user = permit(user, "change_apikey")
    issue_key(owner=user, name="by an operator", actor=user)


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_of_eight_made_at_once_there_are_as_many_as_an_owner_may_have(user: Any, svc_settings: Any) -> None:
    svc_settings(apikeys={"max_keys_per_owner": 3})
    won, lost = together(8, lambda: issue_key(owner=user, name="robot", actor=user))

    assert len(won) == ApiKey.objects.count() == 3
    assert {type(error) for error in lost} == {TooManyKeys}

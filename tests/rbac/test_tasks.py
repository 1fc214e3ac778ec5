from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.contrib.sessions.models import Session
from django.utils import timezone

from svc_infra_django.rbac import grant
from svc_infra_django.rbac.models import Assignment, RoleChange
from svc_infra_django.rbac.tasks import withdraw_from_gone_objects

pytestmark = pytest.mark.django_db


def test_grants_on_an_object_end_with_it_and_a_new_one_of_its_key_has_none(
    user: Any, make_role: Any, fresh: Any, events: Any
) -> None:
    make_role("keeper", "sessions.change_session")
    staff = Group.objects.create(name="staff")
    first = Session.objects.create(session_key="a" * 40, session_data="", expire_date=timezone.now())
    kept = Session.objects.create(session_key="b" * 40, session_data="", expire_date=timezone.now())
    for holder in (user, staff):
        grant(holder, "keeper", obj=first)
        grant(holder, "keeper", obj=kept)
    Session.objects.filter(pk=first.pk).delete()
    events.clear()

    withdraw_from_gone_objects.call()

    again = Session.objects.create(session_key="a" * 40, session_data="", expire_date=timezone.now())
    assert not fresh(user).has_perm("sessions.change_session", again)
    assert fresh(user).has_perm("sessions.change_session", kept)
    assert Assignment.objects.count() == 2
    assert {(event.type.name, event.payload.user_id, event.payload.group) for event in events} == {
        ("role.withdrawn", str(user.pk), None),
        ("role.withdrawn", None, "staff"),
    }
    rows = RoleChange.objects.filter(kind=RoleChange.Kind.WITHDRAWN)
    assert {(row.user_key, row.group, row.object_id, row.reason) for row in rows} == {
        (str(user.pk), "", "a" * 40, "The object is gone."),
        ("", "staff", "a" * 40, "The object is gone."),
    }


def test_grants_on_what_is_hidden_or_not_installed_now_stay(user: Any, make_role: Any) -> None:
    role = make_role("keeper", "auth.change_group")
    sales = Group.objects.create(name="sales")
    grant(user, role, obj=sales)
    Assignment.objects.create(user=user, role=role, object_type="gone.model", object_id="1")

    withdraw_from_gone_objects.call()

    assert Assignment.objects.count() == 2


def test_no_replica_is_asked_whether_an_object_is_gone(user: Any, make_role: Any, no_replica: Any) -> None:
    row = Session.objects.create(session_key="a" * 40, session_data="", expire_date=timezone.now())
    grant(user, make_role("keeper", "sessions.change_session"), obj=row)
    no_replica("sessions")

    withdraw_from_gone_objects.call()

    assert Assignment.objects.exists()


def test_what_is_no_key_of_its_model_is_gone(user: Any, make_role: Any) -> None:
    Assignment.objects.create(user=user, role=make_role(), object_type="auth.group", object_id="x")

    withdraw_from_gone_objects.call()

    assert not Assignment.objects.exists()

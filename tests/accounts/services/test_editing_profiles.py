from __future__ import annotations

from typing import Any

import pytest
from django.db import models
from django.test.utils import isolate_apps

from svc_infra_django.accounts.checks import check_profile
from svc_infra_django.accounts.services.editing_profiles import edit_profile, may_be_edited, profile_fields

pytestmark = pytest.mark.django_db


def test_people_change_their_names_and_nothing_that_they_did_not_send(
    ada: Any, user: Any, events: Any
) -> None:
    answer = ada.patch("me", {"first_name": "Ada"})
    assert answer.status_code == 200
    assert (answer.json()["first_name"], answer.json()["last_name"]) == ("Ada", "")
    assert ada.patch("me", {"last_name": "Lovelace"}).json()["first_name"] == "Ada"
    assert ada.get("me").json()["last_name"] == "Lovelace"
    assert [event.payload.fields for event in events if event.type.name == "user.profile_changed"] == [
        ["first_name"],
        ["last_name"],
    ]

    assert ada.patch("me", {"first_name": "Ada"}).status_code == ada.patch("me", {}).status_code == 200
    assert [event.type.name for event in events].count("user.profile_changed") == 2


PRIVILEGED = {
    "is_staff": True,
    "is_superuser": True,
    "is_active": False,
    "username": "root",
    "email": "root@example.com",
    "password": "x",
    "last_login": "2026-01-01T00:00:00Z",
    "date_joined": "2026-01-01T00:00:00Z",
    "groups": [1],
    "user_permissions": [1],
    "id": 1,
    "pk": 1,
    "amr": ["mfa"],
    "tenant": "x",
}


def test_rule_60_nobody_makes_themselves_more_than_they_are(ada: Any, user: Any, svc_settings: Any) -> None:
    svc_settings(accounts={"profile_fields": ("first_name", *PRIVILEGED)})
    before = type(user).objects.filter(pk=user.pk).values().get()

    for name, value in PRIVILEGED.items():
        answer = ada.patch("me", {"first_name": "Ada", name: value})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == f"/body/{name}"
        with pytest.raises(ValueError, match=name):
            edit_profile(user, {name: value})

    assert type(user).objects.filter(pk=user.pk).values().get() == before
    assert [field.name for field in profile_fields()] == ["first_name"]
    named = " ".join(problem.msg for problem in check_profile(None))
    assert [name for name in PRIVILEGED if f"'{name}'" not in named] == []


@pytest.mark.parametrize("bad", ["x" * 151, "a\x00b", None, 7, ["Ada"], {"a": 1}])
def test_rule_65_a_name_that_is_none_is_a_problem_with_its_place(ada: Any, bad: Any) -> None:
    answer = ada.patch("me", {"first_name": bad})

    assert 400 <= answer.status_code < 500
    assert answer["Content-Type"] == "application/problem+json"
    assert answer.json()["errors"][0]["pointer"] == "/body/first_name"
    assert ada.get("me").json()["first_name"] == ""


def test_a_profile_costs_the_same_few_queries(ada: Any, django_assert_max_num_queries: Any) -> None:
    with django_assert_max_num_queries(12):
        assert ada.patch("me", {"first_name": "Ada"}).status_code == 200


@isolate_apps("tests")
def test_what_a_field_holds_decides_whether_it_may_be_named(user: Any) -> None:
    class Kinds(models.Model):  # noqa: DJ008 - nobody looks at a row
        motto = models.TextField()
        born_on = models.DateField()
        picture = models.FileField()
        friend = models.ForeignKey("self", on_delete=models.CASCADE)
        hidden = models.CharField(max_length=9, editable=False)
        seen_at = models.DateTimeField()

        class Meta:
            app_label = "tests"

    editable = [field.name for field in Kinds._meta.concrete_fields if may_be_edited(field)]
    assert editable == ["motto", "born_on"]


def test_a_default_that_the_user_model_lacks_is_no_mistake(svc_settings: Any) -> None:
    assert list(check_profile(None)) == []
    svc_settings(accounts={"profile_fields": ("nick_name",)})
    assert [problem.id for problem in check_profile(None)] == ["svc_accounts.E008"]

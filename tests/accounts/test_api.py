from __future__ import annotations

from typing import Any

import pytest

from svc_infra_django.accounts.models import AuthSession

pytestmark = pytest.mark.django_db


def test_a_login_gives_two_tokens_that_nobody_may_store(user: Any, visitor: Any) -> None:
    response = visitor.login()

    assert response.status_code == 200
    assert set(response.json()) == {"access_token", "refresh_token", "token_type", "expires_in"}
    assert response.json()["token_type"] == "Bearer"
    assert response["Cache-Control"] == "no-store"


def test_me_is_whoever_logged_in(ada: Any, user: Any) -> None:
    me = ada.get("me").json()

    assert me["id"] == str(user.pk)
    assert me["email"] == "ada@example.com"
    assert me["method"] == "jwt"
    assert me["amr"] == ["pwd"]


def test_refreshing_rotates_and_answers_are_not_stored(ada: Any) -> None:
    first = ada.tokens
    response = ada.refresh()

    assert response.status_code == 200
    assert response["Cache-Control"] == "no-store"
    assert response.json()["refresh_token"] != first["refresh_token"]
    assert ada.get("me").status_code == 200


def test_logging_out_kills_the_access_token_at_once(ada: Any) -> None:
    assert ada.post("logout").status_code == 204

    # The access token first: a refresh after logout would hide a logout that forgot it.
    assert ada.get("me").status_code == 401
    assert ada.refresh().status_code == 401


def test_logging_out_everywhere_kills_all_devices(ada: Any, new_visitor: Any) -> None:
    phone = new_visitor()
    phone.login()

    assert ada.post("logout-all").status_code == 204

    assert phone.get("me").status_code == 401
    assert ada.get("me").status_code == 401


def test_a_session_is_seen_and_ended_by_its_user_alone(ada: Any, stranger: Any, new_visitor: Any) -> None:
    phone = new_visitor(headers={"User-Agent": "Phone"})
    phone.login()
    mallory = new_visitor()
    mallory.login("mallory@example.com")

    seen = ada.get("sessions").json()["items"]
    assert [(each["user_agent"], each["is_current"]) for each in seen] == [("Phone", False), ("", True)]

    phones = seen[0]["id"]
    assert mallory.delete(f"sessions/{phones}").status_code == 404
    assert phone.get("me").status_code == 200
    assert ada.delete(f"sessions/{phones}").status_code == 204
    assert phone.get("me").status_code == 401
    assert ada.delete(f"sessions/{phones}").status_code == 404
    assert ada.get("me").status_code == 200


def test_the_list_of_sessions_costs_the_same_for_many(ada: Any, django_assert_num_queries: Any) -> None:
    row = AuthSession.objects.get()
    with django_assert_num_queries(2):
        assert len(ada.get("sessions").json()["items"]) == 1

    for _ in range(49):
        row.pk = None
        row._state.adding = True
        AuthSession.objects.bulk_create(
            [
                AuthSession(
                    **{
                        f.attname: getattr(row, f.attname)
                        for f in row._meta.concrete_fields
                        if f.name != "id"
                    }
                )
            ]
        )

    with django_assert_num_queries(2):
        assert len(ada.get("sessions").json()["items"]) == 50


def test_every_request_with_a_token_costs_one_query(ada: Any, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(1):
        assert ada.get("me").status_code == 200

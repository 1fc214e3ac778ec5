from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django_otp import device_classes

from svc_infra_django.accounts.models import AuthSession
from svc_infra_django.accounts.services import noting_browsers
from svc_infra_django.accounts.services.issuing_tokens import issue_tokens
from tests.conftest import PASSWORD

pytestmark = pytest.mark.django_db(transaction=True)

BACKEND = "django.contrib.auth.backends.ModelBackend"


def browser_of(user: Any, **headers: str) -> Client:
    browser = Client(headers=headers)
    browser.force_login(user, backend=BACKEND)
    return browser


def status(browser: Client) -> int:
    return browser.get("/api/auth/me").status_code


@pytest.fixture
def user(make_user: Any) -> Any:
    return make_user("ada")


def test_rule_37_browsers_and_tokens_stand_in_one_list(user: Any, visitor: Any) -> None:
    browser = browser_of(user)
    visitor.login()

    listed = browser.get("/api/auth/sessions").json()["items"]

    assert [(row["kind"], row["is_current"]) for row in listed] == [("tokens", False), ("browser", True)]
    seen = visitor.get("sessions").json()["items"]
    assert [(row["kind"], row["is_current"]) for row in seen] == [("tokens", True), ("browser", False)]


def test_a_browser_is_noted_once_and_costs_no_query_after(user: Any, django_assert_num_queries: Any) -> None:
    browser = browser_of(user)
    assert status(browser) == 200

    with django_assert_num_queries(2 + len(list(device_classes()))):  # the session, the user, their devices
        assert status(browser) == 200
    assert AuthSession.objects.count() == 1


def test_logging_out_everywhere_ends_every_browser_for_every_view(user: Any, visitor: Any) -> None:
    browsers = [browser_of(user) for _ in range(3)]
    other = browser_of(get_user_model().objects.create_user("grace"))
    visitor.login()

    assert visitor.post("logout-all").status_code == 204

    assert [status(browser) for browser in browsers] == [401] * 3
    assert all("_auth_user_id" not in browser.session for browser in browsers)
    assert status(other) == 200


def test_one_browser_can_be_ended_from_elsewhere(user: Any, visitor: Any) -> None:
    lost, mine = browser_of(user), browser_of(user)
    row = AuthSession.objects.earliest("created_at")
    visitor.login()

    assert visitor.delete(f"sessions/{row.pk}").status_code == 204

    assert (status(lost), status(mine)) == (401, 200)


def test_rule_37_a_strangers_browser_is_not_there(user: Any, make_user: Any) -> None:
    browser_of(user)
    other = browser_of(make_user("mallory"))
    theirs = AuthSession.objects.get(owner=user)

    assert other.delete(f"/api/auth/sessions/{theirs.pk}").status_code == 404


def test_a_browser_that_logs_out_is_off_the_list(user: Any) -> None:
    browser = browser_of(user)
    browser.logout()
    api = browser_of(user)
    assert api.post("/api/auth/logout").status_code == 204

    assert set(AuthSession.objects.values_list("revoked_for", flat=True)) == {"logout"}


def test_rule_11_a_changed_password_ends_the_other_browsers_and_keeps_this_one(user: Any) -> None:
    mine, other = browser_of(user), browser_of(user)
    sent = {"current_password": PASSWORD, "password": "another long enough one 8"}

    answer = mine.post("/api/auth/password/change", sent, content_type="application/json")

    assert answer.status_code == 204
    assert (status(mine), status(other)) == (200, 401)
    assert [row["is_current"] for row in mine.get("/api/auth/sessions").json()["items"]] == [True]


def test_a_session_with_a_new_key_is_still_known(user: Any, visitor: Any) -> None:
    browser = browser_of(user)
    session = browser.session
    session.cycle_key()
    session.save()
    browser.cookies["sessionid"] = session.session_key
    assert status(browser) == 200
    assert AuthSession.objects.count() == 1

    visitor.login()
    visitor.post("logout-all")

    assert status(browser) == 401


def test_a_session_that_got_a_new_key_before_it_was_ended_is_over(user: Any, visitor: Any) -> None:
    browser = browser_of(user)
    session = browser.session
    session.cycle_key()
    session.save()
    browser.cookies["sessionid"] = session.session_key
    visitor.login()
    visitor.post("logout-all")

    answer = browser.get("/api/auth/me")

    assert (answer.status_code, answer.json()["code"]) == (401, "accounts.session_over")


def test_a_session_from_before_is_noted_when_it_comes(user: Any, visitor: Any) -> None:
    browser = browser_of(user)
    AuthSession.objects.all().delete()
    session = browser.session
    del session[noting_browsers.NOTE_SESSION_KEY]
    session.save()

    assert status(browser) == 200
    visitor.login()
    visitor.post("logout-all")

    assert status(browser) == 401


def test_rule_36_the_key_is_sealed(user: Any) -> None:
    browser = browser_of(user)
    row = AuthSession.objects.get()

    assert browser.session.session_key not in str(vars(row))


def test_a_session_in_cookies_alone_has_no_row(user: Any, settings: Any) -> None:
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    browser = browser_of(user)

    assert status(browser) == 200
    assert not AuthSession.objects.exists()


def test_a_browser_session_has_no_tokens(user: Any) -> None:
    browser_of(user)
    row = AuthSession.objects.get()

    assert row.kind == "browser"
    assert not row.refresh_tokens.exists()
    assert issue_tokens(user, amr=("pwd",)).session.kind == "tokens"

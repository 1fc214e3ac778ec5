from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from django.contrib.auth import get_user_model
from django.core import mail
from django.db import connections
from django.test import Client
from django.utils import timezone

from svc_infra_django.accounts.models import AuditEvent, AuthSession, EmailDevice
from svc_infra_django.accounts.services.changing_addresses import change_address
from svc_infra_django.accounts.signing import CHANGE, address_state, make_key
from svc_infra_django.jobs.worker import drain
from svc_infra_django.principals import Principal
from tests.accounts.services.test_mfa import enrol
from tests.accounts.services.test_signing_up import mailed_key
from tests.conftest import PASSWORD

pytestmark = pytest.mark.django_db

NEXT = "next@example.com"


def asked(visitor: Any, email: str = NEXT) -> str:
    assert visitor.post("email/change", {"email": email}).status_code == 202
    return mailed_key()


def confirm(visitor: Any, key: str) -> int:
    return int(visitor.post("email/change/confirm", {"key": key}).status_code)


def test_the_old_address_stays_until_the_new_one_is_proven(ada: Any, new_visitor: Any, user: Any) -> None:
    key = asked(ada)
    assert [message.to for message in mail.outbox] == [[NEXT]]
    assert ada.get("me").json()["email"] == "ada@example.com"
    assert new_visitor().login(NEXT).status_code == 401

    assert confirm(ada, key) == 204

    assert ada.get("me").json()["email"] == NEXT
    assert new_visitor().login(NEXT).status_code == 200
    assert new_visitor().login("ada@example.com").status_code == 401
    rows = EmailAddress.objects.filter(user=user).values_list("email", "verified", "primary")
    assert list(rows) == [(NEXT, True, True)]
    names = list(AuditEvent.objects.filter(name__startswith="user.email").values_list("name", flat=True))
    assert sorted(names) == ["user.email_change_requested", "user.email_changed"]
    assert NEXT not in str(list(AuditEvent.objects.values()))


def test_rule_15_the_old_address_hears_of_it_and_sessions_go_on(ada: Any, new_visitor: Any) -> None:
    phone = new_visitor()
    phone.login()
    confirm(ada, asked(ada))
    drain()

    assert (mail.outbox[-1].to, mail.outbox[-1].subject) == (["ada@example.com"], "Your address was changed")
    assert NEXT not in mail.outbox[-1].body
    assert ada.refresh().status_code == phone.refresh().status_code == 200


def test_rule_45_an_old_login_proves_itself_anew_and_a_second_factor_by_its_code(ada: Any, user: Any) -> None:
    AuthSession.objects.update(auth_time=timezone.now() - timedelta(hours=1))
    ada.refresh()

    def ask(**proof: str) -> Any:
        return ada.post("email/change", {"email": NEXT, **proof})

    assert "insufficient_user_authentication" in ask()["WWW-Authenticate"]
    assert ask(password="wrong").json()["code"] == "accounts.wrong_password"
    assert ask(password=PASSWORD).status_code == 202
    _, codes = enrol(user)
    assert ask(password=PASSWORD).json()["code"] == "accounts.fresh_factor_required"
    assert ask(code=codes[0]).status_code == 202


def test_rule_3_a_taken_address_is_answered_alike_and_its_owner_reads_of_it(ada: Any, stranger: Any) -> None:
    fresh = ada.post("email/change", {"email": NEXT})
    taken = ada.post("email/change", {"email": "Mallory@example.com"})

    assert taken.status_code == fresh.status_code == 202
    assert taken.content == fresh.content
    drain()
    assert [(message.to, message.subject) for message in mail.outbox] == [
        ([NEXT], "Prove that this address is yours"),
        (["mallory@example.com"], "This address has an account already"),
    ]


def test_rule_12_a_key_is_good_once_and_for_who_asked_alone(
    ada: Any, stranger: Any, new_visitor: Any
) -> None:
    mallory = new_visitor()
    mallory.login("mallory@example.com")
    key = asked(ada)

    assert confirm(mallory, key) == 422
    assert new_visitor().post("email/change/confirm", {"key": key}).status_code == 401
    assert confirm(ada, key) == 204
    assert confirm(ada, key) == 422


@pytest.mark.parametrize("change", ["password", "address", "more addresses", "taken", "too late"])
def test_rule_12_a_key_dies_with_what_it_was_made_for(
    ada: Any, user: Any, make_user: Any, change: str, monkeypatch: Any
) -> None:
    key = asked(ada)
    match change:
        case "password":
            sent = {"current_password": PASSWORD, "password": "another horse battery 8"}
            assert ada.post("password/change", sent).status_code == 204
        case "address":
            get_user_model().objects.filter(pk=user.pk).update(email="elsewhere@example.com")
        case "more addresses":
            EmailAddress.objects.create(user=user, email="second@example.com", verified=True)
        case "taken":
            make_user("next")
        case "too late":
            later = (timezone.now() + timedelta(hours=1, seconds=5)).timestamp()
            monkeypatch.setattr("django.core.signing.time.time", lambda: later)

    assert confirm(ada, key) == 422
    user.refresh_from_db()
    assert user.email != NEXT


def test_who_recovers_an_account_leaves_no_change_waiting(ada: Any, visitor: Any) -> None:
    waiting = asked(ada, "thief@example.com")
    visitor.post("password/reset", {"email": "ada@example.com"}, token="")
    sent = {"key": mailed_key(), "password": "another horse battery 8"}
    assert visitor.post("password/reset/confirm", sent, token="").status_code == 204
    ada.login(password=sent["password"])

    assert confirm(ada, waiting) == 422


def test_keys_that_were_mailed_to_the_old_address_are_dead(ada: Any, visitor: Any, user: Any) -> None:
    visitor.post("password/reset", {"email": "ada@example.com"}, token="")
    reset = mailed_key()
    device = EmailDevice.objects.create(user=user, name="E-mail", confirmed=True)
    code = device.new_code(now=timezone.now())
    principal = Principal(user, method="jwt")
    key = make_key(CHANGE, f"{user.pk}:{NEXT}", address_state(user, ["ada@example.com"]))
    change_address(principal, key, now=timezone.now())

    sent = {"key": reset, "password": "another horse battery 8"}
    assert visitor.post("password/reset/confirm", sent, token="").status_code == 422
    device.refresh_from_db()
    assert not device.verify_token(code)


def test_an_address_that_a_stranger_waits_for_goes_to_who_proves_it(ada: Any, visitor: Any) -> None:
    visitor.post("signup", {"email": NEXT, "password": PASSWORD}, token="")
    stranger_key = mailed_key()

    assert confirm(ada, asked(ada)) == 204
    assert visitor.post("email/verify", {"key": stranger_key, "password": PASSWORD}).status_code == 422
    assert ada.get("me").json()["email"] == NEXT


def test_ones_own_address_and_bad_ones_are_refused(ada: Any) -> None:
    assert ada.post("email/change", {"email": " ADA@example.com"}).status_code == 409
    for bad in ("ada", "ad\u0430@example.com", "a@b", "\u212aate@example.com"):
        answer = ada.post("email/change", {"email": bad})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == "/body/email"


def test_nobody_fills_mailboxes_by_it(ada: Any) -> None:
    codes = [ada.post("email/change", {"email": f"n{n}@example.com"}).status_code for n in range(7)]

    assert codes == [202] * 5 + [429] * 2


def test_a_stranger_who_asks_for_mails_to_a_users_id_stops_nobody(ada: Any, user: Any, visitor: Any) -> None:
    for _ in range(6):
        visitor.post("password/reset", {"email": str(user.pk)})

    assert ada.post("email/change", {"email": NEXT}).status_code == 202


def test_a_browser_changes_its_address_too_and_stays_signed_in(user: Any) -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(user)
    token = browser.get("/api/auth/csrf").json()["csrf_token"]

    def post(path: str, body: Any, **headers: str) -> int:
        answer = browser.post(f"/api/auth/{path}", body, content_type="application/json", headers=headers)
        return answer.status_code

    sent = {"email": NEXT, "password": PASSWORD}
    assert post("email/change", sent) == 403
    assert post("email/change", sent, **{"X-CSRFToken": token}) == 202
    assert post("email/change/confirm", {"key": mailed_key()}, **{"X-CSRFToken": token}) == 204
    assert browser.get("/api/auth/me").json()["email"] == NEXT


def test_the_front_end_gets_the_key_in_a_link(ada: Any, svc_settings: Any) -> None:
    svc_settings(accounts={"email_change_url": "https://app.example.com/address#{key}"})
    ada.post("email/change", {"email": NEXT}, headers={"Host": "evil.example.com"})
    drain()

    assert "https://app.example.com/address#" in mail.outbox[-1].body
    assert "evil" not in mail.outbox[-1].body


@pytest.mark.django_db(transaction=True)
def test_of_two_who_prove_the_same_address_at_once_one_has_it(make_user: Any) -> None:
    users = [make_user(name) for name in ("ada", "bob")]
    keys = [make_key(CHANGE, f"{user.pk}:{NEXT}", address_state(user, [user.email])) for user in users]
    outcomes: list[str] = []

    def attempt(user: Any, key: str) -> None:
        try:
            change_address(Principal(user, method="jwt"), key, now=timezone.now())
            outcomes.append("good")
        except Exception as error:
            outcomes.append(type(error).__name__)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=attempt, args=each) for each in zip(users, keys, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outcomes) == ["InvalidKey", "good"]
    assert EmailAddress.objects.filter(email=NEXT, verified=True).count() == 1

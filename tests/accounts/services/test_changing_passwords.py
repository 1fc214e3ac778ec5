from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from django.core import mail
from django.db import connections
from django.utils import timezone

from svc_infra_django.accounts.models import AuditEvent, AuthSession, TOTPDevice
from svc_infra_django.accounts.services.changing_passwords import reset_password
from svc_infra_django.jobs.worker import drain
from tests.accounts.services.test_mfa import enrol
from tests.accounts.services.test_signing_up import mailed_key
from tests.conftest import PASSWORD

pytestmark = pytest.mark.django_db

NEXT = "another horse battery 8"


def asked(visitor: Any, email: str = "ada@example.com") -> str:
    assert visitor.post("password/reset", {"email": email}, token="").status_code == 202
    return mailed_key()


def test_rule_11_changing_needs_the_present_password(ada: Any) -> None:
    sent = {"current_password": "wrong", "password": NEXT}

    assert ada.post("password/change", sent).status_code == 401
    assert ada.login().status_code == 200


def test_rule_11_changing_ends_all_other_sessions_and_tells_the_user(
    ada: Any, new_visitor: Any, events: Any
) -> None:
    phone = new_visitor()
    phone.login()

    assert ada.post("password/change", {"current_password": PASSWORD, "password": NEXT}).status_code == 204

    assert phone.get("me").status_code == 401
    assert phone.refresh().status_code == 401
    assert ada.get("me").status_code == 200
    assert ada.refresh().status_code == 200
    assert len(ada.get("sessions").json()["items"]) == 1
    assert [event.type.name for event in events][-1] == "user.password_changed"
    drain()
    assert mail.outbox[-1].subject == "Your password was changed"
    assert new_visitor().login().status_code == 401
    assert new_visitor().login(password=NEXT).status_code == 200


def test_strangers_who_sign_up_with_an_address_do_not_keep_its_owner_from_a_new_password(
    user: Any, visitor: Any
) -> None:
    sent = {"email": "ada@example.com", "password": NEXT}
    assert [visitor.post("signup", sent).status_code for _ in range(6)] == [202] * 5 + [429]

    assert (
        visitor.post("password/reset/confirm", {"key": asked(visitor), "password": NEXT}).status_code == 204
    )


def notices() -> list[str]:
    drain()
    return [message.subject for message in mail.outbox if message.subject == "Your password was changed"]


def test_rules_15_and_63_a_password_that_staff_set_is_told_to_its_user(
    user: Any, make_user: Any, client: Any, settings: Any
) -> None:
    client.force_login(make_user("root", is_staff=True, is_superuser=True))
    sent = {"usable_password": "true", "password1": NEXT, "password2": NEXT}

    answer = client.post(f"/admin/auth/user/{user.pk}/password/", sent)

    assert answer.status_code == 302 and type(user).objects.get(pk=user.pk).check_password(NEXT)
    assert notices() == ["Your password was changed"]
    assert mail.outbox[-1].to == ["ada@example.com"]
    assert AuditEvent.objects.filter(name="user.password_changed", subject=user.pk).count() == 1


def test_a_new_password_is_told_once_and_nothing_else_is(ada: Any, user: Any, make_user: Any) -> None:
    make_user("bob")
    user.first_name = "Ada"
    user.save()
    user.set_unusable_password()
    user.save()
    assert notices() == []

    user.set_password(PASSWORD)
    user.save()
    user.save()
    assert len(notices()) == 1
    mail.outbox.clear()
    ada.login()
    ada.post("password/change", {"current_password": PASSWORD, "password": NEXT})
    assert len(notices()) == 1


def test_a_password_that_is_hashed_anew_is_no_news(user: Any, visitor: Any, settings: Any) -> None:
    settings.PASSWORD_HASHERS = ["tests.accounts.hashers.Counted", *settings.PASSWORD_HASHERS]
    before = user.password

    assert visitor.login().status_code == 200

    assert type(user).objects.get(pk=user.pk).password != before
    assert notices() == []


def test_changing_from_a_browser_session_keeps_it(user: Any, client: Any) -> None:
    client.force_login(user)
    sent = {"current_password": PASSWORD, "password": NEXT}
    path, kind = "/api/auth/password/change", "application/json"

    assert client.post(path, sent, content_type=kind).status_code == 204
    assert client.get("/api/auth/me").status_code == 200


def test_the_present_password_cannot_be_guessed_through_changing(ada: Any) -> None:
    sent = {"current_password": "wrong", "password": NEXT}
    codes = [ada.post("password/change", sent).status_code for _ in range(12)]

    assert codes == [401] * 10 + [429] * 2
    assert ada.get("me").status_code == 200


def test_a_bad_new_password_is_refused_everywhere(ada: Any) -> None:
    change = ada.post("password/change", {"current_password": PASSWORD, "password": "password"})
    reset = ada.post("password/reset/confirm", {"key": asked(ada), "password": "password"}, token="")

    for answer in (change, reset):
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == "/body/password"


def test_a_reset_sets_the_password_and_ends_every_session(ada: Any, new_visitor: Any) -> None:
    key = asked(ada)
    assert mail.outbox[-1].to == ["ada@example.com"]

    assert ada.post("password/reset/confirm", {"key": key, "password": NEXT}, token="").status_code == 204

    assert ada.get("me").status_code == 401
    assert AuthSession.objects.filter(revoked_for="password").count() == 1
    assert new_visitor().login(password=NEXT).status_code == 200


def test_rule_12_a_reset_key_is_good_once(user: Any, visitor: Any) -> None:
    key = asked(visitor)

    assert visitor.post("password/reset/confirm", {"key": key, "password": NEXT}).status_code == 204
    assert visitor.post("password/reset/confirm", {"key": key, "password": PASSWORD}).status_code == 422


@pytest.mark.django_db(transaction=True)
def test_rule_12_a_reset_key_used_six_times_at_once_is_good_once(make_user: Any, visitor: Any) -> None:
    make_user("ada")
    key = asked(visitor)
    outcomes: list[str] = []

    def attempt(number: int) -> None:
        try:
            reset_password(key, f"{NEXT} {number}", now=timezone.now())
            outcomes.append("good")
        except Exception as error:
            outcomes.append(type(error).__name__)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=attempt, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outcomes) == ["InvalidKey"] * 5 + ["good"]


def test_rule_12_a_reset_key_is_good_for_half_an_hour(user: Any, visitor: Any, monkeypatch: Any) -> None:
    key = asked(visitor)
    later = (timezone.now() + timedelta(minutes=30, seconds=5)).timestamp()
    monkeypatch.setattr("django.core.signing.time.time", lambda: later)

    assert visitor.post("password/reset/confirm", {"key": key, "password": NEXT}).status_code == 422


@pytest.mark.parametrize("change", ["password", "address", "more addresses", "disabled"])
def test_rule_12_a_reset_key_dies_with_what_it_was_made_for(user: Any, visitor: Any, change: str) -> None:
    key = asked(visitor)
    if change == "password":
        user.set_password("something else 9")
    elif change == "address":
        user.email = "elsewhere@example.com"
    elif change == "more addresses":
        EmailAddress.objects.create(user=user, email="second@example.com", verified=True)
    else:
        user.is_active = False
    user.save()

    assert visitor.post("password/reset/confirm", {"key": key, "password": NEXT}).status_code == 422


def test_rule_3_unknown_addresses_are_answered_alike_and_get_no_mail(user: Any, visitor: Any) -> None:
    known = visitor.post("password/reset", {"email": "ada@example.com"})
    unknown = visitor.post("password/reset", {"email": "nobody@example.com"})

    assert known.status_code == unknown.status_code == 202
    assert known.content == unknown.content
    drain()
    assert [message.to for message in mail.outbox] == [["ada@example.com"]]


def test_rule_14_mail_goes_to_the_stored_address_only(make_user: Any, visitor: Any) -> None:
    user = make_user("kate")
    user.email = "Kate@Example.com"
    user.save()
    visitor.post("password/reset", {"email": "\u212aate@example.com"})
    visitor.post("password/reset", {"email": "KATE@example.com "})
    drain()

    assert [message.to for message in mail.outbox] == [["Kate@Example.com"]]


def test_disabled_users_and_those_without_a_password_get_no_key(make_user: Any, visitor: Any) -> None:
    make_user("gone", is_active=False)
    empty = make_user("empty")
    empty.set_unusable_password()
    empty.save()
    for name in ("gone", "empty"):
        visitor.post("password/reset", {"email": f"{name}@example.com"})
    drain()

    assert not mail.outbox


def test_rule_13_a_reset_skips_no_second_factor(user: Any, visitor: Any) -> None:
    enrol(user)
    key = asked(visitor)
    answer = visitor.post("password/reset/confirm", {"key": key, "password": NEXT})

    assert answer.status_code == 204
    assert TOTPDevice.objects.filter(user=user, confirmed=True).exists()
    assert visitor.login(password=NEXT).json()["mfa_required"] is True


def test_a_reset_proves_the_address(visitor: Any) -> None:
    visitor.post("signup", {"email": "new@example.com", "password": PASSWORD})
    drain()
    key = asked(visitor, "new@example.com")

    assert visitor.post("password/reset/confirm", {"key": key, "password": NEXT}).status_code == 204
    assert visitor.login("new@example.com", NEXT).status_code == 200


def test_keys_for_other_things_reset_nothing(ada: Any, visitor: Any) -> None:
    visitor.post("signup", {"email": "new@example.com", "password": PASSWORD})
    verification = mailed_key()

    for key in (verification, ada.tokens["refresh_token"], "x", "1:ada@example.com"):
        assert visitor.post("password/reset/confirm", {"key": key, "password": NEXT}).status_code == 422

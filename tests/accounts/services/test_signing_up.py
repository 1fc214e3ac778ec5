from __future__ import annotations

import re
from datetime import timedelta
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from django.contrib.auth import get_user_model
from django.core import mail, signing
from django.db import transaction
from django.utils import timezone

from svc_infra_django.accounts import compat
from svc_infra_django.accounts.compat import locked_address
from svc_infra_django.accounts.errors import InvalidKey
from svc_infra_django.accounts.services import signing_up
from svc_infra_django.accounts.services.signing_up import verify_email
from svc_infra_django.accounts.signing import RESET, VERIFY, make_key, verification_state
from svc_infra_django.jobs.models import Job
from svc_infra_django.jobs.worker import drain
from tests.conftest import PASSWORD, held_up

pytestmark = pytest.mark.django_db

NEW = {"email": "new@example.com", "password": PASSWORD}


def mailed_key() -> str:
    drain()
    found = re.search(r"^  (\S+)$", str(mail.outbox[-1].body), re.MULTILINE)
    assert found is not None
    return found[1]


def verify(visitor: Any, key: str, password: str = NEW["password"]) -> Any:
    return visitor.post("email/verify", {"key": key, "password": password})


def test_an_account_can_be_used_once_its_address_is_proven(visitor: Any, events: Any) -> None:
    assert visitor.post("signup", NEW).status_code == 202
    assert visitor.login("new@example.com").status_code == 401

    key = mailed_key()
    assert mail.outbox[0].to == ["new@example.com"]
    assert verify(visitor, key).status_code == 204
    assert visitor.login("new@example.com").status_code == 200
    names = [event.type.name for event in events if event.type.name.startswith("user.")]
    assert names == ["user.signed_up", "user.email_verified", "user.logged_in"]


def test_a_key_is_good_once(visitor: Any) -> None:
    visitor.post("signup", NEW)
    key = mailed_key()

    assert verify(visitor, key).status_code == 204
    again = verify(visitor, key)
    assert again.status_code == 422
    assert again.json()["errors"][0]["pointer"] == "/body/key"


def test_rule_12_a_verification_cannot_be_forged(visitor: Any) -> None:
    visitor.post("signup", NEW)
    address = EmailAddress.objects.get(email="new@example.com")
    state = verification_state(address)
    forged = [
        signing.dumps([str(address.pk), "x"], key="unused", salt=f"svc_infra_django.{VERIFY}"),
        signing.dumps([str(address.pk), "x"], salt="svc_infra_django.another"),
        make_key(RESET, address.pk, state),
        make_key(VERIFY, address.pk + 1, state),
        make_key(VERIFY, address.pk, (*state, "more")),
        signing.dumps("7", salt=f"svc_infra_django.{VERIFY}"),
        signing.dumps([1, 2, 3], salt=f"svc_infra_django.{VERIFY}"),
        "unused",
        ":::",
    ]

    assert [verify(visitor, key).status_code for key in forged] == [422] * len(forged)
    address.refresh_from_db()
    assert not address.verified


def test_a_key_is_good_for_a_day(visitor: Any, svc_settings: Any, monkeypatch: Any) -> None:
    visitor.post("signup", NEW)
    key = mailed_key()
    later = (timezone.now() + timedelta(days=1, seconds=5)).timestamp()
    monkeypatch.setattr("django.core.signing.time.time", lambda: later)

    with pytest.raises(InvalidKey):
        verify_email(key, NEW["password"], now=timezone.now())


def test_rule_3_signing_up_with_a_taken_address_answers_alike_and_tells_its_owner(
    user: Any, visitor: Any
) -> None:
    fresh = visitor.post("signup", NEW)
    taken = visitor.post("signup", {**NEW, "email": "ada@example.com"})

    assert taken.status_code == fresh.status_code == 202
    assert taken.content == fresh.content
    drain()
    assert mail.outbox[-1].to == ["ada@example.com"]
    assert mail.outbox[-1].subject == "You have an account already"
    assert visitor.login("ada@example.com").status_code == 200
    assert get_user_model().objects.filter(email="ada@example.com").count() == 1


def test_of_two_sign_ups_with_an_unproven_address_the_last_counts(visitor: Any) -> None:
    visitor.post("signup", {**NEW, "password": "the attacker's 7 horses"})
    first = mailed_key()
    visitor.post("signup", NEW)
    second = mailed_key()

    assert verify(visitor, first).status_code == 422
    assert verify(visitor, second).status_code == 204
    assert visitor.login("new@example.com", "the attacker's 7 horses").status_code == 401
    assert visitor.login("new@example.com").status_code == 200


def test_rule_12_a_sign_up_that_comes_while_the_address_is_proved_changes_no_password(
    visitor: Any, monkeypatch: Any
) -> None:
    sent = {"email": "ada@example.com", "password": PASSWORD}
    assert visitor.post("signup", sent).status_code == 202
    waiting_address = signing_up.waiting_address

    def just_before_it_was_proved(address: str) -> Any:
        row = waiting_address(address)
        EmailAddress.objects.update(verified=True)
        return row

    monkeypatch.setattr(signing_up, "waiting_address", just_before_it_was_proved)
    assert visitor.post("signup", {**sent, "password": "the password of a stranger 7"}).status_code == 202

    assert visitor.login(password="the password of a stranger 7").status_code == 401
    assert visitor.login().status_code == 200


@pytest.mark.django_db(transaction=True)
@pytest.mark.postgresql
def test_of_two_sign_ups_at_once_there_is_one_account_and_it_can_be_proved(
    visitor: Any, new_visitor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = signing_up.new_user
    statuses: list[int] = []

    second: list[Thread] = []

    def sign_up(visitor: Any) -> None:
        statuses.append(visitor.post("signup", NEW).status_code)

    def make_while_another_comes(address: str, password: str) -> Any:
        monkeypatch.setattr(signing_up, "new_user", make)
        second.append(held_up(lambda: sign_up(new_visitor())))
        return make(address, password)

    monkeypatch.setattr(signing_up, "new_user", make_while_another_comes)
    sign_up(visitor)
    second[0].join()

    assert statuses == [202, 202]
    assert get_user_model().objects.filter(email=NEW["email"]).count() == 1
    assert verify(visitor, mailed_key()).status_code == 204


@pytest.mark.django_db(transaction=True)
@pytest.mark.postgresql
def test_rule_12_who_proves_an_address_sees_the_password_that_a_sign_up_has_just_set(visitor: Any) -> None:
    visitor.post("signup", {"email": "ada@example.com", "password": PASSWORD})
    row = EmailAddress.objects.get()
    seen: list[str] = []

    @transaction.atomic
    def prove() -> None:
        seen.append(locked_address(str(row.pk)).user.password)  # type: ignore[union-attr]

    with transaction.atomic():
        user = locked_address(str(row.pk)).user  # type: ignore[union-attr]
        user.set_password("the password of a stranger 7")
        user.save(update_fields=["password"])
        prover = held_up(prove)
    prover.join()

    assert seen == [user.password]


def test_a_user_model_that_knows_no_staff_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody_special = SimpleNamespace(last_login=timezone.now(), is_active=True)
    monkeypatch.setattr(compat, "user_with_address", lambda address: nobody_special)

    assert compat.waiting_address(NEW["email"]) is None


def test_whoever_owns_an_address_cannot_open_the_account_of_a_stranger_with_it(visitor: Any) -> None:
    visitor.post("signup", NEW)
    visitor.post("signup", {**NEW, "password": "the attacker's 7 horses"})
    key = mailed_key()

    refused = verify(visitor, key)

    assert refused.status_code == 401
    assert refused.json()["code"] == "accounts.wrong_password"
    assert visitor.login("new@example.com", "the attacker's 7 horses").status_code == 401
    visitor.post("signup", NEW)
    assert verify(visitor, mailed_key()).status_code == 204
    assert visitor.login("new@example.com").status_code == 200


def test_passwords_cannot_be_guessed_with_a_key(visitor: Any, svc_settings: Any) -> None:
    svc_settings(accounts={"login_attempts": 3})
    visitor.post("signup", NEW)
    key = mailed_key()

    answers = [verify(visitor, key, f"guess number {n}").status_code for n in range(5)]

    assert answers == [401, 401, 401, 429, 429]


def test_logging_in_before_proving_sends_the_mail_again(visitor: Any) -> None:
    visitor.post("signup", NEW)
    drain()
    visitor.login("new@example.com")
    assert verify(visitor, mailed_key()).status_code == 204
    assert len(mail.outbox) == 2


@pytest.mark.parametrize(
    "password", ["a", "1234567", "12345678", "password", "qwertyuiop", "new@example.com", "newexample"]
)
def test_rule_9_bad_passwords_are_refused_and_not_repeated(visitor: Any, password: str) -> None:
    answer = visitor.post("signup", {**NEW, "password": password})

    assert answer.status_code == 422
    assert answer.json()["code"] == "accounts.password_refused"
    assert {each["pointer"] for each in answer.json()["errors"]} == {"/body/password"}
    assert not get_user_model().objects.exists()


def test_rule_8_passwords_of_any_composition_and_length_are_taken(visitor: Any) -> None:
    for number, password in enumerate(["ÄöΩ жжж 漢字 🐴 ok", "x y z " * 150, "only lower case words"]):
        answer = visitor.post("signup", {"email": f"new{number}@example.com", "password": password})
        assert answer.status_code == 202, answer.content


@pytest.mark.parametrize(
    "email",
    [
        *("new", "new@", "@example.com", "a@b", "\u212a@example.com", "\u0131an@example.com"),
        *('"x@evil.example"@example.com', '"\x1b[31m"@example.com', "=?x?q?x=40evil=3e=00?=@example.com"),
        *("root@[127.0.0.1]", "root@[IPv6:::1]", "a,b@example.com", "a@example.com\u2028"),
    ],
)
def test_rule_14_what_is_no_plain_address_is_refused(visitor: Any, email: str) -> None:
    answer = visitor.post("signup", {**NEW, "email": email})

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/body/email"


@pytest.mark.parametrize(
    "field", ["is_staff", "is_superuser", "username", "verified", "owner", "tenant", "groups"]
)
def test_rule_60_no_other_field_is_taken(visitor: Any, field: str) -> None:
    assert visitor.post("signup", {**NEW, field: True}).status_code == 422


def test_rule_60_a_new_user_is_nobody_special(visitor: Any) -> None:
    visitor.post("signup", NEW)

    user = get_user_model().objects.get()
    assert (user.is_staff, user.is_superuser, user.get_all_permissions()) == (False, False, set())


def test_an_address_gets_five_mails_an_hour(user: Any, visitor: Any) -> None:
    known = [visitor.post("signup", {**NEW, "email": "ada@example.com"}).status_code for _ in range(7)]
    unknown = [visitor.post("signup", NEW).status_code for _ in range(7)]

    assert known == unknown == [202] * 5 + [429] * 2


def test_signing_up_can_be_closed(visitor: Any, svc_settings: Any) -> None:
    svc_settings(accounts={"signup_open": False})

    assert visitor.post("signup", NEW).status_code == 403


def test_without_verification_an_account_works_at_once(visitor: Any, svc_settings: Any) -> None:
    svc_settings(accounts={"email_verification": False})
    visitor.post("signup", NEW)

    assert visitor.login("new@example.com").status_code == 200


def test_rule_12_links_come_from_settings_never_from_the_request(visitor: Any, svc_settings: Any) -> None:
    svc_settings(accounts={"email_verification_url": "https://app.example.com/verify#{key}"})
    visitor.post("signup", NEW, headers={"Host": "evil.example", "X-Forwarded-Host": "evil.example"})

    assert mailed_key().startswith("https://app.example.com/verify#")
    assert "evil" not in str(mail.outbox[0].body)


def test_rule_12_no_job_carries_a_key_or_a_password(visitor: Any) -> None:
    visitor.post("signup", NEW)
    visitor.post("password/reset", {"email": "new@example.com"})

    jobs = list(Job.objects.values())
    assert len(jobs) == 2
    assert PASSWORD not in str(jobs)
    assert {str(job["args"]) for job in jobs} == {"{'args': ['new@example.com'], 'kwargs': {}}"}

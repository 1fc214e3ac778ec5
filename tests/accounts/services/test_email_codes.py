"""The mailbox as a second factor."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from django.core import mail
from django.utils import timezone

from svc_infra_django.accounts.errors import AlreadyAdded, TooManyAttempts, WrongCode
from svc_infra_django.accounts.models import EmailDevice, Throttle
from svc_infra_django.accounts.services.enrolling_mfa import begin_email, mail_code
from svc_infra_django.accounts.services.verifying_mfa import prove_factor
from svc_infra_django.jobs.models import Job
from svc_infra_django.jobs.worker import drain
from tests.accounts.services.test_mfa import code_now, enrol, race

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def no_slowing_down(settings: Any) -> None:
    settings.OTP_TOTP_THROTTLE_FACTOR = 0


def mailed() -> str:
    mail.outbox.clear()
    drain()
    messages = [message for message in mail.outbox if message.subject == "Your code"]
    assert len(messages) == 1
    found = re.search(r"^  (\d{8})$", str(messages[0].body), re.MULTILINE)
    assert found is not None
    return found[1]


@pytest.fixture
def boxed(ada: Any, user: Any) -> Any:
    """Ada, whose mailbox is her second factor."""
    assert ada.post("mfa/email", {}).status_code == 202
    assert ada.post("mfa/email/confirm", {"code": mailed()}).status_code == 200
    drain()
    return ada


def test_a_mailbox_is_confirmed_and_then_asked_at_every_login(boxed: Any, new_visitor: Any) -> None:
    visitor = new_visitor()
    token = visitor.login().json()["mfa_token"]

    assert visitor.post("mfa/email/send", {"mfa_token": token}).status_code == 202
    done = visitor.post("mfa/verify", {"mfa_token": token, "code": mailed()})

    assert visitor.get("me", token=done.json()["access_token"]).json()["amr"] == ["pwd", "otp", "mfa"]


def test_recovery_codes_come_with_it(ada: Any) -> None:
    ada.post("mfa/email", {})

    assert len(ada.post("mfa/email/confirm", {"code": mailed()}).json()["recovery_codes"]) == 10
    assert [each["kind"] for each in ada.get("mfa/devices").json()["devices"]] == ["emaildevice"]
    assert ada.post("mfa/email", {}).status_code == 401  # by password only: not fresh enough any more


def test_a_code_is_good_once_and_a_newer_voids_it(boxed: Any, user: Any) -> None:
    mail_code(user, now=timezone.now())
    first = mailed()
    mail_code(user, now=timezone.now())
    second = mailed()

    with pytest.raises(WrongCode):
        prove_factor(user, first, now=timezone.now())
    prove_factor(user, second, now=timezone.now())
    with pytest.raises(WrongCode):
        prove_factor(user, second, now=timezone.now())


def test_a_code_is_good_for_ten_minutes(boxed: Any, user: Any) -> None:
    mail_code(user, now=timezone.now())
    code = mailed()
    EmailDevice.objects.update(expires_at=timezone.now() - timedelta(seconds=1))

    with pytest.raises(WrongCode):
        prove_factor(user, code, now=timezone.now())


def test_rule_36_neither_table_nor_job_holds_a_code(boxed: Any, user: Any) -> None:
    mail_code(user, now=timezone.now())
    code = mailed()

    assert code not in str(list(EmailDevice.objects.values())) + str(list(Job.objects.values()))


@pytest.mark.django_db(transaction=True)
def test_of_six_uses_of_one_mailed_code_at_once_one_counts(make_user: Any) -> None:
    user = make_user("ada")
    EmailDevice.objects.create(user=user, name="E-mail", confirmed=True)
    mail_code(user, now=timezone.now())
    code = mailed()

    outcomes = race(6, lambda: prove_factor(user, code, now=timezone.now()))

    assert outcomes.count("good") == 1


@pytest.mark.django_db(transaction=True)
def test_six_who_begin_with_a_mailbox_at_once_all_get_a_code(make_user: Any) -> None:
    user = make_user("ada")

    for _ in range(3):
        EmailDevice.objects.all().delete()
        Throttle.objects.all().delete()
        assert race(5, lambda: begin_email(user, now=timezone.now())) == ["good"] * 5
    assert EmailDevice.objects.count() == 1


def test_a_mailbox_that_waits_can_be_begun_anew_and_one_that_counts_cannot(ada: Any, user: Any) -> None:
    begin_email(user, now=timezone.now() - timedelta(hours=1))
    first = mailed()
    begin_email(user, now=timezone.now())

    assert ada.post("mfa/email/confirm", {"code": first}).status_code == 401
    assert ada.post("mfa/email/confirm", {"code": mailed()}).status_code == 200
    with pytest.raises(AlreadyAdded):
        begin_email(user, now=timezone.now())
    assert EmailDevice.objects.get().confirmed


def test_codes_of_an_app_and_of_a_mailbox_stand_side_by_side(boxed: Any, user: Any) -> None:
    device, _ = enrol(user)
    mail_code(user, now=timezone.now())

    prove_factor(user, mailed(), now=timezone.now())
    prove_factor(user, code_now(device), now=timezone.now())


def test_an_address_gets_five_codes_an_hour(boxed: Any, user: Any) -> None:
    for _ in range(4):
        mail_code(user, now=timezone.now())

    with pytest.raises(TooManyAttempts):
        mail_code(user, now=timezone.now())


def test_an_address_that_is_not_proven_is_no_factor(ada: Any, user: Any) -> None:
    EmailAddress.objects.create(user=user, email="ada@example.com", verified=False, primary=True)

    refused = ada.post("mfa/email", {})

    assert (refused.status_code, refused.json()["code"]) == (409, "accounts.no_mailbox")


def test_whoever_has_no_mailbox_gets_no_code(user: Any, visitor: Any, ada: Any) -> None:
    assert ada.post("mfa/email/code").status_code == 409
    assert visitor.post("mfa/email/send", {"mfa_token": "mfa_x"}).status_code == 401


def test_a_stopped_user_is_stopped_for_mailed_codes_too(boxed: Any, user: Any) -> None:
    for _ in range(10):
        with pytest.raises(WrongCode):
            prove_factor(user, "00000000", now=timezone.now())
    mail_code(user, now=timezone.now())

    with pytest.raises(TooManyAttempts):
        prove_factor(user, mailed(), now=timezone.now())

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.core import mail
from django.test import Client
from django.utils import timezone

from svc_infra_django.accounts.models import MFAChallenge, RecoveryCode, Throttle, TOTPDevice
from svc_infra_django.accounts.sites import SecondFactorAdminSite
from svc_infra_django.jobs.worker import drain
from tests.accounts.services.test_mfa import code_now, enrol
from tests.conftest import PASSWORD

pytestmark = pytest.mark.django_db

LOGIN = "/admin/login/?next=/admin/svc_accounts/"


@pytest.fixture(autouse=True)
def no_slowing_down(settings: Any) -> None:
    settings.OTP_TOTP_THROTTLE_FACTOR = 0


@pytest.fixture
def strict(svc_settings: Any) -> None:
    svc_settings(accounts={"staff_second_factor": True})


@pytest.fixture
def boss(make_user: Any) -> Any:
    return make_user("boss", is_staff=True, is_superuser=True)


def step(client: Any, **fields: Any) -> Any:
    return client.post(LOGIN, {"next": "/admin/svc_accounts/", **fields})


def first_step(client: Any, username: str = "boss", password: str = PASSWORD) -> Any:
    return step(client, username=username, password=password)


def is_in(client: Any) -> bool:
    return bool(client.get("/admin/").status_code == 200)


def test_one_line_of_settings_puts_the_site_in_the_place_of_djangos() -> None:
    assert isinstance(admin.site, SecondFactorAdminSite)
    assert len(admin.site._registry) > 10


def test_staff_enter_by_password_and_code(boss: Any, client: Any, events: Any) -> None:
    device, _ = enrol(boss)

    page = first_step(client)
    assert (page.status_code, page.url) == (302, LOGIN)
    assert not is_in(client)
    assert "recovery code" in client.get(LOGIN).content.decode()

    entered = step(client, code=code_now(device))
    assert (entered.status_code, entered.url) == (302, "/admin/svc_accounts/")
    assert is_in(client)
    assert client.get("/api/auth/me").json()["amr"] == ["pwd", "otp", "mfa"]
    assert [event.type.name for event in events][-1] == "admin.entered"


def test_a_stranger_who_is_called_as_staff_write_keeps_nobody_out(
    boss: Any, make_user: Any, client: Any
) -> None:
    mallory = make_user("mallory")
    mallory.username = "boss@example.com"
    mallory.save()
    device, _ = enrol(boss)

    first_step(client, username="boss@example.com")

    assert step(client, code=code_now(device)).status_code == 302
    assert is_in(client)


def test_rule_15_staff_hear_of_a_browser_that_is_new(boss: Any) -> None:
    device, _ = enrol(boss)
    for agent in ("Firefox on Linux", "Safari on iPhone"):
        client = Client(headers={"User-Agent": agent})
        first_step(client)
        assert step(client, code=code_now(device)).status_code == 302
        TOTPDevice.objects.update(last_step=-1)
    drain()

    assert [message.subject for message in mail.outbox][-1:] == ["A login from a new device"]
    assert sum(message.subject == "A login from a new device" for message in mail.outbox) == 1


def test_a_key_that_somebody_put_into_the_browser_is_changed_at_each_step(boss: Any, client: Any) -> None:
    device, _ = enrol(boss)
    session = client.session
    session["planted"] = True
    session.save()
    client.cookies["sessionid"] = session.session_key
    keys = [session.session_key]

    first_step(client)
    keys.append(client.cookies["sessionid"].value)
    step(client, code=code_now(device))
    keys.append(client.cookies["sessionid"].value)

    assert is_in(client)
    assert len(set(keys)) == 3
    for key in keys[:2]:
        thief = Client()
        thief.cookies["sessionid"] = key
        assert not is_in(thief)


def test_a_wrong_code_opens_nothing_and_can_be_tried_again(boss: Any, client: Any) -> None:
    device, _ = enrol(boss)
    first_step(client)

    assert "wrong, too old" in step(client, code="000000").content.decode()
    assert not is_in(client)
    step(client, code=code_now(device))
    assert is_in(client)


def test_a_recovery_code_opens_the_admin_once(boss: Any, client: Any) -> None:
    _, codes = enrol(boss)
    first_step(client)
    step(client, code=codes[0])
    assert is_in(client)

    client.post("/admin/logout/")
    first_step(client)
    step(client, code=codes[0])
    assert not is_in(client)


def test_five_wrong_codes_want_the_password_again(boss: Any, client: Any) -> None:
    device, _ = enrol(boss)
    first_step(client)
    for _ in range(5):
        step(client, code="000000")

    assert step(client, code=code_now(device)).status_code == 302
    assert not is_in(client)
    assert 'name="password"' in client.get(LOGIN).content.decode()


def test_the_second_step_runs_out(boss: Any, client: Any) -> None:
    enrol(boss)
    first_step(client)
    MFAChallenge.objects.update(expires_at=timezone.now() - timedelta(seconds=1))

    assert 'name="password"' in client.get(LOGIN).content.decode()


def test_one_may_start_again(boss: Any, client: Any) -> None:
    enrol(boss)
    first_step(client)

    assert 'name="password"' in step(client, again="1").content.decode()


def test_staff_may_enter_by_address_too(boss: Any, client: Any) -> None:
    enrol(boss)

    assert first_step(client, "BOSS@example.com").status_code == 302


@pytest.mark.usefixtures("strict")
def test_rule_46_no_admin_page_without_a_factor(boss: Any, client: Any) -> None:
    client.force_login(boss)

    assert client.get("/admin/").status_code == 302
    assert client.get("/admin/svc_accounts/authsession/").status_code == 302


@pytest.mark.usefixtures("strict")
def test_rule_46_staff_without_a_device_add_one_on_their_way_in(boss: Any, client: Any) -> None:
    first_step(client)
    page = client.get(LOGIN).content.decode()
    device = TOTPDevice.objects.get()
    assert "<svg" in page and not is_in(client)

    assert code_of_page(page) == code_of_page(step(client, code="000000").content.decode())
    codes = step(client, code=code_now(device)).content.decode()
    assert len(re.findall(r"([0-9a-z]{6}-){3}[0-9a-z]{6}", codes)) == 10
    assert RecoveryCode.objects.unused(boss).count() == 10
    assert is_in(client)


def code_of_page(page: str) -> str:
    found = re.search(r"<code>(\w+)</code>", page)
    assert found is not None
    return found[1]


@pytest.mark.usefixtures("strict")
def test_rule_46_a_key_shown_to_another_browser_is_never_confirmed_here(boss: Any, client: Any) -> None:
    from django.test import Client

    thief = Client()
    first_step(thief)
    stolen = code_of_page(thief.get(LOGIN).content.decode())

    first_step(client)
    assert code_of_page(client.get(LOGIN).content.decode()) != stolen


@pytest.mark.usefixtures("strict")
def test_rule_46_a_session_of_another_login_opens_no_admin_and_no_api(boss: Any, client: Any) -> None:
    enrol(boss)
    client.force_login(boss)

    assert client.get("/admin/").status_code == 302
    refused = client.get("/api/auth/me")
    assert (refused.status_code, refused.json()["code"]) == (401, "second_factor_missing")


@pytest.mark.usefixtures("strict")
def test_rule_46_the_api_refuses_staff_sessions_without_a_device(boss: Any, user: Any, client: Any) -> None:
    client.force_login(boss)
    assert client.get("/api/auth/me").status_code == 401

    client.force_login(user)
    assert client.get("/api/auth/me").status_code == 200


def test_rule_1_wrong_unknown_and_not_staff_look_the_same(boss: Any, user: Any, client: Any) -> None:
    pages = [
        first_step(client, "boss", "wrong"),
        first_step(client, "nobody", PASSWORD),
        first_step(client, "ada", PASSWORD),
    ]

    texts = {re.sub(r'value="[^"]*"', "", page.content.decode()) for page in pages}
    assert len(texts) == 1
    assert {page.status_code for page in pages} == {200}


def test_rule_4_the_admin_counts_wrong_passwords_with_the_api(boss: Any, client: Any, visitor: Any) -> None:
    for number in range(5):
        first_step(client, "boss" if number % 2 else "boss@example.com", "wrong")
        visitor.login("boss@example.com", "wrong")

    assert "Too many attempts" in first_step(client).content.decode()
    assert visitor.login("boss@example.com").status_code == 429


def test_rule_4_the_present_password_is_not_guessed_in_the_admin_either(
    boss: Any, client: Any, visitor: Any, events: Any
) -> None:
    device, _ = enrol(boss)
    first_step(client)
    step(client, code=code_now(device))
    following = "another horse battery 8"

    def change(present: str) -> Any:
        sent = {"old_password": present, "new_password1": following, "new_password2": following}
        return client.post("/admin/password_change/", sent)

    assert [change("wrong").status_code for _ in range(10)] == [200] * 10
    assert [event.type.name for event in events][-1] == "login.proof_failed"
    stopped = change(PASSWORD)
    assert (stopped.status_code, stopped.url) == (302, "/admin/password_change/")
    assert "Too many" in client.get("/admin/password_change/").content.decode()
    assert type(boss).objects.get(pk=boss.pk).check_password(PASSWORD)

    Throttle.objects.all().delete()
    assert change("wrong").status_code == 200
    assert change(PASSWORD).url == "/admin/password_change/done/"
    assert not Throttle.objects.exclude(count=0).exists()
    assert is_in(client)


def test_rule_36_the_session_keeps_no_token_between_the_steps(boss: Any, client: Any) -> None:
    enrol(boss)
    first_step(client)

    assert "mfa_" not in str(dict(client.session))


def test_rule_52_the_login_leads_nowhere_else(boss: Any, client: Any) -> None:
    device, _ = enrol(boss)
    evil = "/admin/login/?next=https://evil.example/"
    client.post(evil, {"username": "boss", "password": PASSWORD})

    entered = client.post(evil, {"next": "//evil.example/", "code": code_now(device)})

    assert entered.url == "/admin/"


def test_a_login_form_of_another_site_is_refused(boss: Any) -> None:
    from django.test import Client

    hostile = Client(enforce_csrf_checks=True)

    assert first_step(hostile).status_code == 403


def test_disabled_staff_stay_outside(boss: Any, client: Any) -> None:
    device, _ = enrol(boss)
    first_step(client)
    type(boss).objects.update(is_active=False)

    step(client, code=code_now(device))

    assert not is_in(client)

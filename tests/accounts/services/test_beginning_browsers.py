from __future__ import annotations

from typing import Any

import pytest
from django.core import mail
from django.test import Client

from svc_infra_django.accounts.models import AuditEvent, AuthSession, TOTPDevice
from svc_infra_django.jobs.worker import drain
from tests.accounts.services.test_mfa import code_now, enrol
from tests.conftest import PASSWORD

pytestmark = pytest.mark.django_db

ADA = {"email": "ada@example.com", "password": PASSWORD, "session": True}


@pytest.fixture(autouse=True)
def no_slowing_down(settings: Any) -> None:
    settings.OTP_TOTP_THROTTLE_FACTOR = 0


class Page:
    """A page in a browser: it has cookies, and sends the CSRF token that it was told."""

    def __init__(self, **defaults: Any) -> None:
        self.http = Client(enforce_csrf_checks=True, **defaults)
        self.csrf = self.http.get("/api/auth/csrf").json()["csrf_token"]

    def post(self, path: str, data: Any = None, **headers: str) -> Any:
        answer = self.http.post(
            f"/api/auth/{path}",
            data or {},
            content_type="application/json",
            headers={"X-CSRFToken": self.csrf, **headers},
        )
        if answer.status_code == 200:
            self.csrf = answer.json().get("csrf_token", self.csrf)
        return answer

    def get(self, path: str) -> Any:
        return self.http.get(f"/api/auth/{path}")


@pytest.fixture
def page() -> Page:
    return Page()


def test_a_page_logs_in_stays_in_and_logs_out(user: Any, page: Page) -> None:
    begun = page.post("login", ADA)

    assert begun.status_code == 200
    assert set(begun.json()) == {"session", "csrf_token", "expires_in"}
    assert begun["Cache-Control"] == "no-store"
    me = page.get("me").json()
    assert (me["id"], me["method"], me["amr"]) == (str(user.pk), "session", ["pwd"])
    assert me["auth_time"] is not None
    sessions = page.get("sessions").json()["items"]
    assert [(row["kind"], row["is_current"], row["amr"]) for row in sessions] == [("browser", True, ["pwd"])]
    assert AuditEvent.objects.filter(name="user.logged_in", subject=str(user.pk)).count() == 1

    assert page.post("logout").status_code == 204
    assert page.get("me").status_code == 401


def test_rule_38_the_cookie_is_kept_from_scripts_and_other_sites(
    user: Any, page: Page, settings: Any
) -> None:
    settings.SESSION_COOKIE_SECURE = True

    cookie = page.post("login", ADA).cookies["sessionid"]

    assert (cookie["secure"], cookie["httponly"], cookie["samesite"]) == (True, True, "Lax")


def test_rule_38_another_site_logs_nobody_in(user: Any, page: Page) -> None:
    without = Client(enforce_csrf_checks=True).post("/api/auth/login", ADA, content_type="application/json")
    foreign = page.post("login", ADA, Origin="https://evil.example")
    page.csrf = "x" * 64
    forged = page.post("login", ADA)

    for answer in (without, foreign, forged):
        assert (answer.status_code, answer.json()["code"]) == (403, "csrf_failed")
        assert "sessionid" not in answer.cookies
    assert not AuthSession.objects.exists()


@pytest.mark.parametrize("path", ["mfa/verify", "mfa/enrol/confirm"])
def test_rule_38_nor_does_it_finish_a_login_of_its_own_here(db: None, page: Page, path: str) -> None:
    page.csrf = "x" * 64

    answer = page.post(path, {"mfa_token": "mfa_of_somebody_else", "code": "123456", "session": True})

    assert answer.json()["code"] == "csrf_failed"


def test_what_changes_something_wants_the_token_afterwards_too(user: Any, page: Page) -> None:
    page.post("login", ADA)
    page.csrf = ""

    assert page.post("logout-all").json()["code"] == "csrf_failed"
    assert page.get("me").status_code == 200


def test_a_session_that_somebody_put_into_the_browser_is_not_the_one_that_is_begun(
    user: Any, stranger: Any, page: Page
) -> None:
    planted = Client()
    planted.force_login(stranger)
    key = planted.cookies["sessionid"].value
    page.http.cookies["sessionid"] = key

    assert page.post("login", ADA).status_code == 200

    assert page.http.cookies["sessionid"].value != key
    assert page.get("me").json()["id"] == str(user.pk)
    assert planted.get("/api/auth/me").status_code == 401


def test_rule_39_a_device_puts_a_second_step_before_the_session(user: Any, page: Page) -> None:
    device, _ = enrol(user)
    first = page.post("login", ADA)
    assert first.json()["mfa_required"] is True
    assert "sessionid" not in first.cookies
    assert page.get("me").status_code == 401

    sent = {"mfa_token": first.json()["mfa_token"], "code": code_now(device), "session": True}
    assert page.post("mfa/verify", sent).status_code == 200

    assert page.get("me").json()["amr"] == ["pwd", "otp", "mfa"]
    assert page.post("mfa/verify", sent).status_code == 401


def test_rule_46_staff_without_a_device_add_one_before_the_session(
    make_user: Any, page: Page, svc_settings: Any
) -> None:
    svc_settings(accounts={"staff_second_factor": True})
    make_user("boss", is_staff=True)
    token = page.post("login", {**ADA, "email": "boss@example.com"}).json()["mfa_token"]
    page.post("mfa/enrol", {"mfa_token": token})
    code = code_now(TOTPDevice.objects.get())

    begun = page.post("mfa/enrol/confirm", {"mfa_token": token, "code": code, "session": True})

    assert len(begun.json()["recovery_codes"]) == 10
    assert "access_token" not in begun.json()
    assert page.get("me").json()["amr"] == ["pwd", "otp", "mfa"]


def test_rule_15_a_browser_that_is_new_is_told_by_mail(user: Any) -> None:
    for agent in ("Firefox on Linux", "Firefox on Linux", "Safari on iPhone"):
        Page(headers={"User-Agent": agent}).post("login", ADA)
    drain()

    assert [message.subject for message in mail.outbox] == ["A login from a new device"]
    assert "Safari on iPhone" in str(mail.outbox[0].body)


def test_wrong_passwords_count_as_for_tokens(user: Any, page: Page) -> None:
    codes = [page.post("login", {**ADA, "password": "wrong"}).status_code for _ in range(11)]

    assert codes == [401] * 10 + [429]


def test_a_session_that_nobody_could_end_is_not_begun(user: Any, settings: Any) -> None:
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"

    answer = Page(raise_request_exception=False).post("login", ADA)

    assert answer.status_code == 500
    assert "sessionid" not in answer.cookies

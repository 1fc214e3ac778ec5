from __future__ import annotations

from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from svc_infra_django.accounts.models import AuthSession, EmailDevice, Throttle, TOTPDevice
from svc_infra_django.accounts.services.enrolling_mfa import begin_totp
from svc_infra_django.accounts.services.issuing_tokens import issue_tokens

pytestmark = pytest.mark.django_db

MODELS = ["authsession", "totpdevice", "emaildevice", "throttle"]


def url(model: str, page: str = "changelist", *arguments: Any) -> str:
    return reverse(f"admin:svc_accounts_{model}_{page}", args=arguments)


def act(client: Any, model: str, action: str, *pks: Any) -> Any:
    return client.post(
        url(model), {"action": action, "_selected_action": [str(pk) for pk in pks]}, follow=True
    )


@pytest.fixture
def watcher(make_user: Any, client: Any) -> Any:
    """Staff who may look and do nothing."""
    user = make_user("watcher", is_staff=True)
    user.user_permissions.set(
        Permission.objects.filter(
            codename__in=[f"view_{model}" for model in MODELS], content_type__app_label="svc_accounts"
        )
    )
    client.force_login(user)
    return client


def test_staff_end_a_session_and_its_next_call_fails(ada: Any, admin_client: Any) -> None:
    session = AuthSession.objects.get(browser_digest=None)

    page = act(admin_client, "authsession", "end_selected", session.pk)

    assert "1 session was ended." in page.content.decode()
    assert ada.get("me").status_code == 401
    assert AuthSession.objects.get(browser_digest=None).revoked_for == "admin"


@pytest.mark.parametrize(
    ("model", "action"), [("authsession", "end_selected"), ("totpdevice", "remove_selected")]
)
def test_rule_65_what_no_page_offers_is_not_there(admin_client: Any, model: str, action: str) -> None:
    for key in ("zzz", "9" * 60, "\x00", "-1"):
        assert act(admin_client, model, action, key).status_code == 200, key
    for query in (
        "created_at__year=99999999",
        "created_at__year=0",
        "id__exact=zzz",
        "p=9999999999999999999",
    ):
        assert admin_client.get(f"{url(model)}?{query}", follow=True).status_code == 200, query


def test_rule_37_staff_end_all_sessions_of_a_user(
    ada: Any, new_visitor: Any, stranger: Any, admin_client: Any
) -> None:
    phone, other = new_visitor(), new_visitor()
    phone.login()
    other.login("mallory@example.com")

    act(
        admin_client,
        "authsession",
        "end_all_of_users",
        AuthSession.objects.filter(owner__username="ada")[0].pk,
    )

    assert ada.get("me").status_code == phone.get("me").status_code == 401
    assert other.get("me").status_code == 200


def test_staff_unlock_an_account(user: Any, visitor: Any, admin_client: Any) -> None:
    for _ in range(11):
        visitor.login(password="wrong")
    assert visitor.login().status_code == 429

    act(admin_client, "throttle", "unlock", Throttle.objects.get(scope="login").pk)

    assert visitor.login().status_code == 200


def test_whoever_may_only_look_changes_nothing(ada: Any, watcher: Any) -> None:
    session = AuthSession.objects.get(browser_digest=None)
    Throttle.objects.update(count=7)

    for action in ("end_selected", "end_all_of_users"):
        act(watcher, "authsession", action, session.pk)
    act(watcher, "throttle", "unlock", Throttle.objects.first().pk)

    assert ada.get("me").status_code == 200
    assert Throttle.objects.first().count == 7


@pytest.mark.parametrize("model", MODELS)
def test_rows_are_read_only(ada: Any, user: Any, admin_client: Any, model: str) -> None:
    begin_totp(user, name="phone", now=timezone.now())
    EmailDevice.objects.create(user=user, name="E-mail")
    row = apps.get_model("svc_accounts", model)._default_manager.first()
    assert row is not None

    assert admin_client.get(url(model, "add")).status_code == 403
    assert admin_client.post(url(model, "delete", row.pk), {"post": "yes"}).status_code == 403
    assert admin_client.post(url(model, "change", row.pk), {"name": "x"}).status_code == 403
    assert admin_client.get(url(model, "change", row.pk)).status_code == 200


def test_rule_36_no_page_shows_a_secret(ada: Any, user: Any, admin_client: Any) -> None:
    enrolment = begin_totp(user, name="phone", now=timezone.now())
    session = AuthSession.objects.get(browser_digest=None)
    secrets = [
        enrolment.secret,
        enrolment.device.bin_key.hex(),
        enrolment.device.sealed_key,
        session.password_state,
        user.password,
        *ada.tokens.values(),
    ]
    pages = [url(model) for model in MODELS]
    pages += [url("authsession", "change", session.pk), url("totpdevice", "change", enrolment.device.pk)]
    for page in pages:
        text = admin_client.get(page).content.decode()
        assert not [secret for secret in secrets if str(secret) in text and len(str(secret)) > 8], page


@pytest.mark.parametrize("model", MODELS)
def test_lists_cost_the_same_for_many_rows(user: Any, make_user: Any, admin_client: Any, model: str) -> None:
    def fill(start: int, stop: int) -> None:
        for number in range(start, stop):
            owner = make_user(f"user{number}")
            issue_tokens(owner, amr=("pwd",))
            begin_totp(owner, name="phone", now=timezone.now())
            EmailDevice.objects.create(user=owner, name="E-mail")
            Throttle.objects.create(
                scope="login", subject=str(number), started_at=timezone.now(), ends_at=timezone.now()
            )

    def cost() -> int:
        with CaptureQueriesContext(connection) as queries:
            assert admin_client.get(url(model)).status_code == 200
        return len(queries)

    fill(0, 1)
    one = cost()
    fill(1, 50)

    assert cost() == one


def test_sessions_are_found_by_the_users_name(ada: Any, stranger: Any, admin_client: Any) -> None:
    issue_tokens(stranger, amr=("pwd",))

    page = admin_client.get(url("authsession"), {"q": "mallory"}).content.decode()

    assert str(AuthSession.objects.get(owner=stranger).pk) in page
    assert str(AuthSession.objects.get(owner__username="ada").pk) not in page


@pytest.mark.parametrize("term", ["ada", "ADA@example.com ", "127.0.0.1"])
def test_staff_find_and_unlock_whoever_was_stopped(
    user: Any, stranger: Any, visitor: Any, admin_client: Any, term: str
) -> None:
    for _ in range(10):
        visitor.login(password="wrong")
    assert visitor.login().status_code == 429

    page = admin_client.get(url("throttle"), {"q": term})
    found = [row.pk for row in page.context["cl"].result_list]
    assert found
    act(admin_client, "throttle", "unlock", *found)

    assert "ada@example.com" not in page.content.decode().replace("ADA@example.com", "")
    assert visitor.login().status_code == (200 if term != "127.0.0.1" else 429)
    assert not admin_client.get(url("throttle"), {"q": "mallory"}).context["cl"].result_list


def test_staff_remove_the_factors_of_who_has_lost_them(ada: Any, user: Any, admin_client: Any) -> None:
    device = begin_totp(user, name="lost", now=timezone.now()).device
    TOTPDevice.objects.update(confirmed=True)

    page = act(admin_client, "totpdevice", "remove_factors_of_users", device.pk)

    assert "factors of 1 user were removed" in page.content.decode()
    assert not TOTPDevice.objects.exists()
    assert ada.get("me").status_code == 401
    assert ada.login().status_code == 200


def test_staff_remove_no_factors_of_other_staff_nor_their_own(
    make_user: Any, client: Any, admin_user: Any
) -> None:
    helper = make_user("helper", is_staff=True)
    codenames = ["change_totpdevice", "view_totpdevice"]
    helper.user_permissions.set(
        Permission.objects.filter(codename__in=codenames, content_type__app_label="svc_accounts")
    )
    client.force_login(helper)
    pks = [
        TOTPDevice.begin(owner, name="d", now=timezone.now()).pk
        for owner in (admin_user, helper, make_user("boss", is_staff=True))
    ]

    page = act(client, "totpdevice", "remove_factors_of_users", *pks)

    assert "superusers alone" in page.content.decode()
    assert TOTPDevice.objects.count() == 3


def test_staff_remove_one_device_and_the_others_go_on(ada: Any, user: Any, admin_client: Any) -> None:
    lost = TOTPDevice.begin(user, name="lost", now=timezone.now())
    TOTPDevice.objects.update(confirmed=True)
    mailbox = EmailDevice.objects.create(user=user, name="E-mail", confirmed=True)

    page = act(admin_client, "totpdevice", "remove_selected", lost.pk)

    assert "1 device was removed." in page.content.decode()
    assert not TOTPDevice.objects.exists()
    assert EmailDevice.objects.get() == mailbox
    assert ada.get("me").status_code == 401
    assert ada.login().json()["mfa_required"] is True


@pytest.mark.parametrize("many", [False, True])
def test_a_user_who_has_logged_in_can_be_deleted_and_is_out(
    ada: Any, user: Any, make_user: Any, admin_client: Any, many: bool
) -> None:
    browser = Client()
    browser.force_login(user)
    begin_totp(user, name="phone", now=timezone.now())
    EmailDevice.objects.create(user=user, name="E-mail", confirmed=False)
    assert browser.get("/api/auth/me").status_code == ada.get("me").status_code == 200

    if many:
        sent = {"action": "delete_selected", "_selected_action": [str(user.pk)], "post": "yes"}
        assert admin_client.post("/admin/auth/user/", sent).status_code == 302
    else:
        assert admin_client.post(f"/admin/auth/user/{user.pk}/delete/", {"post": "yes"}).status_code == 302

    assert not type(user).objects.filter(pk=user.pk).exists()
    assert not AuthSession.objects.filter(owner_id=user.pk).exists()
    assert browser.get("/api/auth/me").status_code == ada.get("me").status_code == 401


def test_sessions_and_devices_are_deleted_with_their_user_alone(
    ada: Any, user: Any, make_user: Any, admin_client: Any, client: Any
) -> None:
    session = AuthSession.objects.get(owner=user)
    device = begin_totp(user, name="phone", now=timezone.now()).device
    for model, row in (("authsession", session), ("totpdevice", device)):
        assert admin_client.post(url(model, "delete", row.pk), {"post": "yes"}).status_code == 403
        act(admin_client, model, "delete_selected", row.pk)
        assert type(row).objects.filter(pk=row.pk).exists()

    staff = make_user("staff", is_staff=True)
    staff.user_permissions.set(Permission.objects.filter(codename__in=["view_user", "delete_user"]))
    client.force_login(staff)
    assert client.post(f"/admin/auth/user/{user.pk}/delete/", {"post": "yes"}).status_code == 403


def test_rule_36_no_page_shows_what_providers_trust_us_with(user: Any, admin_client: Any) -> None:
    from allauth.socialaccount.models import SocialAccount, SocialApp, SocialToken

    app = SocialApp.objects.create(
        provider="openid_connect",
        provider_id="example",
        name="Example",
        client_id="we",
        secret="the-client-secret",
        settings={"server_url": "https://id.example", "deep": {"certificate_key": "the-private-key"}},
    )
    account = SocialAccount.objects.create(user=user, provider="example", uid="1")
    SocialToken.objects.create(app=app, account=account, token="the-access", token_secret="the-refresh")
    pages = [
        reverse(f"admin:socialaccount_{model}_{page}", args=arguments)
        for model in ("socialapp", "socialtoken", "socialaccount")
        for page, arguments in (
            ("changelist", []),
            ("change", [apps.get_model("socialaccount", model).objects.get().pk]),
        )
    ]

    for page in pages:
        answer = admin_client.get(page)
        assert answer.status_code == 200
        for secret in ("the-client-secret", "the-private-key", "the-access", "the-refresh"):
            assert secret not in answer.content.decode(), (page, secret)

    sent = {
        "provider": "openid_connect",
        "provider_id": "example",
        "name": "Renamed",
        "client_id": "we",
        "secret": "",
        "key": "",
        "settings": '{"server_url": "https://id.example", "deep": {"certificate_key": "(hidden)"}}',
    }
    change = reverse("admin:socialaccount_socialapp_change", args=[app.pk])
    assert admin_client.post(change, sent).status_code == 302
    app.refresh_from_db()
    assert (app.name, app.secret) == ("Renamed", "the-client-secret")
    assert app.settings["deep"] == {"certificate_key": "the-private-key"}

    assert admin_client.post(change, {**sent, "secret": "a-new-secret"}).status_code == 302
    app.refresh_from_db()
    assert app.secret == "a-new-secret"

"""The life of an account on a user model of a project: `python -m tests.accounts.story MODEL FILE`."""

from __future__ import annotations

import os
import re
import sys
from typing import Any

import django
from django.conf import settings

PROFILES: dict[str, dict[str, tuple[Any, Any]]] = {
    "people.Person": {"phone": ("+49 30 123", "x" * 17)},
    "people.Member": {
        "first_name": ("Ada", 7),
        "born_on": ("1815-12-10", "yesterday"),
        "wants_news": (True, "perhaps"),
        "seats": (2, -1),
    },
}
"""Of each user model: fields that people change themselves, with a good and a bad value."""


def main(model: str, database: str) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    settings.DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": database}}
    # Other devices of django-otp's have the names of ours.
    plugins = ["django_otp.plugins.otp_totp", "django_otp.plugins.otp_email"]
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, *plugins, "tests.accounts.people"]
    settings.AUTH_USER_MODEL = model
    settings.ACCOUNT_LOGIN_METHODS = {"email"}
    settings.ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*"]
    settings.ACCOUNT_USER_MODEL_USERNAME_FIELD = None if model == "people.Person" else "username"
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    settings.SVC_INFRA = {"accounts": {"email_verification_url": "https://app.example/v#{key}"}}
    if model in PROFILES:
        settings.SVC_INFRA["accounts"]["profile_fields"] = tuple(PROFILES[model])
    django.setup()
    from django.core.management import call_command

    call_command("check", "svc_accounts")
    call_command("migrate", run_syncdb=True, verbosity=0)
    live()


def live() -> None:
    from django.contrib.auth import get_user_model
    from django.contrib.auth.models import Group
    from django.core import mail
    from django.test import Client
    from django.utils import timezone

    from svc_infra_django.accounts import issue_tokens
    from svc_infra_django.accounts.models import AuditEvent, AuthSession, TOTPDevice
    from svc_infra_django.accounts.providers import Identity
    from svc_infra_django.accounts.services.connecting_providers import user_behind
    from svc_infra_django.accounts.totp import code_of, step_at
    from svc_infra_django.jobs.worker import drain
    from svc_infra_django.rbac import check, define_role, grant
    from svc_infra_django.rbac.models import RoleChange

    mail.outbox = []
    sent = {"email": "ada@example.com", "password": "correct horse battery staple 7"}

    def post(path: str, body: Any = None, token: str = "") -> Any:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return Client().post(
            f"/api/auth/{path}", body or {}, content_type="application/json", headers=headers
        )

    def patch(body: Any, token: str) -> Any:
        headers = {"Authorization": f"Bearer {token}"}
        return Client().patch("/api/auth/me", body, content_type="application/json", headers=headers)

    def me(token: str) -> Any:
        return Client().get("/api/auth/me", headers={"Authorization": f"Bearer {token}"})

    assert post("signup", sent).status_code == 202
    drain()
    key = re.search(r"#(\S+)", mail.outbox[0].body)
    assert key is not None
    assert post("login", sent).status_code == 401
    verified = post("email/verify", {"key": key[1], "password": sent["password"]})
    assert verified.status_code == 204, verified.content

    first = post("login", sent).json()
    user = get_user_model().objects.get(email=sent["email"])
    for _ in range(2):
        shown = me(first["access_token"]).json()
        assert (shown["id"], shown["email"]) == (str(user.pk), sent["email"])

    second = post("refresh", {"refresh_token": first["refresh_token"]}).json()
    assert post("refresh", {"refresh_token": first["refresh_token"]}).status_code == 401
    assert me(second["access_token"]).status_code == 401

    third = post("login", sent).json()["access_token"]
    profile = PROFILES.get(settings.AUTH_USER_MODEL, {})
    for name, (good, bad) in profile.items():
        assert patch({name: good}, third).json()[name] == good
        refused = patch({name: bad}, third)
        assert refused.status_code == 422, refused.content
        assert refused.json()["errors"][0]["pointer"] == f"/body/{name}"
    assert {name: me(third).json()[name] for name in profile} == {
        name: good for name, (good, _) in profile.items()
    }
    assert patch({"is_staff": True}, third).status_code == 422
    if "phone" in profile:
        get_user_model().objects.create_user("other@example.com", "x", phone="taken")
        assert patch({"phone": "taken"}, third).json()["errors"][0]["pointer"] == "/body/phone"
        assert patch({"phone": None}, third).json()["phone"] is None

    browser = Client()
    browser.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    assert browser.get("/api/auth/me").json()["id"] == str(user.pk)
    third = post("login", sent).json()["access_token"]
    assert post("logout-all", token=third).status_code == 204
    assert browser.get("/api/auth/me").status_code == me(third).status_code == 401

    post("password/reset", {"email": "ADA@example.com"})
    drain()
    key = re.search(r"^  (\S+)$", str(mail.outbox[-1].body), re.MULTILINE)
    assert key is not None
    sent["password"] += "8"
    assert post("password/reset/confirm", {"key": key[1], "password": sent["password"]}).status_code == 204
    assert post("login", sent).status_code == 200

    third = post("login", sent).json()["access_token"]
    for wanted in ("jane@example.com", "ada2@example.com"):
        asked = post("email/change", {"email": wanted}, third)
        assert asked.status_code == 202, asked.content
        post("signup", {**sent, "email": "jane@example.com"})
        drain()
        message = next(each for each in mail.outbox if each.to == [wanted])
        key = re.search(r"^  (\S+)$", str(message.body), re.MULTILINE)
        assert key is not None
        changed = post("email/change/confirm", {"key": key[1]}, third).status_code
        # Where an address is there once, who waits to prove it keeps it.
        assert changed == (422 if wanted.startswith("jane") else 204)
        mail.outbox = []
    sent["email"] = "ada2@example.com"
    user.refresh_from_db()
    assert user.get_username() == user.email == sent["email"]
    get_user_model().objects.get(email="jane@example.com").delete()

    jane = Identity("corp", "1", (("Jane@example.com", True),), {"first_name": "Jane"}, {})
    assert user_behind(jane, now=timezone.now()) == user_behind(jane, now=timezone.now())
    assert get_user_model().objects.get(email="jane@example.com").has_usable_password() is False

    user.refresh_from_db()
    user.is_staff = user.is_superuser = True
    user.save()
    staff = Client()
    step = {"username": sent["email"], "password": sent["password"], "next": "/admin/"}
    assert staff.post("/admin/login/", step).status_code == 302
    assert staff.get("/admin/").status_code == 302
    staff.get("/admin/login/")
    device = TOTPDevice.objects.get()
    code = code_of(device.bin_key, step_at(timezone.now()))
    assert "recovery codes" in staff.post("/admin/login/", {"code": code}).content.decode()
    assert staff.get("/admin/").status_code == 200
    assert staff.get("/admin/svc_accounts/authsession/", {"q": user.get_username()}).status_code == 200

    role = define_role("clerk", ["auth.view_group"])
    group = Group.objects.create(name="clerks")
    members = getattr(group, get_user_model().groups.rel.get_accessor_name())
    grant(group, role)
    members.set([user])
    assert check(user, "auth.view_group")
    members.clear()
    kinds = RoleChange.objects.order_by("id").values_list("kind", flat=True)
    assert list(kinds) == ["defined", "granted", "joined", "left"]

    fourth = issue_tokens(user, amr=("pwd", "mfa")).access_token
    assert me(fourth).status_code == 200
    user.is_active = False
    user.save()
    assert me(fourth).status_code == 401
    assert AuditEvent.objects.filter(subject=str(user.pk), name="session.reuse_detected").count() == 1
    user.delete()
    assert not AuthSession.objects.exists()
    print("lived")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""One story with every kind of secret in it; then all that it left behind is searched for them."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import Permission
from django.core import mail
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from django_otp import DEVICE_ID_SESSION_KEY

from svc_infra_django.accounts.totp import code_of, step_at
from svc_infra_django.observability import logger, logging_config
from svc_infra_django.observability.logging import LineFormatter
from svc_infra_django.webhooks import publish
from svc_infra_django.webhooks.delivery import deliver_due
from svc_infra_django.webhooks.services.subscribing import create_endpoint, rotate_secret

pytestmark = pytest.mark.django_db

PASSWORD = "Qz7-first-password-of-ada"
NEW_PASSWORD = "Qz7-second-password-of-ada"
WRONG_PASSWORD = "Qz7-a-wrong-password"
HEADER = "Qz7-header-of-the-receiver"


@dataclass
class Story:
    """What must be found nowhere, by name, and where to look."""

    secrets: dict[str, str]
    logged: str
    records: list[logging.LogRecord]


class Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def lines() -> Iterator[tuple[io.StringIO, Records]]:
    formatter = logging_config(format="json")["formatters"]["svc"]
    written, records = io.StringIO(), Records()
    handler = logging.StreamHandler(written)
    handler.setFormatter(LineFormatter(formatter["renderer"]))
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.DEBUG)
    root.addHandler(handler)
    root.addHandler(records)
    yield written, records
    root.removeHandler(handler)
    root.removeHandler(records)
    root.setLevel(level)


@pytest.fixture
def story(
    lines: tuple[io.StringIO, Records], run_jobs: Callable[..., int], make_user: Callable[..., Any]
) -> Story:
    """Sign up, log in wrongly and rightly, refresh, keys, a second factor, a reset, a failing endpoint."""
    secrets = {"password": PASSWORD, "new password": NEW_PASSWORD, "wrong password": WRONG_PASSWORD}
    client = Client(raise_request_exception=False)

    def send(path: str, body: dict[str, Any], token: str = "", expect: int = 200) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        answer = client.post(f"/api/{path}", body, "application/json", headers=headers)
        assert answer.status_code == expect, answer.content
        return answer.json() if answer.content else {}

    def mailed_key() -> str:
        run_jobs()
        return max(re.findall(r"\S{40,}", mail.outbox[-1].body), key=len).rpartition("=")[2]

    me = {"email": "ada@example.com"}
    send("auth/signup", {**me, "password": PASSWORD}, expect=202)
    secrets["verification key"] = mailed_key()
    send("auth/email/verify", {"key": secrets["verification key"], "password": PASSWORD}, expect=204)
    send("auth/login", {**me, "password": WRONG_PASSWORD}, expect=401)
    tokens = send("auth/login", {**me, "password": PASSWORD})
    secrets |= {"first access": tokens["access_token"], "first refresh": tokens["refresh_token"]}
    tokens = send("auth/refresh", {"refresh_token": tokens["refresh_token"]})
    secrets |= {"access token": tokens["access_token"], "refresh token": tokens["refresh_token"]}
    token = tokens["access_token"]

    issued = send("api-keys", {"name": "ci"}, token, expect=201)
    secrets["api key"] = issued["key"]
    rotated = send(f"api-keys/{issued['api_key']['id']}/rotate", {}, token, expect=201)
    secrets["rotated api key"] = rotated["key"]
    for key in (secrets["rotated api key"], secrets["rotated api key"][:-1] + "!"):
        client.get("/api/auth/me", headers={"X-API-Key": key})

    enrolment = send("auth/mfa/totp", {"password": PASSWORD}, token, expect=201)
    secrets["totp key"] = enrolment["secret"]
    device = apps.get_model("svc_accounts", "TOTPDevice").objects.get()
    secrets["totp key in hex"] = device.bin_key.hex()
    code = code_of(device.bin_key, step_at(timezone.now()))
    codes = send("auth/mfa/totp/confirm", {"code": code}, token)["recovery_codes"]
    secrets |= {f"recovery code {number}": each for number, each in enumerate(codes)}
    step = send("auth/login", {**me, "password": PASSWORD})
    secrets["mfa token"] = step["mfa_token"]
    send("auth/mfa/verify", {"mfa_token": step["mfa_token"], "code": codes[0]})

    send("auth/password/reset", me, expect=202)
    secrets["reset key"] = mailed_key()
    reset = {"key": secrets["reset key"], "password": NEW_PASSWORD}
    send("auth/password/reset/confirm", reset, expect=204)
    send("auth/password/reset/confirm", reset, expect=422)
    send("auth/refresh", {"refresh_token": tokens["refresh_token"]}, expect=401)
    send("auth/login", {"email": PASSWORD, "password": {"nested": PASSWORD}}, expect=422)

    user = device.user
    endpoint, secrets["webhook secret"] = create_endpoint(
        url="https://receiver.invalid/hook", owner=user, headers={"X-Receiver-Key": HEADER}
    )
    secrets["header of the receiver"] = HEADER
    secrets["second webhook secret"] = rotate_secret(endpoint)
    publish("tests.done", {"id": 1}, owner=user)
    assert deliver_due(limit=100)
    run_jobs()
    logger.info("a careless line", password=PASSWORD, extra={"headers": {"Authorization": token}})

    written, records = lines
    return Story(secrets, written.getvalue(), records.records)


def found(text: str, secrets: dict[str, str]) -> list[str]:
    """Names of the secrets in `text`."""
    return sorted(name for name, secret in secrets.items() if secret in text)


def test_the_story_has_its_secrets(story: Story) -> None:
    assert len(story.secrets) > 18
    assert len(set(story.secrets.values())) == len(story.secrets)
    assert all(len(secret) >= 10 for secret in story.secrets.values())
    assert "a careless line" in story.logged
    assert "svc_infra_django.access" in story.logged
    assert found(f"it is {PASSWORD}!", story.secrets) == ["password"]


def test_no_log_line_shows_one(story: Story) -> None:
    assert found(story.logged, story.secrets) == []


def test_no_record_holds_one_before_redaction(story: Story) -> None:
    """Whatever handler a project has: ours, that redacts, or another."""
    shown = [
        f"{record.name} {record.getMessage()} {vars(record)!r}"
        for record in story.records
        if record.getMessage() != "a careless line" and not record.name.startswith("django.db")
    ]

    assert found("\n".join(shown), story.secrets) == []


def test_no_column_of_the_database_holds_one(story: Story) -> None:
    leaks = []
    for table in connection.introspection.table_names():
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")  # noqa: S608 our own tables
            names = [column[0] for column in cursor.description]
            for row in cursor.fetchall():
                for name, value in zip(names, row, strict=True):
                    if isinstance(value, (bytes, memoryview)):
                        value = bytes(value).decode("latin-1")
                    leaks += [f"{table}.{name}: {leak}" for leak in found(str(value), story.secrets)]

    assert leaks == []


def test_no_column_holds_a_bare_digest_of_what_can_be_guessed(story: Story) -> None:
    digests = {name: sha256(secret.encode()).hexdigest() for name, secret in story.secrets.items()}
    guessable = {name: digest for name, digest in digests.items() if "password" in name}
    leaks = []
    for model in apps.get_models():
        for row in model._default_manager.all().values_list():
            leaks += [f"{model.__name__}: {leak}" for leak in found(str(row), guessable)]

    assert leaks == []


@pytest.mark.sqlite  # once is enough: a page shows what a row holds
def test_no_admin_page_shows_one(story: Story, make_user: Callable[..., Any]) -> None:
    root = make_user("root", is_staff=True, is_superuser=True)
    # Django builds another page for who may look and not change: of attributes, not of the form's fields.
    looker = make_user("looker", is_staff=True)
    looker.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    pages = []
    for model in admin.site._registry:
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        pages.append(reverse(f"{name}_changelist"))
        pages += [reverse(f"{name}_change", args=[row.pk]) for row in model._default_manager.all()[:20]]
    leaks = []
    for user in (root, looker):
        client = Client()
        client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
        for page in pages:
            response = client.get(page)
            assert response.status_code == 200, page
            leaks += [f"{user} {page}: {leak}" for leak in found(response.content.decode(), story.secrets)]

    assert len(pages) > 15
    assert leaks == []


def test_no_list_of_the_api_shows_one(story: Story, make_user: Callable[..., Any]) -> None:
    from tests.urls import api

    client = Client()
    device = apps.get_model("svc_accounts", "TOTPDevice").objects.get()
    device.user.is_superuser = True
    device.user.save()
    client.force_login(device.user, backend="django.contrib.auth.backends.ModelBackend")
    session = client.session
    session[DEVICE_ID_SESSION_KEY] = device.persistent_id
    session.save()
    leaks, asked = [], 0
    for path, methods in api.get_openapi_schema()["paths"].items():
        if "get" in methods and "{" not in path:
            response = client.get(path, {"permission": "orders.view_order"})
            asked += response.status_code == 200
            leaks += [f"{path}: {leak}" for leak in found(response.content.decode(), story.secrets)]

    assert asked > 6
    assert leaks == []


def test_no_row_shows_one_of_them_in_its_repr(story: Story) -> None:
    shown = "\n".join(
        f"{row!r} {row}" for model in apps.get_models() for row in model._default_manager.all()[:200]
    )

    assert found(shown, story.secrets) == []

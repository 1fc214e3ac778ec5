"""What a stranger could tell from the work that is done: every case computes as many password hashes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from django.contrib.auth.hashers import MD5PasswordHasher
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from tests.conftest import PASSWORD

pytestmark = pytest.mark.django_db

Count = Callable[[Callable[[], Any]], int]


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> Count:
    """How many password hashes a call computes."""
    computed: list[str] = []
    encode = MD5PasswordHasher.encode

    def counted(self: Any, password: str, salt: str) -> str:
        computed.append(password)
        return str(encode(self, password, salt))

    monkeypatch.setattr(MD5PasswordHasher, "encode", counted)

    def count(act: Callable[[], Any]) -> int:
        computed.clear()
        act()
        return len(computed)

    return count


@pytest.fixture
def everybody(make_user: Any) -> None:
    make_user("ada")
    make_user("gone", is_active=False)
    make_user("boss", is_staff=True)
    make_user("retired", is_staff=True, is_active=False)
    empty = make_user("empty", is_staff=True)
    empty.set_unusable_password()
    empty.save()
    waiting = make_user("waiting")
    EmailAddress.objects.create(user=waiting, email="waiting@example.com", primary=True)


@pytest.mark.usefixtures("everybody")
def test_rule_2_every_refused_login_computes_one_hash(visitor: Any, hashes: Count) -> None:
    for name in ("ada", "gone", "empty", "waiting", "nobody"):
        assert hashes(partial(visitor.login, f"{name}@example.com", "wrong")) == 1, name


@pytest.mark.usefixtures("everybody")
def test_rule_2_every_refused_login_to_the_admin_computes_one_hash(hashes: Count) -> None:
    for name in ("ada", "gone", "boss", "retired", "empty", "nobody"):
        sent = {"username": name, "password": "wrong"}
        assert hashes(partial(Client().post, "/admin/login/", sent)) == 1, name


@pytest.mark.usefixtures("everybody")
def test_rule_3_every_sign_up_computes_one_hash(visitor: Any, hashes: Count) -> None:
    for name in ("ada", "gone", "empty", "waiting", "nobody"):
        sent = {"email": f"{name}@example.com", "password": PASSWORD}
        assert hashes(partial(visitor.post, "signup", sent)) == 1, name


@pytest.mark.usefixtures("everybody")
def test_rule_3_mails_that_logins_send_again_do_not_tell_whose_the_address_was(visitor: Any) -> None:
    told = {}
    for name in ("ada", "waiting", "nobody"):
        sent = {"email": f"{name}@example.com", "password": f"{PASSWORD} of a stranger"}
        codes = [visitor.post("signup", sent).status_code]
        codes += [visitor.login(**sent).status_code for _ in range(7)]
        codes += [visitor.post(path, sent).status_code for path in ("signup", "signup")]
        codes += [visitor.post("password/reset", {"email": sent["email"]}).status_code]
        told[name] = codes

    assert list(told.values()) == [[202, *[401] * 7, 202, 202, 202]] * 3


@pytest.mark.usefixtures("everybody")
def test_rule_4_the_admin_and_the_api_count_alike_for_whoever_has_the_address(visitor: Any) -> None:
    for number, name in enumerate(("ada", "gone", "boss", "empty", "waiting", "nobody")):
        sent = {"username": f"{name}@example.com", "password": "wrong"}
        staff = Client(REMOTE_ADDR=f"203.0.113.{number}")
        for _ in range(10):
            staff.post("/admin/login/", sent)

        assert visitor.login(sent["username"], "wrong").status_code == 429, name


@pytest.mark.usefixtures("everybody")
def test_rule_3_asking_for_a_reset_computes_none_and_asks_the_database_as_much(
    visitor: Any, hashes: Count
) -> None:
    visitor.post("password/reset", {"email": "first@example.com"})  # the client's count is there from now on
    costs = set()
    for name in ("ada", "gone", "empty", "waiting", "nobody"):
        with CaptureQueriesContext(connection) as queries:
            sent = {"email": f"{name}@example.com"}
            assert hashes(partial(visitor.post, "password/reset", sent)) == 0
        costs.add(len(queries))

    assert len(costs) == 1

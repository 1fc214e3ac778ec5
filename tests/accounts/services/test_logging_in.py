from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import make_password
from django.db import connection, connections
from django.utils import timezone

from svc_infra_django.accounts.errors import InvalidCredentials, TooManyAttempts
from svc_infra_django.accounts.models import AuthSession, Throttle
from svc_infra_django.accounts.services.issuing_tokens import Client, Tokens, issue_tokens
from svc_infra_django.accounts.services.logging_in import check_password
from svc_infra_django.errors import AuthenticationError
from tests.accounts.conftest import log_in
from tests.accounts.hashers import Counted
from tests.conftest import PASSWORD

pytestmark = pytest.mark.django_db

WRONG = "wrong horse battery staple"


def refusals(make_user: Any) -> dict[str, tuple[str, str]]:
    make_user("ada")
    make_user("gone", is_active=False)
    pending = make_user("pending")
    EmailAddress.objects.create(user=pending, email="pending@example.com", primary=True)
    empty = make_user("empty")
    empty.set_unusable_password()
    empty.save()
    return {
        "unknown address": ("nobody@example.com", PASSWORD),
        "wrong password": ("ada@example.com", WRONG),
        "disabled user": ("gone@example.com", PASSWORD),
        "unverified address": ("pending@example.com", PASSWORD),
        "no password": ("empty@example.com", PASSWORD),
        "not an address": ("ada", PASSWORD),
    }


def test_rule_1_every_refusal_looks_the_same(make_user: Any, visitor: Any) -> None:
    answers = set()
    for email, password in refusals(make_user).values():
        response = visitor.login(email, password)
        body = {key: value for key, value in response.json().items() if key != "request_id"}
        headers = {key: value for key, value in response.items() if key != "X-Request-ID"}
        answers.add((response.status_code, str(body), str(headers)))

    assert len(answers) == 1
    assert next(iter(answers))[0] == 401


def test_rule_2_every_refusal_hashes_one_password(make_user: Any, settings: Any) -> None:
    settings.PASSWORD_HASHERS = ["tests.accounts.hashers.Counted"]
    hashed = {}
    for name, (email, password) in refusals(make_user).items():
        Counted.calls = 0
        with pytest.raises(InvalidCredentials):
            log_in(email, password, client=Client(), now=timezone.now())
        hashed[name] = Counted.calls

    assert set(hashed.values()) == {1}, hashed


@pytest.mark.parametrize("spelling", ["ada@example.com", "ADA@Example.COM", "  ada@example.com\n"])
def test_rule_14_ascii_case_and_blanks_do_not_matter(user: Any, visitor: Any, spelling: str) -> None:
    assert visitor.login(spelling).status_code == 200


@pytest.mark.parametrize("lookalike", ["\u212aate@example.com", "\uff4bate@example.com"])
def test_rule_14_unicode_is_never_folded_to_ascii(make_user: Any, visitor: Any, lookalike: str) -> None:
    make_user("kate")

    assert visitor.login(lookalike).status_code == 401
    assert visitor.login("kate@example.com").status_code == 200


def test_a_dotless_i_is_not_an_i(make_user: Any, visitor: Any) -> None:
    make_user("ian")

    assert visitor.login("\u0131an@example.com").status_code == 401


@pytest.mark.postgresql
def test_rule_14_not_even_where_the_database_folds_it(make_user: Any, visitor: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT collname FROM pg_collation WHERE collname IN ('und-x-icu', 'pg_c_utf8')")
        folds_unicode = connection.ops.quote_name(cursor.fetchone()[0])
        table = connection.ops.quote_name(get_user_model()._meta.db_table)
        cursor.execute(f"ALTER TABLE {table} ALTER COLUMN email TYPE varchar(254) COLLATE {folds_unicode}")
    make_user("\u0131an")

    assert get_user_model().objects.filter(email__iexact="ian@example.com").exists(), "the database folds it"
    assert visitor.login("ian@example.com").status_code == 401


def test_an_address_of_two_users_logs_nobody_in(user: Any, visitor: Any) -> None:
    get_user_model().objects.create_user("twin", email="Ada@example.com", password=PASSWORD)

    assert visitor.login().status_code == 401


def test_a_proven_address_decides_between_two_users(user: Any, visitor: Any) -> None:
    twin = get_user_model().objects.create_user("twin", email="ada@example.com", password=PASSWORD)
    EmailAddress.objects.create(user=twin, email="ada@example.com", verified=True, primary=True)

    visitor.login()

    assert visitor.get("me").json()["id"] == str(twin.pk)


def test_rule_4_ten_wrong_passwords_stop_an_account_however_it_is_written(user: Any, visitor: Any) -> None:
    spellings = ["ada@example.com", "ADA@example.com", " ada@example.com", "Ada@Example.com "]
    codes = [
        visitor.login(
            spellings[n % 4], WRONG, REMOTE_ADDR=f"10.0.0.{n}", headers={"X-Forwarded-For": f"1.2.3.{n}"}
        )
        for n in range(15)
    ]

    assert [each.status_code for each in codes] == [401] * 10 + [429] * 5
    stopped = visitor.login()
    assert stopped.status_code == 429
    assert 0 < int(stopped["Retry-After"]) <= 900


def test_rule_4_unknown_accounts_are_stopped_in_the_same_sequence(user: Any, visitor: Any) -> None:
    known = [visitor.login("ada@example.com", WRONG).status_code for _ in range(13)]
    unknown = [visitor.login("nobody@example.com", WRONG).status_code for _ in range(13)]

    assert known == unknown


def test_rule_5_a_stop_ends_by_itself_and_never_ended_live_sessions(
    ada: Any, user: Any, new_visitor: Any
) -> None:
    now = timezone.now()
    for number in range(10):
        with pytest.raises(InvalidCredentials):
            log_in("ada@example.com", WRONG, client=Client(), now=now + timedelta(minutes=number))
    with pytest.raises(TooManyAttempts):
        log_in("ada@example.com", PASSWORD, client=Client(), now=now + timedelta(seconds=899))

    assert ada.get("me").status_code == 200
    assert ada.refresh().status_code == 200
    later = now + timedelta(seconds=901)
    assert isinstance(log_in("ada@example.com", PASSWORD, client=Client(), now=later), Tokens)


def test_a_good_login_starts_the_count_anew(user: Any, visitor: Any) -> None:
    for _ in range(3):
        for _ in range(9):
            assert visitor.login(password=WRONG).status_code == 401
        assert visitor.login().status_code == 200


def test_rule_6_many_accounts_tried_from_one_client_are_stopped(db: None, visitor: Any) -> None:
    codes = [visitor.login(f"user{n}@example.com", WRONG).status_code for n in range(120)]

    assert codes == [401] * 60 + [429] * 60


def test_rule_6_an_account_of_ones_own_gives_no_guesses_back(user: Any, visitor: Any) -> None:
    codes = []
    for number in range(70):
        codes.append(visitor.login(f"user{number}@example.com", WRONG).status_code)
        if number % 7 == 0:
            visitor.login()

    assert codes == [401] * 60 + [429] * 10


def test_rule_7_attempts_survive_the_failed_request_also_with_atomic_requests(
    transactional_db: None, make_user: Any, visitor: Any
) -> None:
    make_user("ada")
    before = connection.settings_dict["ATOMIC_REQUESTS"]
    connection.settings_dict["ATOMIC_REQUESTS"] = True
    try:
        codes = [visitor.login(password=WRONG).status_code for _ in range(12)]
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = before

    assert codes == [401] * 10 + [429] * 2
    assert Throttle.objects.get(scope="login").count == 10


@pytest.mark.django_db(transaction=True)
def test_rule_7_sixty_guesses_at_once_are_ten(make_user: Any, monkeypatch: Any) -> None:
    make_user("ada")
    evaluated: list[str] = []
    outcomes: list[type] = []
    monkeypatch.setattr(
        "svc_infra_django.accounts.services.logging_in.check_password",
        lambda candidate, password: evaluated.append(password),
    )

    def guess(number: int) -> None:
        try:
            log_in("ada@example.com", str(number), client=Client(), now=timezone.now())
        except (AuthenticationError, TooManyAttempts) as error:
            outcomes.append(type(error))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=guess, args=(n,)) for n in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(outcomes) == 60
    assert len(evaluated) == 10


def test_rule_10_a_password_hashed_anew_at_login_keeps_the_other_sessions(
    ada: Any, user: Any, settings: Any
) -> None:
    settings.PASSWORD_HASHERS = [
        "tests.accounts.hashers.Counted",
        "django.contrib.auth.hashers.MD5PasswordHasher",
    ]
    before = user.password

    log_in("ada@example.com", PASSWORD, client=Client(), now=timezone.now())

    user.refresh_from_db()
    assert user.password != before
    assert ada.get("me").status_code == 200


def test_a_password_that_somebody_set_during_a_login_revives_no_session(ada: Any, user: Any) -> None:
    type(user).objects.filter(pk=user.pk).update(password=make_password("another one 9"))

    assert check_password(user, "another one 9") == user
    assert ada.get("me").status_code == 401


def test_a_disabled_user_gets_no_tokens_by_any_path(make_user: Any) -> None:
    with pytest.raises(InvalidCredentials):
        issue_tokens(make_user("gone", is_active=False), amr=("pwd",))
    assert not AuthSession.objects.exists()


def test_the_table_of_counts_holds_no_address(user: Any, visitor: Any) -> None:
    visitor.login(password=WRONG, REMOTE_ADDR="203.0.113.7")

    for row in Throttle.objects.values():
        assert user.email not in str(row)
        assert "203.0.113.7" not in str(row)


def test_rule_8_long_passwords_are_taken_whole(make_user: Any, visitor: Any) -> None:
    user = make_user("ada")
    long = "Ж" * 999 + "a"
    user.password = make_password(long)
    user.save()

    assert visitor.login(password=long).status_code == 200
    assert visitor.login(password=long[:-1]).status_code == 401
    assert visitor.login(password="x" * 4097).status_code == 422


def test_a_login_tells_what_happened(user: Any, visitor: Any, events: Any) -> None:
    visitor.login(password=WRONG, REMOTE_ADDR="203.0.113.7")
    visitor.login()

    assert [event.type.name for event in events] == ["login.failed", "user.logged_in"]
    assert user.email not in str(events[0].payload)
    assert events[0].payload.client_address == "203.0.113.7"


def test_waiting_for_an_address_does_not_lock_its_user_out(user: Any, stranger: Any, visitor: Any) -> None:
    EmailAddress.objects.create(user=stranger, email="ada@example.com", verified=False)

    visitor.login()

    assert visitor.get("me").json()["id"] == str(user.pk)


def test_one_ipv6_network_is_one_client(db: None) -> None:
    for number in range(60):
        with pytest.raises(InvalidCredentials):
            log_in(
                f"user{number}@example.com", WRONG, client=Client(f"2001:db8::{number:x}"), now=timezone.now()
            )

    with pytest.raises(TooManyAttempts):
        log_in("user61@example.com", WRONG, client=Client("2001:db8:0:0:ffff::1"), now=timezone.now())
    with pytest.raises(InvalidCredentials):
        log_in("user62@example.com", WRONG, client=Client("2001:db8:0:1::1"), now=timezone.now())


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("", ""),
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8::7", "2001:db8::/64"),
        ("fe80::7%eth0", "fe80::/64"),
    ],
)
def test_what_counts_as_one_client(address: str, network: str) -> None:
    assert Client(address).network == network


def test_a_link_local_client_gets_a_session(user: Any, visitor: Any) -> None:
    assert visitor.login(REMOTE_ADDR="fe80::7%eth0").status_code == 200
    assert AuthSession.objects.get().client_address == "fe80::7"


def test_rule_4_an_account_of_several_addresses_is_stopped_by_all_of_them_together(
    user: Any, visitor: Any
) -> None:
    EmailAddress.objects.create(user=user, email="ada@work.example", verified=True)
    addresses = ["ada@example.com", "ada@work.example"]

    codes = [visitor.login(addresses[n % 2], WRONG).status_code for n in range(12)]

    assert codes == [401] * 10 + [429] * 2


def test_nobody_is_counted_as_an_account_by_making_up_its_name(user: Any, visitor: Any) -> None:
    for made_up in (str(user.pk), f"user:{user.pk}", f"\\x00{user.pk}"):
        for _ in range(10):
            assert visitor.login(made_up, WRONG).status_code == 401
        visitor.login("somebody@example.com", PASSWORD)

    assert visitor.login(REMOTE_ADDR="10.0.0.1").status_code == 200


def test_an_address_that_others_may_write_into_themselves_sets_nobody_elses_count_back(
    user: Any, stranger: Any, visitor: Any
) -> None:
    EmailAddress.objects.create(user=stranger, email="mallory@example.com", verified=True)
    type(stranger).objects.filter(pk=stranger.pk).update(email="ada@example.com")
    EmailAddress.objects.create(user=user, email="ada@example.com", verified=True)
    codes = []
    for _ in range(4):
        codes += [visitor.login(password=WRONG).status_code for _ in range(4)]
        assert visitor.login("mallory@example.com").status_code == 200

    assert codes == [401] * 10 + [429] * 6

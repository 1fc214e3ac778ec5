from __future__ import annotations

import gzip
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.test import Client
from django_otp import DEVICE_ID_SESSION_KEY
from django_otp.plugins.otp_static.models import StaticDevice

from svc_infra_django.accounts import issue_tokens
from svc_infra_django.accounts.models import AuthSession, TOTPDevice
from svc_infra_django.apikeys import issue_key
from tests.accounts.services.test_mfa import code_now
from tests.conftest import PASSWORD

pytestmark = pytest.mark.django_db


def test_a_login_gives_two_tokens_that_nobody_may_store(user: Any, visitor: Any) -> None:
    response = visitor.login()

    assert response.status_code == 200
    assert set(response.json()) == {"access_token", "refresh_token", "token_type", "expires_in"}
    assert response.json()["token_type"] == "Bearer"
    assert response["Cache-Control"] == "no-store"


def test_me_is_whoever_logged_in(ada: Any, user: Any) -> None:
    me = ada.get("me").json()

    assert me["id"] == str(user.pk)
    assert me["email"] == "ada@example.com"
    assert me["method"] == "jwt"
    assert me["amr"] == ["pwd"]


def test_refreshing_rotates_and_answers_are_not_stored(ada: Any) -> None:
    first = ada.tokens
    response = ada.refresh()

    assert response.status_code == 200
    assert response["Cache-Control"] == "no-store"
    assert response.json()["refresh_token"] != first["refresh_token"]
    assert ada.get("me").status_code == 200


def test_rule_26_logging_out_kills_the_access_token_at_once(ada: Any) -> None:
    assert ada.post("logout").status_code == 204

    # The access token first: a refresh after logout would hide a logout that forgot it.
    assert ada.get("me").status_code == 401
    assert ada.refresh().status_code == 401


def test_logging_out_everywhere_kills_all_devices(ada: Any, new_visitor: Any) -> None:
    phone = new_visitor()
    phone.login()

    assert ada.post("logout-all").status_code == 204

    assert phone.get("me").status_code == 401
    assert ada.get("me").status_code == 401


def test_rule_37_a_session_is_seen_and_ended_by_its_user_alone(
    ada: Any, stranger: Any, new_visitor: Any
) -> None:
    phone = new_visitor(headers={"User-Agent": "Phone"})
    phone.login()
    mallory = new_visitor()
    mallory.login("mallory@example.com")

    seen = ada.get("sessions").json()["items"]
    assert [(each["user_agent"], each["is_current"]) for each in seen] == [("Phone", False), ("", True)]

    phones = seen[0]["id"]
    assert mallory.delete(f"sessions/{phones}").status_code == 404
    assert phone.get("me").status_code == 200
    assert ada.delete(f"sessions/{phones}").status_code == 204
    assert phone.get("me").status_code == 401
    assert ada.delete(f"sessions/{phones}").status_code == 404
    assert ada.get("me").status_code == 200


def test_the_list_of_sessions_costs_the_same_for_many(ada: Any, django_assert_num_queries: Any) -> None:
    row = AuthSession.objects.get()
    with django_assert_num_queries(2):
        assert len(ada.get("sessions").json()["items"]) == 1

    for _ in range(49):
        row.pk = None
        row._state.adding = True
        AuthSession.objects.bulk_create(
            [
                AuthSession(
                    **{
                        f.attname: getattr(row, f.attname)
                        for f in row._meta.concrete_fields
                        if f.name != "id"
                    }
                )
            ]
        )

    with django_assert_num_queries(2):
        assert len(ada.get("sessions").json()["items"]) == 50


def test_every_request_with_a_token_costs_one_query(ada: Any, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(1):
        assert ada.get("me").status_code == 200


POSTS = {
    "login": {"email": "ada@example.com", "password": PASSWORD},
    "refresh": {"refresh_token": "rt_x"},
    "signup": {"email": "new@example.com", "password": PASSWORD},
    "email/verify": {"key": "x", "password": "y"},
    "email/change": {"email": "next@example.com", "password": PASSWORD, "code": "123456"},
    "email/change/confirm": {"key": "x"},
    "password/reset": {"email": "ada@example.com"},
    "password/reset/confirm": {"key": "x", "password": PASSWORD},
    "password/change": {"current_password": PASSWORD, "password": PASSWORD},
    "mfa/verify": {"mfa_token": "mfa_x", "code": "123456"},
    "mfa/totp": {"name": "phone", "password": PASSWORD, "code": "123456"},
    "mfa/totp/confirm": {"code": "123456"},
    "mfa/recovery-codes": {"password": PASSWORD, "code": "123456"},
    "mfa/disable": {"code": "123456"},
}
BAD = [
    "\x00",
    "a\x00b",
    "x" * 1_000_000,
    7,
    7.5,
    True,
    [],
    ["x"],
    {"a": 1},
    "",
    "\u202e\uffff",
    "' OR 1=1 --",
]


@pytest.mark.parametrize("path", POSTS)
def test_rule_65_bad_input_is_a_problem_that_repeats_no_secret(
    ada: Any, path: str, svc_settings: Any
) -> None:
    for field in POSTS[path]:
        for bad in BAD:
            answer = ada.post(path, {**POSTS[path], field: bad})
            assert 200 <= answer.status_code < 500, (field, str(bad)[:20], answer.content)
            assert PASSWORD not in answer.content.decode()
            if answer.status_code >= 400:
                assert answer["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("path", POSTS)
def test_rule_65_other_shapes_are_refused(ada: Any, path: str) -> None:
    missing = [{key: value for key, value in POSTS[path].items() if key != field} for field in POSTS[path]]
    for body in [*missing, {**POSTS[path], "is_staff": True}]:
        answer = ada.post(path, body)
        assert answer.status_code < 500
    unknown = ada.post(path, {**POSTS[path], "is_staff": True})
    assert unknown.status_code == 422
    assert unknown.json()["errors"][0]["pointer"] == "/body/is_staff"
    for raw in (
        "",
        "{",
        "null",
        "[]",
        '"x"',
        "[" * 100_000,
        '{"email": NaN}',
        '{"password": "\\ud800"}',
        "\xff",
    ):
        answer = ada.call("post", path, raw)
        assert 400 <= answer.status_code < 500, raw[:20]


def test_rule_31_no_answer_with_a_secret_may_be_stored(
    user: Any, make_user: Any, visitor: Any, svc_settings: Any, settings: Any
) -> None:
    settings.OTP_TOTP_THROTTLE_FACTOR = 0
    svc_settings(accounts={"staff_second_factor": True})
    make_user("boss", is_staff=True)

    def code() -> str:
        TOTPDevice.objects.update(last_step=-1)
        return code_now(TOTPDevice.objects.get())

    answers = [visitor.login(), visitor.refresh(), visitor.post("mfa/totp", {"password": PASSWORD})]
    answers.append(visitor.post("mfa/totp/confirm", {"code": code()}))
    answers.append(visitor.post("mfa/recovery-codes", {"code": code()}))
    first = visitor.login()
    answers += [first, visitor.post("mfa/verify", {"mfa_token": first.json()["mfa_token"], "code": code()})]
    TOTPDevice.objects.all().delete()
    first = visitor.login("boss@example.com")
    token = {"mfa_token": first.json()["mfa_token"]}
    answers += [first, visitor.post("mfa/enrol", token)]
    answers.append(visitor.post("mfa/enrol/confirm", {**token, "code": code()}))

    assert [answer.status_code for answer in answers] == [200, 200, 201, 200, 200, 200, 200, 200, 201, 200]
    assert {answer["Cache-Control"] for answer in answers} == {"no-store"}


def test_rule_65_bodies_made_to_hurt_are_refused(visitor: Any) -> None:
    bomb = gzip.compress(b'{"email": "' + b" " * 5_000_000 + b'"}')
    twice = '{"email": "ada@example.com", "password": "x", "password": "y"}'
    for body, headers, expected in (
        ('{"email": "' + "x" * 5_000_000 + '"}', {}, {413}),
        ('{"a":' * 20_000 + "1" + "}" * 20_000, {}, {400, 422}),
        (bomb, {"Content-Encoding": "gzip"}, {400}),
        ('{"email": NaN, "password": Infinity}', {}, {400}),
        (twice, {}, {401}),
        (b"\xff\xfe", {}, {400}),
    ):
        answer = visitor.call("post", "login", body, headers=headers)
        assert answer.status_code in expected, (str(body)[:30], answer.status_code)
        assert len(answer.content) < 2_000


def test_rule_65_a_password_of_the_wrong_shape_is_not_repeated(visitor: Any) -> None:
    secret = "correct horse battery staple " * 200
    for sent in (secret, [secret], {"x": secret}):
        answer = visitor.post("login", {"email": "ada@example.com", "password": sent})
        assert answer.status_code == 422
        assert "correct horse" not in answer.content.decode()


def test_rule_38_a_form_of_another_site_cannot_log_in(user: Any, client: Any) -> None:
    answer = client.post("/api/auth/login", {"email": "ada@example.com", "password": PASSWORD})

    assert answer.status_code == 415


@pytest.mark.parametrize(
    "call",
    [
        *(("post", path) for path in ("logout", "logout-all", "password/change", "mfa/totp", "mfa/disable")),
        *(("post", path) for path in ("email/change", "email/change/confirm")),
        ("patch", "me"),
        *(("get", path) for path in ("sessions", "mfa/devices")),
        ("post", "mfa/recovery-codes"),
        ("post", "mfa/totp/confirm"),
    ],
)
def test_a_key_is_no_person(user: Any, client: Any, call: tuple[str, str]) -> None:
    _, key = issue_key(owner=user, name="robot")
    method, path = call
    body = {"data": POSTS.get(path, {}), "content_type": "application/json"} if method != "get" else {}

    answer = getattr(client, method)(f"/api/auth/{path}", headers={"X-API-Key": key}, **body)

    assert answer.status_code == 403
    assert answer.json()["code"] == "delegation_refused"


def test_without_a_credential_nothing_personal_answers(db: None, visitor: Any) -> None:
    for path in ("me", "sessions", "mfa/devices"):
        answer = visitor.get(path)
        assert answer.status_code == 401
        assert "Bearer" in answer["WWW-Authenticate"]


def test_the_browser_session_works_and_ends(user: Any, client: Any) -> None:
    client.force_login(user)
    assert client.get("/api/auth/me").json()["method"] == "session"

    assert client.post("/api/auth/logout").status_code == 204
    assert client.get("/api/auth/me").status_code == 401


@pytest.mark.django_db(transaction=True)
def test_an_asynchronous_caller_is_served_the_same(make_user: Any, async_client: Any) -> None:
    make_user("ada")

    async def visit() -> int:
        sent = {"email": "ada@example.com", "password": PASSWORD}
        login = await async_client.post("/api/auth/login", sent, content_type="application/json")
        headers = {"Authorization": f"Bearer {login.json()['access_token']}"}
        return int((await async_client.get("/api/auth/me", headers=headers)).status_code)

    assert async_to_sync(visit)() == 200


@pytest.mark.django_db(transaction=True)
@pytest.mark.urls("tests.accounts.asynchronous")
def test_an_asynchronous_operation_has_its_user_at_hand(make_user: Any, async_client: Any) -> None:
    token = issue_tokens(make_user("ada"), amr=("pwd",)).access_token

    async def ask() -> Any:
        return (await async_client.get("/api/name", headers={"Authorization": f"Bearer {token}"})).json()

    assert [async_to_sync(ask)() for _ in range(2)] == [{"name": "ada"}] * 2


def test_rule_63_no_log_line_holds_a_password_or_a_token(user: Any, visitor: Any, caplog: Any) -> None:
    caplog.set_level("DEBUG")
    visitor.login(password="a password that is wrong 1")
    visitor.login()
    visitor.refresh()
    visitor.get("me")
    visitor.post("signup", {"email": "new@example.com", "password": "a password that is new 2"})
    visitor.post("password/change", {"current_password": PASSWORD, "password": "a password that is next 3"})

    logged = "\n".join(str(vars(record)) for record in caplog.records)
    assert "svc_infra_django.access" in logged
    for secret in ("that is wrong 1", PASSWORD, "that is new 2", "that is next 3", *visitor.tokens.values()):
        if isinstance(secret, str) and len(secret) > 10:
            assert secret not in logged


def test_a_browser_session_without_the_second_factor_is_no_way_in(user: Any, stranger: Any) -> None:
    mine, theirs = (
        StaticDevice.objects.create(user=owner, name="card", confirmed=True) for owner in (user, stranger)
    )
    browser = Client()
    browser.force_login(user)

    def begin_as(device: Any) -> Any:
        session = browser.session
        session[DEVICE_ID_SESSION_KEY] = device.persistent_id if device else ""
        session.save()
        return browser.get("/api/auth/me")

    refused = [begin_as(device) for device in (None, theirs)]
    assert [answer.status_code for answer in refused] == [401, 401]
    assert {answer.json()["code"] for answer in refused} == {"second_factor_missing"}
    assert begin_as(mine).status_code == 200


def test_a_browser_session_is_asked_for_its_second_factor_once(
    user: Any, stranger: Any, django_assert_num_queries: Any
) -> None:
    device = StaticDevice.objects.create(user=user, name="card", confirmed=True)
    StaticDevice.objects.create(user=stranger, name="card", confirmed=True)
    browser = Client()
    browser.force_login(user)
    session = browser.session
    session[DEVICE_ID_SESSION_KEY] = device.persistent_id
    session.save()
    assert browser.get("/api/auth/me").status_code == 200

    with django_assert_num_queries(2):  # the session, the user
        assert browser.get("/api/auth/me").status_code == 200

    proved = browser.session
    proved["_auth_user_id"], proved["_auth_user_hash"] = str(stranger.pk), stranger.get_session_auth_hash()
    proved.save()
    assert browser.get("/api/auth/me").status_code == 401
    del proved[DEVICE_ID_SESSION_KEY]
    proved["_auth_user_id"], proved["_auth_user_hash"] = str(user.pk), user.get_session_auth_hash()
    proved.save()
    assert browser.get("/api/auth/me").status_code == 401


def test_the_current_user_of_any_request(user: Any, ada: Any, rf: Any) -> None:
    from svc_infra_django.api import aget_current_user, get_current_user
    from svc_infra_django.errors import AuthenticationError

    def sent(token: str | None = None) -> Any:
        return rf.get("/", headers={"Authorization": f"Bearer {token}"} if token else {})

    assert get_current_user(sent(ada.tokens["access_token"])) == user
    assert async_to_sync(aget_current_user)(sent(ada.tokens["access_token"])).username == "ada"
    for request in (sent(), sent("a.b.c")):
        with pytest.raises(AuthenticationError):
            get_current_user(request)

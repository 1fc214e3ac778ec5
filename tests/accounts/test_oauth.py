"""Logins by a provider, through the door: what the browser sees, and what a liar gets."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import jwt
import pytest
from allauth.account.models import EmailAddress
from allauth.socialaccount.models import SocialAccount, SocialToken
from allauth.socialaccount.providers.github.views import GitHubOAuth2Adapter
from allauth.socialaccount.providers.google.views import GoogleOAuth2Adapter
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from django.apps import apps
from django.contrib.auth import get_user_model
from django.core import mail
from django.core.management import call_command
from django.db import connection, connections, transaction
from django.test import Client
from django.utils import timezone

from svc_infra_django.accounts.errors import AccountExists, LastWayIn, PresentPasswordMissing
from svc_infra_django.accounts.models import AuditEvent, AuthSession, OAuthFlow, OAuthHandoff
from svc_infra_django.accounts.providers import Identity, forget_providers
from svc_infra_django.accounts.services.changing_passwords import change_password
from svc_infra_django.accounts.services.connecting_providers import disconnect, user_behind
from svc_infra_django.accounts.services.issuing_tokens import issue_tokens
from svc_infra_django.accounts.tasks import prune_accounts
from svc_infra_django.jobs.worker import drain
from svc_infra_django.principals import Principal
from tests.accounts.providers import CALLBACK, FOREIGN_KEY, KEY, FakeProvider, query_of, running
from tests.accounts.services.test_mfa import code_now, enrol
from tests.accounts.services.test_signing_up import mailed_key
from tests.conftest import PASSWORD, held_up

pytestmark = pytest.mark.django_db

NEXT = "another horse battery 8"
FRONT_END = "https://app.example.com/arrived"


@pytest.fixture(scope="module")
def server() -> Iterator[FakeProvider]:
    with running() as provider:
        yield provider


@pytest.fixture
def provider(server: FakeProvider, settings: Any, svc_settings: Any) -> FakeProvider:
    """A fresh provider at the old address, configured as `corp`."""
    url = server.url
    server.__init__()  # type: ignore[misc]
    server.url = url
    forget_providers()
    settings.SOCIALACCOUNT_PROVIDERS = {
        "openid_connect": {
            "APPS": [
                {
                    "provider_id": "corp",
                    "name": "Corp",
                    "client_id": "shop",
                    "secret": "shop-secret",
                    "settings": {"server_url": url},
                }
            ]
        }
    }
    svc_settings(accounts={"oauth_callback_url": CALLBACK, "oauth_front_ends": (FRONT_END,)})
    return server


class Browser:
    def __init__(self, provider: FakeProvider) -> None:
        self.provider = provider
        self.http = Client()
        self.begun: dict[str, Any] = {}

    def begin(self, provider: str = "corp", **query: str) -> Any:
        answer = self.http.get("/api/oauth/authorize", {"provider": provider, **query})
        if answer.status_code == 200:
            self.begun = answer.json()
        return answer

    def come_back(self, **query: str) -> Any:
        sent = {"state": self.begun["state"], "code": self.provider.consent(self.begun["authorization_url"])}
        return self.http.get("/api/oauth/callback", {**sent, **query})

    def log_in(self, **query: str) -> Any:
        assert self.begin(**query).status_code == 200
        return self.come_back()


@pytest.fixture
def browser(provider: FakeProvider) -> Browser:
    return Browser(provider)


def me(answer: Any) -> Any:
    headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    return Client().get("/api/auth/me", headers=headers).json()


def proven(email: str) -> dict[str, Any]:
    return {"email": email, "email_verified": True}


def test_names_are_taken_from_the_provider_until_people_have_their_own(db: None) -> None:
    def arrive(**names: str) -> Any:
        jane = Identity("corp", "7", (("jane@example.com", True),), names, {})
        user = user_behind(jane, now=timezone.now())
        user.refresh_from_db()
        return user

    assert arrive().first_name == ""
    known = arrive(first_name="J" * 200, last_name="Doe", username="root", name="Jane Doe")
    assert (known.first_name, known.last_name) == ("J" * 150, "Doe")
    assert known.get_username() != "root"
    assert arrive(first_name="Other", last_name="").first_name == "J" * 150


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_what_is_disconnected_during_a_login_by_it_stays_disconnected(make_user: Any) -> None:
    ada = make_user("ada")
    account = SocialAccount.objects.create(user=ada, provider="corp", uid="7")
    refused: list[str] = []

    def arrive() -> None:
        try:
            user_behind(Identity("corp", "7", (("ada@example.com", True),), {}, {}), now=timezone.now())
        except AccountExists as error:
            refused.append(error.code)

    with transaction.atomic():
        disconnect(Principal(ada, method="access_token"), account, now=timezone.now())
        arrival = held_up(arrive)
    arrival.join()

    assert refused and not SocialAccount.objects.exists()


def test_a_stranger_becomes_a_user_and_stays_the_same_one(browser: Browser, provider: FakeProvider) -> None:
    provider.person |= proven("Jane@Example.com")

    first, second = browser.log_in(), browser.log_in()

    assert first.status_code == second.status_code == 200
    assert me(first)["id"] == me(second)["id"]
    assert me(first)["amr"] == ["fed"]
    user = get_user_model().objects.get()
    assert (user.email, user.first_name, user.has_usable_password()) == ("jane@example.com", "Jane", False)
    assert EmailAddress.objects.get().verified
    assert first["Cache-Control"] == "no-store"


def test_it_ends_at_the_front_end_with_a_code_for_the_tokens(
    browser: Browser, provider: FakeProvider
) -> None:
    arrived = browser.log_in(next=FRONT_END)

    assert arrived.status_code == 302
    assert arrived["Location"].startswith(f"{FRONT_END}?code=oc_")
    assert "token" not in arrived["Location"] and not arrived.content
    sent = {"code": query_of(arrived["Location"])["code"][0], "state": browser.begun["state"]}
    exchanged = Client().post("/api/oauth/exchange", sent, content_type="application/json")
    assert me(exchanged)["amr"] == ["fed"]
    again = Client().post("/api/oauth/exchange", sent, content_type="application/json")
    assert again.status_code == 401


def test_it_ends_in_a_session_of_the_browser(browser: Browser) -> None:
    arrived = browser.log_in(next=FRONT_END)
    page = Client(enforce_csrf_checks=True)
    sent = {
        "code": query_of(arrived["Location"])["code"][0],
        "state": browser.begun["state"],
        "session": True,
    }

    def exchange(csrf: str) -> Any:
        headers = {"X-CSRFToken": csrf}
        return page.post("/api/oauth/exchange", sent, content_type="application/json", headers=headers)

    assert exchange("").json()["code"] == "csrf_failed"
    begun = exchange(page.get("/api/auth/csrf").json()["csrf_token"])
    assert begun.json()["session"] is True
    assert begun["Cache-Control"] == "no-store"
    assert page.get("/api/auth/me").json()["amr"] == ["fed"]


def test_a_code_that_was_slipped_into_another_page_is_worth_nothing(
    browser: Browser, provider: FakeProvider
) -> None:
    location = browser.log_in(next=FRONT_END)["Location"]
    victim = Browser(provider)
    victim.begin(next=FRONT_END)

    sent = {"code": query_of(location)["code"][0], "state": victim.begun["state"]}
    refused = Client().post("/api/oauth/exchange", sent, content_type="application/json")

    assert (refused.status_code, refused.json()["code"]) == (401, "accounts.invalid_handoff")


def test_a_code_is_good_for_a_minute(browser: Browser) -> None:
    location = browser.log_in(next=FRONT_END)["Location"]
    OAuthHandoff.objects.update(expires_at=timezone.now())

    sent = {"code": query_of(location)["code"][0], "state": browser.begun["state"]}
    assert Client().post("/api/oauth/exchange", sent, content_type="application/json").status_code == 401


def test_rule_48_a_state_is_good_once_and_for_ten_minutes(browser: Browser, provider: FakeProvider) -> None:
    assert browser.log_in().status_code == 200
    exchanges = provider.asked.count("/token")
    assert browser.come_back().status_code == 401

    browser.begin()
    assert len(browser.begun["state"]) >= 43
    OAuthFlow.objects.update(expires_at=timezone.now())
    late = browser.come_back()

    assert (late.status_code, late.json()["code"]) == (401, "accounts.invalid_state")
    assert provider.asked.count("/token") == exchanges


@pytest.mark.django_db(transaction=True)
def test_rule_48_of_six_at_once_with_one_state_one_goes_on(browser: Browser, provider: FakeProvider) -> None:
    browser.begin()
    query = {"state": browser.begun["state"], "code": provider.consent(browser.begun["authorization_url"])}
    cookies = browser.http.cookies
    statuses: list[int] = []

    def arrive() -> None:
        http = Client()
        http.cookies = cookies
        statuses.append(http.get("/api/oauth/callback", query).status_code)
        connections.close_all()

    threads = [threading.Thread(target=arrive) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(statuses) == [200, *[401] * 5]
    assert provider.asked.count("/token") == 1


@pytest.mark.parametrize("thief", ["another browser", "no cookie", "a cookie of their own"])
def test_rule_48_a_state_is_bound_to_the_browser(
    browser: Browser, provider: FakeProvider, thief: str
) -> None:
    browser.begin()
    if thief == "another browser":
        browser.http = Client()
        other = Browser(provider)
        other.begin()
        browser.http = other.http
    else:
        browser.http.cookies.clear()
        if thief == "a cookie of their own":
            browser.http.cookies["svc-oauth"] = "x" * 43

    refused = browser.come_back()

    assert (refused.status_code, refused.json()["code"]) == (401, "accounts.invalid_state")
    assert "/token" not in provider.asked
    assert not SocialAccount.objects.exists()


def test_rule_48_two_logins_in_one_browser_do_not_disturb_each_other(browser: Browser) -> None:
    browser.begin()
    first = browser.begun
    browser.begin()

    assert browser.come_back().status_code == 200
    browser.begun = first
    assert browser.come_back().status_code == 200


def test_rule_38_the_cookie_is_for_this_host_and_no_script(browser: Browser) -> None:
    plain = browser.begin().cookies["svc-oauth"]
    secure = browser.http.get("/api/oauth/authorize", {"provider": "corp"}, secure=True).cookies[
        "__Host-svc-oauth"
    ]

    assert (plain["httponly"], plain["samesite"], plain["path"]) == (True, "Lax", "/")
    assert (secure["secure"], secure["httponly"], secure["path"], secure["domain"]) == (True, True, "/", "")


def test_rule_49_pkce_and_nonce_are_fresh_each_time(browser: Browser) -> None:
    queries = []
    for _ in range(2):
        browser.begin()
        queries.append(query_of(browser.begun["authorization_url"]))

    for query in queries:
        assert query["code_challenge_method"] == ["S256"]
        assert len(query["code_challenge"][0]) == 43
        assert query["redirect_uri"] == [CALLBACK]
        assert "openid" in query["scope"][0].split()
    for name in ("code_challenge", "nonce", "state"):
        assert queries[0][name] != queries[1][name]


def test_rule_49_another_logins_code_is_refused_by_the_provider(
    browser: Browser, provider: FakeProvider
) -> None:
    other = Browser(provider)
    other.begin()
    stolen = provider.consent(other.begun["authorization_url"])
    browser.begin()

    assert browser.come_back(code=stolen).status_code == 401


LIES: dict[str, Any] = {
    "another nonce": lambda p: p.claims.update(nonce="x"),
    "no nonce": lambda p: p.claims.update(nonce=None),
    "another issuer": lambda p: p.claims.update(iss="https://evil.example"),
    "another audience": lambda p: p.claims.update(aud="another"),
    "two audiences and no azp": lambda p: p.claims.update(aud=["shop", "another"]),
    "another azp": lambda p: p.claims.update(azp="another"),
    "expired": lambda p: p.claims.update(exp=1_000_000_000),
    "from tomorrow": lambda p: p.claims.update(iat=4_000_000_000, nbf=4_000_000_000),
    "no expiry": lambda p: p.claims.update(exp=None),
    "no subject": lambda p: p.claims.update(sub=None),
    "a foreign key": lambda p: setattr(p, "signing_key", FOREIGN_KEY),
    "an unknown kid": lambda p: setattr(p, "kid", "k2"),
    "a kid that is a path": lambda p: setattr(p, "kid", "../../etc/passwd"),
    "userinfo of another subject": lambda p: p.userinfo.update(sub="somebody-else"),
    "no id_token": lambda p: setattr(p, "id_token", "x"),
    "a token that is no token": lambda p: p.answers.update({"/token": {"access_token": "a", "id_token": 7}}),
    "no token at all": lambda p: p.answers.update({"/token": {"error": "no"}}),
    "a list for userinfo": lambda p: p.answers.update({"/userinfo": [1]}),
    "an endless subject": lambda p: p.person.update(sub="x" * 300),
    "a numeric subject": lambda p: p.person.update(sub=""),
}


@pytest.mark.parametrize("lie", LIES)
def test_rule_50_a_provider_that_lies_logs_nobody_in(
    browser: Browser, provider: FakeProvider, lie: str
) -> None:
    LIES[lie](provider)

    answer = browser.log_in()

    assert (answer.status_code, answer.json()["code"]) == (401, "accounts.provider_refused")
    assert not get_user_model().objects.exists()


@pytest.mark.parametrize("forgery", ["none", "the public key as a secret"])
def test_rule_50_the_algorithm_is_the_keys_not_the_tokens(
    browser: Browser, provider: FakeProvider, forgery: str
) -> None:
    browser.begin()
    nonce = query_of(browser.begun["authorization_url"])["nonce"][0]
    claims = {"iss": provider.url, "aud": "shop", "sub": "1", "iat": 1, "exp": 4_000_000_000, "nonce": nonce}
    if forgery == "none":
        provider.id_token = jwt.encode(claims, None, algorithm="none", headers={"kid": "k1"})
    else:
        provider.id_token = forged_by_hmac(claims, KEY)

    assert browser.come_back().status_code == 401


def forged_by_hmac(claims: dict[str, Any], key: RSAPrivateKey) -> str:
    import hmac
    import json
    from base64 import urlsafe_b64encode

    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    parts = [{"alg": "HS256", "kid": "k1", "typ": "JWT"}, claims]
    signed = b".".join(urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts)
    signature = urlsafe_b64encode(hmac.digest(public, signed, "sha256")).rstrip(b"=")
    return (signed + b"." + signature).decode()


def test_rule_50_the_issuer_that_comes_back_must_be_the_one_that_was_asked(
    browser: Browser, provider: FakeProvider
) -> None:
    browser.begin()
    assert browser.come_back(iss="https://evil.example").status_code == 401
    browser.begin()
    assert browser.come_back(iss=provider.url).status_code == 200

    provider.config["authorization_response_iss_parameter_supported"] = True
    forget_providers()
    assert browser.log_in().status_code == 401


def test_rule_50_keys_are_fetched_once_and_a_new_one_is_found(
    browser: Browser, provider: FakeProvider, monkeypatch: Any
) -> None:
    for _ in range(3):
        assert browser.log_in().status_code == 200
    assert provider.asked.count("/jwks") == 1
    assert provider.asked.count("/.well-known/openid-configuration") == 1

    provider.keys = [{**provider.keys[0], "kid": "k2"}]
    provider.kid = "k2"
    assert browser.log_in().status_code == 401
    monkeypatch.setattr("svc_infra_django.accounts.providers.ASK_AGAIN_SECONDS", -1)
    assert browser.log_in().status_code == 200


def test_a_provider_that_is_down_is_a_503(browser: Browser, provider: FakeProvider) -> None:
    browser.begin()
    provider.is_down = True
    answer = browser.come_back()
    assert (answer.status_code, answer.json()["code"]) == (503, "accounts.provider_unavailable")

    forget_providers()
    assert browser.begin().status_code == 503
    assert "shop-secret" not in answer.content.decode()


@pytest.mark.parametrize("word", [False, None, "false", 0, "no", []])
def test_rule_51_an_address_that_is_not_proven_links_nothing(
    browser: Browser, provider: FakeProvider, user: Any, word: Any
) -> None:
    provider.person |= {"email": "ada@example.com", "email_verified": word}

    answer = browser.log_in()

    assert me(answer)["id"] != str(user.pk)
    assert me(answer)["email"] == ""
    assert not EmailAddress.objects.exists()


def test_rule_51_a_proven_address_of_another_account_is_refused_with_advice(
    browser: Browser, provider: FakeProvider, user: Any
) -> None:
    provider.person |= proven("ada@example.com")

    answer = browser.log_in()

    assert (answer.status_code, answer.json()["code"]) == (409, "accounts.account_exists")
    assert not SocialAccount.objects.exists()
    assert get_user_model().objects.count() == 1
    arrived = browser.log_in(next=FRONT_END)
    assert arrived["Location"] == f"{FRONT_END}?error=accounts.account_exists"


def test_rule_51_a_lookalike_address_is_another(
    browser: Browser, provider: FakeProvider, make_user: Any
) -> None:
    kate = make_user("kate")
    provider.person |= proven("\u212aate@example.com")

    answer = browser.log_in()

    assert me(answer)["id"] != str(kate.pk)
    assert me(answer)["email"] == ""


def test_rule_51_a_trusted_provider_opens_the_account_and_the_owner_is_told(
    browser: Browser, provider: FakeProvider, user: Any, svc_settings: Any
) -> None:
    svc_settings(accounts={"oauth_trusted_providers": ("corp",)})
    provider.person |= proven("ada@example.com")

    assert me(browser.log_in())["id"] == str(user.pk)
    user.refresh_from_db()
    assert user.check_password(PASSWORD)
    drain()
    assert [message.subject for message in mail.outbox] == ["Another way to log in was added"]


@pytest.mark.parametrize("field", ["is_staff", "is_superuser"])
def test_rule_51_staff_connect_providers_themselves(
    browser: Browser, provider: FakeProvider, make_user: Any, svc_settings: Any, field: str
) -> None:
    svc_settings(accounts={"oauth_trusted_providers": ("corp",)})
    make_user("ada", **{field: True})
    provider.person |= proven("ada@example.com")

    assert browser.log_in().status_code == 409


def test_rule_51_an_unproven_sign_up_loses_its_password_and_all_else(
    browser: Browser, provider: FakeProvider, visitor: Any, new_visitor: Any
) -> None:
    visitor.post("signup", {"email": "jane@example.com", "password": PASSWORD})
    hijacked = get_user_model().objects.get()
    enrol(hijacked)
    SocialAccount.objects.create(user=hijacked, provider="strangers", uid="1")
    before = issue_tokens(hijacked, amr=("pwd",)).session
    get_user_model().objects.update(last_login=None)
    provider.person |= proven("jane@example.com")

    answer = browser.log_in()

    assert me(answer)["id"] == str(hijacked.pk)
    assert SocialAccount.objects.get().provider == "corp"
    before.refresh_from_db()
    assert before.revoked_for == "password"
    hijacked.refresh_from_db()
    assert not hijacked.has_usable_password()
    assert new_visitor().login("jane@example.com").status_code == 401
    assert EmailAddress.objects.get().verified


def test_rule_13_a_provider_skips_no_second_factor(
    browser: Browser, provider: FakeProvider, settings: Any
) -> None:
    settings.OTP_TOTP_THROTTLE_FACTOR = 0
    browser.log_in()
    device, _ = enrol(get_user_model().objects.get())

    first = browser.log_in().json()
    assert first["mfa_required"] is True
    sent = {"mfa_token": first["mfa_token"], "code": code_now(device)}
    done = Client().post("/api/auth/mfa/verify", sent, content_type="application/json")

    assert me(done)["amr"] == ["fed", "otp", "mfa"]


@pytest.mark.parametrize("in_browser", [False, True])
@pytest.mark.parametrize("is_staff", [False, True])
def test_rule_13_the_code_of_a_front_end_skips_no_second_factor_either(
    browser: Browser, svc_settings: Any, in_browser: bool, is_staff: bool
) -> None:
    svc_settings(accounts={"staff_second_factor": True})
    browser.log_in()
    user = get_user_model().objects.get()
    if is_staff:
        get_user_model().objects.update(is_staff=True)
    else:
        enrol(user)
    arrived = browser.log_in(next=FRONT_END)
    client = Client(enforce_csrf_checks=True)
    token = client.get("/api/auth/csrf").json()["csrf_token"]
    sent = {"code": query_of(arrived["Location"])["code"][0], "state": browser.begun["state"]}

    answer = client.post(
        "/api/oauth/exchange",
        {**sent, "session": in_browser},
        content_type="application/json",
        headers={"X-CSRFToken": token},
    ).json()

    assert (answer["mfa_required"], answer["mfa_enrolment_required"]) == (True, is_staff)
    assert not {"access_token", "session"} & set(answer)
    assert client.get("/api/auth/me").status_code == 401


def test_a_disabled_user_does_not_come_in_by_a_provider(browser: Browser) -> None:
    browser.log_in()
    get_user_model().objects.update(is_active=False)

    assert browser.log_in().status_code == 401


def test_closed_sign_up_is_closed_for_providers_too(browser: Browser, svc_settings: Any) -> None:
    svc_settings(accounts={"signup_open": False})

    assert browser.log_in().status_code == 403
    assert not get_user_model().objects.exists()


@pytest.mark.parametrize(
    "target",
    [
        *("https://evil.example/", "//evil.example", "/\\evil.example", "https://app.example.com/arrived/x"),
        *(
            "https://app.example.com/arrived?x=1",
            "javascript:alert(1)",
            "arrived",
            "/a b",
            "/a\nb",
            "/a\r\nSet-Cookie: x",
        ),
    ],
)
def test_rule_52_it_ends_where_it_may_and_nowhere_else(browser: Browser, target: str) -> None:
    refused = browser.begin(next=target)

    assert (refused.status_code, refused.json()["code"]) == (422, "accounts.target_refused")
    assert refused.json()["errors"][0]["pointer"] == "/query/next"


def test_rule_52_a_path_here_is_a_good_end(browser: Browser) -> None:
    assert browser.log_in(next="/welcome?from=corp")["Location"].startswith("/welcome?from=corp&code=oc_")


def test_rule_52_nothing_of_the_providers_or_ours_lies_open_in_the_database(browser: Browser) -> None:
    browser.log_in(next=FRONT_END)
    location = browser.log_in(next=FRONT_END)["Location"]
    browser.begin()
    query = query_of(browser.begun["authorization_url"])
    secrets = [
        "provider-access-token",
        browser.begun["state"],
        query["nonce"][0],
        query_of(location)["code"][0],
    ]
    secrets.append(browser.http.cookies["svc-oauth"].value)

    everything = "".join(
        str(row) for table in connection.introspection.table_names() for row in rows_of(table)
    )

    assert "shop" in str(OAuthFlow._meta.db_table) or everything
    for secret in secrets:
        assert secret not in everything
    assert not SocialToken.objects.exists()


def rows_of(table: str) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(f'SELECT * FROM "{table}"')  # noqa: S608  # names of our own tables
        return cursor.fetchall()


def test_an_unknown_provider_is_not_found(browser: Browser) -> None:
    for name in ("nobody", "google", "openid_connect.", "../corp"):
        assert browser.begin(name).status_code == 404


def test_a_refusal_at_the_provider_is_one_here(browser: Browser) -> None:
    browser.begin()
    query = {"state": browser.begun["state"], "error": "access_denied"}

    assert browser.http.get("/api/oauth/callback", query).status_code == 401
    browser.begin(next=FRONT_END)
    query = {"state": browser.begun["state"], "error": "access_denied"}
    arrived = browser.http.get("/api/oauth/callback", query)
    assert arrived["Location"] == f"{FRONT_END}?error=accounts.provider_refused"


def test_without_a_callback_url_nothing_begins(browser: Browser, svc_settings: Any) -> None:
    svc_settings(accounts={"oauth_callback_url": ""})
    browser.http.raise_request_exception = False

    assert browser.begin().status_code == 500


def test_the_providers_are_listed_without_their_secrets(browser: Browser) -> None:
    listed = browser.http.get("/api/oauth/providers")

    assert listed.json() == [{"id": "corp", "name": "Corp"}]


def test_a_client_begins_only_so_many(browser: Browser, svc_settings: Any) -> None:
    svc_settings(accounts={"oauth_flows_per_client": 2})

    assert [browser.begin().status_code for _ in range(3)] == [200, 200, 429]


def test_bad_queries_are_refused_politely(browser: Browser) -> None:
    for query in ({"state": "x" * 5000}, {"state": "\x00"}, {"code": "x"}, {}):
        assert 400 <= browser.http.get("/api/oauth/callback", query).status_code < 500, query


def test_what_ran_out_is_forgotten(browser: Browser) -> None:
    browser.begin()
    browser.log_in(next=FRONT_END)
    for model in (OAuthFlow, OAuthHandoff):
        model.objects.update(expires_at=timezone.now() - timedelta(seconds=1))

    prune_accounts.func()

    assert not OAuthFlow.objects.exists() and not OAuthHandoff.objects.exists()


# Connecting


def connect(ada: Any, browser: Browser, **fields: Any) -> Any:
    headers = {"Authorization": f"Bearer {ada.tokens['access_token']}"}
    sent = {"provider": "corp", **fields}
    answer = browser.http.post("/api/oauth/connect", sent, content_type="application/json", headers=headers)
    if answer.status_code == 200:
        browser.begun = answer.json()
    return answer


def own(ada: Any, method: str, path: str) -> Any:
    headers = {"Authorization": f"Bearer {ada.tokens['access_token']}"}
    return getattr(ada.http, method)(f"/api/oauth/{path}", headers=headers)


def test_a_user_connects_a_provider_logs_in_by_it_and_disconnects_it(
    ada: Any, user: Any, browser: Browser, events: Any
) -> None:
    assert connect(ada, browser).status_code == 200
    assert browser.come_back().status_code == 204
    assert me(browser.log_in())["id"] == str(user.pk)

    accounts = own(ada, "get", "accounts").json()["accounts"]
    assert [each["provider"] for each in accounts] == ["corp"]
    assert own(ada, "delete", f"accounts/{accounts[0]['id']}").status_code == 204
    assert own(ada, "get", "accounts").json() == {"accounts": [], "has_password": True}
    names = [event.type.name for event in events if "provider" in event.type.name]
    assert names == ["user.provider_connected", "user.provider_disconnected"]
    drain()
    assert [message.subject for message in mail.outbox] == [
        "Another way to log in was added",
        "A way to log in was removed",
    ]


def test_rule_45_connecting_needs_a_fresh_login(ada: Any, browser: Browser) -> None:
    AuthSession.objects.update(auth_time=timezone.now() - timedelta(seconds=601))
    ada.refresh()

    assert connect(ada, browser).status_code == 401
    assert connect(ada, browser, password=PASSWORD).status_code == 200


def test_rule_45_disconnecting_needs_a_fresh_login(ada: Any, browser: Browser) -> None:
    connect(ada, browser)
    browser.come_back()
    account = SocialAccount.objects.get()
    AuthSession.objects.update(auth_time=timezone.now() - timedelta(seconds=601))
    ada.refresh()

    assert own(ada, "delete", f"accounts/{account.pk}").status_code == 401
    assert ada.post("step-up", {"password": PASSWORD}).status_code == 204
    ada.refresh()
    assert own(ada, "delete", f"accounts/{account.pk}").status_code == 204


def test_what_is_connected_to_somebody_is_not_taken_from_them(
    ada: Any, browser: Browser, provider: FakeProvider
) -> None:
    browser.log_in()
    connect(ada, browser)

    assert browser.come_back().status_code == 409


def test_a_connection_dies_with_the_password_that_began_it(ada: Any, user: Any, browser: Browser) -> None:
    connect(ada, browser)
    user.set_password("another horse battery 8")
    user.save()

    assert browser.come_back().status_code == 401
    assert not SocialAccount.objects.exists()


def test_who_came_by_a_provider_is_out_when_it_is_disconnected(
    ada: Any, user: Any, browser: Browser, new_visitor: Any
) -> None:
    phone = new_visitor()
    phone.login()
    connect(ada, browser)
    browser.come_back()
    came = browser.log_in().json()
    waiting = browser.log_in(next=FRONT_END)
    code = query_of(waiting["Location"])["code"][0]
    headers = {"Authorization": f"Bearer {came['access_token']}"}
    assert Client().get("/api/auth/me", headers=headers).status_code == 200

    assert own(ada, "delete", f"accounts/{SocialAccount.objects.get().pk}").status_code == 204

    assert Client().get("/api/auth/me", headers=headers).status_code == 401
    sent = {"code": code, "state": browser.begun["state"]}
    assert Client().post("/api/oauth/exchange", sent, content_type="application/json").status_code == 401
    assert ada.get("me").status_code == phone.get("me").status_code == 200
    assert AuthSession.objects.get(revoked_for="provider").owner == user


def test_a_connection_dies_with_the_session_that_began_it(
    ada: Any, browser: Browser, new_visitor: Any
) -> None:
    owner = new_visitor()
    owner.login()
    connect(ada, browser)
    owner.post("logout-all", {})

    assert browser.come_back().status_code == 401
    assert not SocialAccount.objects.exists()


def test_the_last_way_in_stays(browser: Browser) -> None:
    tokens = browser.log_in().json()
    headers = {"Authorization": f"Bearer {tokens['access_token']}"}
    account = SocialAccount.objects.get()

    refused = Client().delete(f"/api/oauth/accounts/{account.pk}", headers=headers)

    assert (refused.status_code, refused.json()["code"]) == (409, "accounts.last_way_in")


def test_without_the_app_of_the_providers_nobody_has_an_account_there(
    browser: Browser, monkeypatch: Any
) -> None:
    headers = {"Authorization": f"Bearer {browser.log_in().json()['access_token']}"}
    account = SocialAccount.objects.get()
    installed = apps.is_installed
    monkeypatch.setattr(apps, "is_installed", lambda name: "social" not in name and installed(name))

    assert Client().get("/api/oauth/accounts", headers=headers).json()["accounts"] == []
    assert Client().delete(f"/api/oauth/accounts/{account.pk}", headers=headers).status_code == 404


def test_a_provider_that_is_offered_no_more_is_no_way_in(browser: Browser) -> None:
    headers = {"Authorization": f"Bearer {browser.log_in().json()['access_token']}"}
    account = SocialAccount.objects.get()
    SocialAccount.objects.create(user=account.user, provider="gone", uid="1")

    assert Client().delete(f"/api/oauth/accounts/{account.pk}", headers=headers).status_code == 409


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_of_two_who_take_one_of_two_ways_in_each_one_is_refused(browser: Browser) -> None:
    browser.log_in()
    account = SocialAccount.objects.get()
    SocialAccount.objects.create(user=account.user, provider="corp", uid="another")
    ways = list(SocialAccount.objects.order_by("pk"))
    barrier = threading.Barrier(2)
    refused: list[LastWayIn] = []

    def take(way: SocialAccount) -> None:
        try:
            principal = Principal(account.user, method="access_token")
            barrier.wait(60)
            disconnect(principal, way, now=timezone.now())
        except LastWayIn as error:
            refused.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=take, args=(way,)) for way in ways]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert len(refused) == SocialAccount.objects.count() == 1


# A first password


def came_by_provider(browser: Browser, provider: FakeProvider) -> dict[str, str]:
    provider.person = {**provider.person, **proven("ada@example.com")}
    return {"Authorization": f"Bearer {browser.log_in().json()['access_token']}"}


def set_password(headers: dict[str, str], **fields: str) -> Any:
    sent = {"password": NEXT, **fields}
    return Client().post("/api/auth/password/change", sent, content_type="application/json", headers=headers)


def log_in_by_password() -> Any:
    sent = {"email": "ada@example.com", "password": NEXT}
    return Client().post("/api/auth/login", sent, content_type="application/json")


def test_an_account_of_a_provider_sets_a_first_password_and_may_then_leave_the_provider(
    browser: Browser, provider: FakeProvider, events: Any
) -> None:
    other = came_by_provider(browser, provider)
    headers = came_by_provider(browser, provider)
    owned = Client().get("/api/oauth/accounts", headers=headers).json()
    assert owned["has_password"] is False

    assert set_password(headers).status_code == 204

    assert log_in_by_password().status_code == 200
    assert Client().get("/api/auth/me", headers=headers).status_code == 200
    assert Client().get("/api/auth/me", headers=other).status_code == 401
    drain()
    assert "A password was set" in [message.subject for message in mail.outbox]
    row = AuditEvent.objects.get(name="user.password_changed")
    assert row.data["is_first"] is True
    path = f"/api/oauth/accounts/{owned['accounts'][0]['id']}"
    assert Client().delete(path, headers=headers).status_code == 204


def test_a_browser_that_sets_a_first_password_stays_signed_in(
    browser: Browser, provider: FakeProvider
) -> None:
    provider.person = {**provider.person, **proven("ada@example.com")}
    code = query_of(browser.log_in(next=FRONT_END)["Location"])["code"][0]
    page = Client(enforce_csrf_checks=True)
    headers = {"X-CSRFToken": page.get("/api/auth/csrf").json()["csrf_token"]}
    sent = {"code": code, "state": browser.begun["state"], "session": True}
    begun = page.post("/api/oauth/exchange", sent, content_type="application/json", headers=headers)
    headers = {"X-CSRFToken": begun.json()["csrf_token"]}

    changed = page.post(
        "/api/auth/password/change", {"password": NEXT}, content_type="application/json", headers=headers
    )

    assert changed.status_code == 204
    assert page.get("/api/auth/me").json()["method"] == "session"
    assert len(page.get("/api/auth/sessions").json()["items"]) == 1
    assert log_in_by_password().status_code == 200


def test_rule_45_a_first_password_wants_a_fresh_login(browser: Browser, provider: FakeProvider) -> None:
    tokens = browser.log_in().json()
    AuthSession.objects.update(auth_time=timezone.now() - timedelta(seconds=601))
    sent = {"refresh_token": tokens["refresh_token"]}
    old = Client().post("/api/auth/refresh", sent, content_type="application/json").json()

    refused = set_password({"Authorization": f"Bearer {old['access_token']}"}, current_password=PASSWORD)

    assert (refused.status_code, refused.json()["code"]) == (401, "accounts.fresh_factor_required")
    assert "insufficient_user_authentication" in refused["WWW-Authenticate"]
    assert set_password(came_by_provider(browser, provider)).status_code == 204


def test_rule_45_a_first_password_wants_the_second_factor_of_who_has_one(
    browser: Browser, provider: FakeProvider
) -> None:
    headers = came_by_provider(browser, provider)
    enrol(SocialAccount.objects.get().user)

    assert set_password(headers).status_code == 401


def test_only_the_first_password_needs_no_present_one(ada: Any, browser: Browser) -> None:
    connect(ada, browser)
    browser.come_back()

    refused = ada.post("password/change", {"password": NEXT})

    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/body/current_password"


@pytest.mark.django_db(transaction=True)
def test_a_first_password_is_first_once(browser: Browser, provider: FakeProvider) -> None:
    came_by_provider(browser, provider)
    user = SocialAccount.objects.get().user
    principals = [
        Principal(get_user_model().objects.get(pk=user.pk), method="access_token", auth_time=timezone.now())
        for _ in range(2)
    ]
    change_password(principals[0], current=None, new=NEXT, now=timezone.now())

    with pytest.raises(PresentPasswordMissing):
        change_password(principals[1], current=None, new=f"{NEXT} other", now=timezone.now())

    user.refresh_from_db()
    assert user.check_password(NEXT)


def test_a_project_may_have_people_come_by_the_provider_alone(
    browser: Browser, provider: FakeProvider, svc_settings: Any
) -> None:
    headers = came_by_provider(browser, provider)
    drain()
    mail.outbox.clear()
    svc_settings(accounts={"first_passwords": False})

    assert set_password(headers).status_code == 422
    assert set_password(headers, current_password="").status_code == 422
    assert set_password(headers, current_password="!").status_code == 401
    sent = {"email": "ada@example.com"}
    asked = Client().post("/api/auth/password/reset", sent, content_type="application/json")
    drain()
    assert asked.status_code == 202
    assert not mail.outbox
    path = f"/api/oauth/accounts/{SocialAccount.objects.get().pk}"
    assert "Connect another provider" in Client().delete(path, headers=headers).json()["detail"]


def test_an_account_of_a_provider_gets_a_first_password_by_mail(
    browser: Browser, provider: FakeProvider
) -> None:
    headers = came_by_provider(browser, provider)
    unknown, known = (
        Client().post("/api/auth/password/reset", {"email": email}, content_type="application/json")
        for email in ("nobody@example.com", "ada@example.com")
    )
    assert (unknown.status_code, unknown.content) == (known.status_code, known.content)
    sent = {"key": mailed_key(), "password": NEXT}
    reset = Client().post("/api/auth/password/reset/confirm", sent, content_type="application/json")

    assert reset.status_code == 204
    assert log_in_by_password().status_code == 200
    assert Client().get("/api/auth/me", headers=headers).status_code == 401
    assert AuditEvent.objects.get(name="user.password_changed").data["is_first"] is True
    assert browser.log_in().status_code == 200


def test_rule_61_a_strangers_connection_is_not_found(ada: Any, browser: Browser) -> None:
    browser.log_in()

    assert own(ada, "delete", f"accounts/{SocialAccount.objects.get().pk}").status_code == 404
    assert SocialAccount.objects.exists()


# The three big ones


def test_google_is_an_openid_provider(
    browser: Browser, provider: FakeProvider, settings: Any, monkeypatch: Any
) -> None:
    settings.SOCIALACCOUNT_PROVIDERS = {
        "google": {
            "APPS": [{"client_id": "shop", "secret": "shop-secret"}],
            "JWKS_URL": f"{provider.url}/jwks",
        }
    }
    monkeypatch.setattr(GoogleOAuth2Adapter, "access_token_url", f"{provider.url}/token")
    provider.person |= proven("jane@gmail.com")
    provider.claims["iss"] = "https://accounts.google.com"

    browser.begin("google")
    assert browser.begun["authorization_url"].startswith("https://accounts.google.com/o/oauth2/v2/auth?")
    assert "openid" in query_of(browser.begun["authorization_url"])["scope"][0].split()
    assert me(browser.come_back())["email"] == "jane@gmail.com"

    provider.claims["nonce"] = "another"
    browser.begin("google")
    assert browser.come_back().status_code == 401


def test_github_says_which_addresses_are_proven(
    browser: Browser, provider: FakeProvider, settings: Any, monkeypatch: Any
) -> None:
    settings.SOCIALACCOUNT_PROVIDERS = {"github": {"APPS": [{"client_id": "shop", "secret": "shop-secret"}]}}
    for name, path in (("access_token_url", "token"), ("profile_url", "user"), ("emails_url", "user/emails")):
        monkeypatch.setattr(GitHubOAuth2Adapter, name, f"{provider.url}/{path}")
    provider.answers = {
        "/user": {"id": 7, "login": "octocat", "name": "Mona Lisa", "email": "public@example.com"},
        "/user/emails": [
            {"email": "old@example.com", "primary": True, "verified": False},
            {"email": "mona@example.com", "primary": False, "verified": True},
        ],
    }

    browser.begin("github")
    query = query_of(browser.begun["authorization_url"])
    assert browser.begun["authorization_url"].startswith("https://github.com/login/oauth/authorize?")
    assert query["code_challenge_method"] == ["S256"] and "nonce" not in query
    assert me(browser.come_back())["email"] == "mona@example.com"
    assert SocialAccount.objects.get().uid == "7"


def test_microsoft_proves_no_address_unless_settings_say_so(
    browser: Browser, provider: FakeProvider, settings: Any
) -> None:
    app = {
        "client_id": "shop",
        "secret": "shop-secret",
        "settings": {"login_url": provider.url, "graph_url": provider.url},
    }
    settings.SOCIALACCOUNT_PROVIDERS = {"microsoft": {"APPS": [app]}}
    provider.answers = {"/v1.0/me": {"id": "m-1", "mail": "jane@corp.example", "givenName": "Jane"}}

    browser.begin("microsoft")
    assert me(browser.come_back())["email"] == ""

    provider.answers = {"/v1.0/me": {"id": "m-2", "mail": "jane@corp.example"}}
    settings.SOCIALACCOUNT_PROVIDERS["microsoft"]["VERIFIED_EMAIL"] = ["corp.example"]
    browser.begin("microsoft")
    assert me(browser.come_back())["email"] == "jane@corp.example"


def test_the_project_is_in_order() -> None:
    call_command("check")

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from django.apps import apps
from django.core.checks import Tags, run_checks
from rest_framework.settings import DEFAULTS

from svc_infra_django.accounts.checks import (
    DEFAULTS_OF_REST_FRAMEWORK,
    check_deployment,
    check_installed,
    check_libraries,
    check_links,
    check_providers,
    check_shared_cache,
)


def ids(messages: Iterable[Any]) -> list[str]:
    return [message.id.removeprefix("svc_accounts.") for message in messages]


def test_the_tests_own_project_is_in_order() -> None:
    assert ids(check_installed(None)) == ids(check_links(None)) == []


@pytest.mark.parametrize("name", ["allauth", "allauth.account", "django_otp"])
def test_a_missing_app_is_named(settings: Any, name: str) -> None:
    settings.INSTALLED_APPS = [app for app in settings.INSTALLED_APPS if app != name]

    assert ids(check_installed(None)) == ["E001"]


def test_the_missing_middleware_is_named(settings: Any) -> None:
    settings.MIDDLEWARE = [each for each in settings.MIDDLEWARE if "allauth" not in each]

    assert ids(check_installed(None)) == ["E002"]


def test_without_a_password_backend_nobody_can_log_in(settings: Any) -> None:
    settings.AUTHENTICATION_BACKENDS = ["svc_infra_django.rbac.backends.RoleBackend"]

    assert ids(check_installed(None)) == ["E003"]


@pytest.mark.parametrize("url", ["https://app.example.com/verify", "javascript:{key}"])
def test_a_link_without_a_place_for_the_key_is_named(svc_settings: Any, url: str) -> None:
    svc_settings(accounts={"password_reset_url": url})

    assert ids(check_links(None)) == ["E004"]


@pytest.fixture
def safe(settings: Any, svc_settings: Any) -> Any:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.PBKDF2PasswordHasher"]
    settings.AUTH_PASSWORD_VALIDATORS = [
        {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"}
    ]
    svc_settings(accounts={"issuer": "https://shop.example.com", "staff_second_factor": True})
    return settings


def test_a_safe_deployment_has_no_warnings(safe: Any) -> None:
    assert ids(check_deployment(None)) == []


@pytest.mark.parametrize(
    ("setting", "value", "wanted"),
    [
        ("SECRET_KEY", "short", "W001"),
        ("SECRET_KEY", "django-insecure-" + "x" * 60, "W001"),
        ("SECRET_KEY_FALLBACKS", ["short"], "W001"),
        ("AUTH_PASSWORD_VALIDATORS", [], "W003"),
        ("PASSWORD_HASHERS", ["django.contrib.auth.hashers.MD5PasswordHasher"], "W004"),
        ("OTP_TOTP_THROTTLE_FACTOR", 0, "W006"),
    ],
)
def test_each_unsafe_setting_is_named(safe: Any, setting: str, value: Any, wanted: str) -> None:
    setattr(safe, setting, value)

    assert ids(check_deployment(None)) == [wanted]


@pytest.mark.parametrize("where", ["SECRET_KEY", "SECRET_KEY_FALLBACKS"])
def test_rule_23_a_weak_secret_is_named(safe: Any, where: str) -> None:
    weak = "k" * 49
    setattr(safe, where, weak if where == "SECRET_KEY" else [weak])

    assert ids(check_deployment(None)) == ["W001"]


def test_the_default_issuer_and_plain_links_are_named(safe: Any, svc_settings: Any) -> None:
    svc_settings(
        accounts={"issuer": "svc_infra_django", "password_reset_url": "http://app.example.com/{key}"}
    )

    assert ids(check_deployment(None)) == ["W002", "W005"]


@pytest.mark.parametrize(
    "place",
    [
        {"oauth_callback_url": "http://api.example.com/api/oauth/callback"},
        {"oauth_front_ends": ("https://app.example.com/", "http://app.example.com/")},
    ],
)
def test_a_login_that_ends_in_the_clear_is_named(safe: Any, svc_settings: Any, place: Any) -> None:
    svc_settings(accounts=place)

    assert ids(check_deployment(None)) == ["W005"]


def test_rule_46_a_deployed_admin_without_the_second_step_is_named(safe: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(apps.get_app_config("admin"), "default_site", "django.contrib.admin.sites.AdminSite")

    assert ids(check_deployment(None)) == ["W007"]


@pytest.mark.parametrize(
    ("alias", "is_wrong"), [("", False), ("default", True), ("none", True), ("near", True), ("far", False)]
)
def test_a_shared_cache_is_shared(settings: Any, svc_settings: Any, alias: str, is_wrong: bool) -> None:
    layered = "svc_infra_django.cache.backends.LayeredCache"
    settings.CACHES = {
        "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
        "near": {"BACKEND": layered, "OPTIONS": {"l2": "default"}},
        "far": {"BACKEND": layered, "OPTIONS": {"l2": "redis"}},
        "redis": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": "redis://localhost:1"},
    }
    svc_settings(accounts={"shared_cache": alias})

    assert [each.id for each in check_shared_cache(None)] == ["svc_accounts.E005"] * is_wrong


def test_sessions_that_nobody_can_end_are_named(settings: Any) -> None:
    assert "W008" not in ids(check_deployment(None))
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"

    assert "W008" in ids(check_deployment(None))


@pytest.mark.parametrize(
    ("setting", "value", "wanted"),
    [
        ("SOCIALACCOUNT_PROVIDERS", {"google": {}}, "E006"),
        ("SOCIALACCOUNT_QUERY_EMAIL", False, "W009"),
        ("SOCIALACCOUNT_STORE_TOKENS", True, "W010"),
    ],
)
def test_providers_that_cannot_work_or_be_trusted_are_named(
    settings: Any, setting: str, value: Any, wanted: str
) -> None:
    assert ids(check_providers(None)) == []
    setattr(settings, setting, value)

    assert ids(check_providers(None)) == [wanted]


def test_without_providers_installed_there_is_nothing_to_say(settings: Any) -> None:
    settings.INSTALLED_APPS = [app for app in settings.INSTALLED_APPS if "socialaccount" not in app]

    assert ids(check_providers(None)) == []


IN_ORDER = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["svc_infra_django.contrib.drf.PrincipalAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
}


@pytest.fixture
def neat(settings: Any, monkeypatch: Any) -> Any:
    """A project with the libraries that are needed, and none that these tests use beside them."""
    installed = apps.is_installed
    monkeypatch.setattr(
        apps, "is_installed", lambda name: name != "django_otp.plugins.otp_static" and installed(name)
    )
    settings.REST_FRAMEWORK = IN_ORDER
    return settings


def test_the_libraries_underneath_are_in_order(neat: Any) -> None:
    assert ids(check_libraries(None)) == []


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("ACCOUNT_PREVENT_ENUMERATION", False, "W014"),
        ("SOCIALACCOUNT_EMAIL_AUTHENTICATION", True, "W015"),
        ("ACCOUNT_LOGIN_ON_PASSWORD_RESET", True, "W015"),
        ("ACCOUNT_LOGIN_ON_EMAIL_CONFIRMATION", True, "W015"),
        ("SESSION_COOKIE_SAMESITE", "None", "W016"),
        ("SESSION_COOKIE_SAMESITE", False, "W016"),
        ("ACCOUNT_EMAIL_CONFIRMATION_HMAC", False, "W018"),
        ("SOCIALACCOUNT_LOGIN_ON_GET", True, "W019"),
        ("ACCOUNT_RATE_LIMITS", False, "W020"),
    ],
)
def test_unsafe_settings_of_libraries_are_named(neat: Any, name: str, value: Any, expected: str) -> None:
    setattr(neat, name, value)

    assert ids(check_libraries(None)) == [expected]


@pytest.mark.parametrize(
    "path",
    [
        "rest_framework_simplejwt.authentication.JWTAuthentication",
        "rest_framework.authentication.TokenAuthentication",
        "rest_framework.authentication.BasicAuthentication",
        "rest_framework.authentication.SessionAuthentication",
        "knox.auth.TokenAuthentication",
    ],
)
def test_other_logins_of_rest_framework_are_named(neat: Any, path: str) -> None:
    neat.REST_FRAMEWORK = {**IN_ORDER, "DEFAULT_AUTHENTICATION_CLASSES": [path]}

    assert ids(check_libraries(None)) == ["W013"]


def test_what_rest_framework_does_unless_it_is_told_is_named(neat: Any) -> None:
    del neat.REST_FRAMEWORK
    assert {name: DEFAULTS[name] for name in IN_ORDER} == DEFAULTS_OF_REST_FRAMEWORK

    # Sessions with half a login, passwords that nobody counts, and views that are open.
    assert ids(check_libraries(None)) == ["W013", "W013", "W017"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rest_framework_simplejwt.token_blacklist", "W011"),
        ("django_otp.plugins.otp_totp", "W012"),
        ("django_otp.plugins.otp_hotp", "W012"),
        ("django_otp.plugins.otp_static", "W012"),
        ("django_otp.plugins.otp_email", "W012"),
    ],
)
def test_apps_that_keep_secrets_in_clear_are_named(monkeypatch: Any, name: str, expected: str) -> None:
    monkeypatch.setattr(apps, "is_installed", lambda asked: asked == name)

    assert ids(check_libraries(None)) == [expected]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("SESSION_COOKIE_SECURE", False, "security.W012"),
        ("SESSION_COOKIE_HTTPONLY", False, "security.W015"),
        ("CSRF_COOKIE_SECURE", False, "security.W016"),
        ("MIDDLEWARE", ["django.contrib.sessions.middleware.SessionMiddleware"], "security.W003"),
        ("DEBUG", True, "security.W018"),
        ("ALLOWED_HOSTS", [], "security.W020"),
        ("SECURE_SSL_REDIRECT", False, "security.W008"),
    ],
)
def test_django_itself_names_its_cookies_and_doors(
    settings: Any, name: str, value: Any, expected: str
) -> None:
    settings.MIDDLEWARE = ["django.middleware.security.SecurityMiddleware", *settings.MIDDLEWARE]
    setattr(settings, name, value if name != "MIDDLEWARE" else [settings.MIDDLEWARE[0], *value])

    def found() -> list[str]:
        return [message.id for message in run_checks(tags=[Tags.security], include_deployment_checks=True)]

    assert expected in found()
    if isinstance(value, bool):
        setattr(settings, name, not value)
        assert expected not in found()

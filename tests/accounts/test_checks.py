from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from django.apps import apps

from svc_infra_django.accounts.checks import (
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


def test_the_libraries_underneath_are_in_order() -> None:
    assert ids(check_libraries(None)) == []


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("ACCOUNT_PREVENT_ENUMERATION", False, "W014"),
        ("SOCIALACCOUNT_EMAIL_AUTHENTICATION", True, "W015"),
        ("ACCOUNT_LOGIN_ON_PASSWORD_RESET", True, "W015"),
        ("SESSION_COOKIE_SAMESITE", "None", "W016"),
        ("SESSION_COOKIE_SAMESITE", False, "W016"),
    ],
)
def test_unsafe_settings_of_libraries_are_named(settings: Any, name: str, value: Any, expected: str) -> None:
    setattr(settings, name, value)

    assert ids(check_libraries(None)) == [expected]


@pytest.mark.parametrize(
    "path",
    [
        "rest_framework_simplejwt.authentication.JWTAuthentication",
        "rest_framework.authentication.TokenAuthentication",
        "knox.auth.TokenAuthentication",
    ],
)
def test_other_tokens_of_rest_framework_are_named(settings: Any, path: str) -> None:
    settings.REST_FRAMEWORK = {"DEFAULT_AUTHENTICATION_CLASSES": [path]}
    assert ids(check_libraries(None)) == ["W013"]

    settings.REST_FRAMEWORK = {
        "DEFAULT_AUTHENTICATION_CLASSES": ["svc_infra_django.contrib.drf.PrincipalAuthentication"]
    }
    assert ids(check_libraries(None)) == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [("rest_framework_simplejwt.token_blacklist", "W011"), ("django_otp.plugins.otp_totp", "W012")],
)
def test_apps_that_keep_secrets_in_clear_are_named(monkeypatch: Any, name: str, expected: str) -> None:
    monkeypatch.setattr(apps, "is_installed", lambda asked: asked == name)

    assert ids(check_libraries(None)) == [expected]

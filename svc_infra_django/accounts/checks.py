"""What of the project's settings would keep accounts from working, or from being safe."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from django.apps import apps
from django.conf import settings as django_settings
from django.core.cache import caches
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.checks import CheckMessage, Error, Tags, Warning
from django.utils.module_loading import import_string

from ..cache.backends import shared
from ..config.checks import register
from .conf import AccountsSettings, settings
from .services.editing_profiles import profile_fields
from .services.noting_browsers import IN_COOKIES
from .validators import looks_sorted

MIDDLEWARE = "allauth.account.middleware.AccountMiddleware"
WEAK_HASHERS = ("MD5PasswordHasher", "UnsaltedMD5PasswordHasher", "UnsaltedSHA1PasswordHasher")
FOREIGN_LOGINS = ("rest_framework_simplejwt.", "rest_framework.authentication.", "knox.")
PLAIN_DEVICES = tuple(f"django_otp.plugins.otp_{kind}" for kind in ("totp", "hotp", "static", "email"))
DEFAULTS_OF_REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "rest_framework.authentication.SessionAuthentication",
        "rest_framework.authentication.BasicAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.AllowAny"],
}
SECRET_KEY_LENGTH = 50
LINKS = ("email_verification_url", "email_change_url", "password_reset_url")


@register("svc_infra")
def check_installed(app_configs: Any, **_: Any) -> Iterable[CheckMessage]:
    """E001 an app that accounts stand on is missing, E002 its middleware, E003 nobody checks passwords."""
    for name in ("allauth", "allauth.account", "django_otp"):
        if not apps.is_installed(name):
            yield Error(
                f"svc_infra_django.accounts needs {name}.",
                hint=f'Add "{name}" to INSTALLED_APPS.',
                id="svc_accounts.E001",
            )
    if MIDDLEWARE not in django_settings.MIDDLEWARE:
        yield Error(
            "django-allauth's AccountMiddleware is missing.",
            hint=f'Add "{MIDDLEWARE}" to the end of MIDDLEWARE.',
            id="svc_accounts.E002",
        )
    if not any("rbac" not in backend for backend in django_settings.AUTHENTICATION_BACKENDS):
        yield Error(
            "No authentication backend checks passwords: nobody can log in.",
            hint='Add "django.contrib.auth.backends.ModelBackend" to AUTHENTICATION_BACKENDS.',
            id="svc_accounts.E003",
        )


@register("svc_infra")
def check_links(app_configs: Any, **_: Any) -> Iterable[CheckMessage]:
    """E004: a link in a mail would lead nowhere."""
    for name in LINKS:
        url = getattr(settings, name)
        if url and ("{key}" not in url or not url.startswith(("https://", "http://"))):
            yield Error(
                f'SVC_INFRA["accounts"]["{name}"] has no place for the key, or is no web address.',
                hint="Write something like https://app.example.com/verify#{key}.",
                id="svc_accounts.E004",
            )


@register("svc_infra")
def check_shared_cache(app_configs: Any, **_: Any) -> Iterable[CheckMessage]:
    """E005: the cache for all processes does not exist, or is in one of them."""
    alias = settings.shared_cache
    if alias and alias not in django_settings.CACHES:
        yield Error(
            f'SVC_INFRA["accounts"]["shared_cache"] is {alias!r}, which is not in CACHES.',
            hint="Name one of the aliases in CACHES, or none.",
            id="svc_accounts.E005",
        )
    elif alias and isinstance(shared(caches[alias]), (LocMemCache, DummyCache)):
        yield Error(
            f'SVC_INFRA["accounts"]["shared_cache"]: {alias!r} lives in one process, so others would '
            "take ended sessions for good.",
            hint="Use a shared cache, such as django_redis.cache.RedisCache, or none.",
            id="svc_accounts.E005",
        )


@register("svc_infra")
def check_profile(app_configs: Any, **_: Any) -> Iterable[CheckMessage]:
    """E008: people may not, or cannot, change a field of themselves that the project names for it."""
    editable = {field.name for field in profile_fields()}
    # Not every user model has what the setting names if nobody sets it.
    by_default = AccountsSettings.model_fields["profile_fields"].default
    for name in settings.profile_fields:
        if name not in editable and name not in by_default:
            yield Error(
                f'SVC_INFRA["accounts"]["profile_fields"] names {name!r}, which is no field of the '
                "user model that people may change themselves.",
                hint="Name editable fields of text, whole numbers, dates, or yes and no; none about rights.",
                id="svc_accounts.E008",
            )


@register("svc_infra")
def check_breached_passwords(app_configs: Any, **_: Any) -> Iterable[CheckMessage]:
    """E007: the list of known passwords is not there, or is no list that can be searched."""
    path = settings.breached_passwords_file
    try:
        is_good = not path or looks_sorted(Path(path))
    except OSError:
        is_good = False
    if not is_good:
        yield Error(
            'SVC_INFRA["accounts"]["breached_passwords_file"] is not there, or is no sorted list of digests.',
            hint="Name a file with a SHA-1 digest in hex at the start of each line, ordered by digest.",
            id="svc_accounts.E007",
        )


@register("svc_infra")
def check_providers(app_configs: Any, **_: Any) -> Iterable[CheckMessage]:
    """E006 nowhere to come back to, W009 addresses not asked for, W010 tokens of providers in clear."""
    if not apps.is_installed("allauth.socialaccount"):
        return
    from allauth.socialaccount import app_settings

    if app_settings.PROVIDERS and not settings.oauth_callback_url.startswith(("https://", "http://")):
        yield Error(
            "Providers are configured, but not where they send people back to.",
            hint='Set SVC_INFRA["accounts"]["oauth_callback_url"] to the public URL of GET oauth/callback.',
            id="svc_accounts.E006",
        )
    if not app_settings.QUERY_EMAIL:
        yield Warning(
            "Google and GitHub are not asked for addresses, so people who come by them have none.",
            hint="Set SOCIALACCOUNT_QUERY_EMAIL = True.",
            id="svc_accounts.W009",
        )
    if app_settings.STORE_TOKENS:
        yield Warning(
            "django-allauth keeps the tokens of providers, in clear.",
            hint="Leave SOCIALACCOUNT_STORE_TOKENS out, unless views of allauth's own need them.",
            id="svc_accounts.W010",
        )


@register(Tags.security, deploy=True)
def check_deployment(app_configs: Any, **_: Any) -> Iterable[CheckMessage]:
    """W001 weak secret, W002 issuer, W003 validators, W004 weak hashes, W005 plain links, W006 no slowing,
    W007 an admin without second factors, W008 sessions that nobody can end."""
    for secret in (django_settings.SECRET_KEY, *django_settings.SECRET_KEY_FALLBACKS):
        if len(str(secret)) < SECRET_KEY_LENGTH or str(secret).startswith("django-insecure-"):
            yield Warning(
                "Access tokens are signed with keys derived from a weak SECRET_KEY or fallback.",
                hint="Make one with django.core.management.utils.get_random_secret_key().",
                id="svc_accounts.W001",
            )
            break
    if settings.issuer == AccountsSettings.model_fields["issuer"].default:
        yield Warning(
            "The issuer of access tokens is the default.",
            hint='Set SVC_INFRA["accounts"]["issuer"] to the public URL of this service.',
            id="svc_accounts.W002",
        )
    if not django_settings.AUTH_PASSWORD_VALIDATORS:
        yield Warning(
            "AUTH_PASSWORD_VALIDATORS is empty: the API enforces rules of its own, the admin none.",
            hint="Name the validators that Django's startproject writes.",
            id="svc_accounts.W003",
        )
    hashers = list(django_settings.PASSWORD_HASHERS)
    if hashers and hashers[0].rpartition(".")[2] in WEAK_HASHERS:
        yield Warning(
            "Passwords are stored with a hash that was broken long ago.",
            hint="Put Argon2, scrypt or PBKDF2 first in PASSWORD_HASHERS.",
            id="svc_accounts.W004",
        )
    addresses: dict[str, Iterable[str]] = {name: [getattr(settings, name)] for name in LINKS}
    addresses["oauth_callback_url"] = [settings.oauth_callback_url]
    addresses["oauth_front_ends"] = settings.oauth_front_ends
    for name, urls in addresses.items():
        if any(url.startswith("http://") for url in urls):
            yield Warning(
                f'SVC_INFRA["accounts"]["{name}"] leads over a connection that anybody can read.',
                hint="Use https.",
                id="svc_accounts.W005",
            )
    if settings.staff_second_factor and apps.is_installed("django.contrib.admin"):
        site = import_string(apps.get_app_config("admin").default_site)  # type: ignore[attr-defined]  # AdminConfig has it
        if not getattr(site, "demands_second_factor", False):
            yield Warning(
                "The admin's login asks for the password alone, though staff must have a second factor.",
                hint='In INSTALLED_APPS, write "svc_infra_django.accounts.apps.SecondFactorAdmin" '
                'in the place of "django.contrib.admin".',
                id="svc_accounts.W007",
            )
    if django_settings.SESSION_ENGINE == IN_COOKIES:
        yield Warning(
            "Sessions are kept in cookies alone: logging out everywhere does not end them.",
            hint="Use another SESSION_ENGINE, such as django.contrib.sessions.backends.cached_db.",
            id="svc_accounts.W008",
        )
    if getattr(django_settings, "OTP_TOTP_THROTTLE_FACTOR", 1) == 0:
        yield Warning(
            "OTP_TOTP_THROTTLE_FACTOR is 0: devices do not slow down wrong codes.",
            hint="Leave it out; 0 is for tests.",
            id="svc_accounts.W006",
        )


@register(Tags.security, deploy=True)
def check_libraries(app_configs: Any, **_: Any) -> Iterable[CheckMessage]:
    """W011 to W020: settings of the libraries underneath that open another door beside ours."""
    if apps.is_installed("rest_framework_simplejwt.token_blacklist"):
        yield Warning(
            "simplejwt's token_blacklist keeps every refresh token in clear.",
            hint="Take it out of INSTALLED_APPS; sessions here do not need it.",
            id="svc_accounts.W011",
        )
    for plugin in filter(apps.is_installed, PLAIN_DEVICES):
        yield Warning(
            f"The devices of {plugin} keep their keys or codes in clear, and its admin page shows them.",
            hint='Take it out of INSTALLED_APPS; "svc_infra_django.accounts" seals the keys of its own.',
            id="svc_accounts.W012",
        )
    yield from _of_rest_framework()
    if not getattr(django_settings, "ACCOUNT_PREVENT_ENUMERATION", True):
        yield Warning(
            "ACCOUNT_PREVENT_ENUMERATION is off: django-allauth's pages tell who has an account.",
            hint='Leave it out, or write "strict".',
            id="svc_accounts.W014",
        )
    for name in (
        "SOCIALACCOUNT_EMAIL_AUTHENTICATION",
        "ACCOUNT_LOGIN_ON_PASSWORD_RESET",
        "ACCOUNT_LOGIN_ON_EMAIL_CONFIRMATION",
    ):
        if getattr(django_settings, name, False):
            yield Warning(
                f"{name} is on: django-allauth's pages log in by a mailbox alone.",
                hint="Leave it out.",
                id="svc_accounts.W015",
            )
    if str(django_settings.SESSION_COOKIE_SAMESITE).lower() not in ("lax", "strict"):
        yield Warning(
            "SESSION_COOKIE_SAMESITE lets other sites send the session's cookie along.",
            hint='Use "Lax" or "Strict".',
            id="svc_accounts.W016",
        )
    if not getattr(django_settings, "ACCOUNT_EMAIL_CONFIRMATION_HMAC", True):
        yield Warning(
            "ACCOUNT_EMAIL_CONFIRMATION_HMAC is off: django-allauth keeps the keys of its mails in clear.",
            hint="Leave it out.",
            id="svc_accounts.W018",
        )
    if getattr(django_settings, "SOCIALACCOUNT_LOGIN_ON_GET", False):
        yield Warning(
            "SOCIALACCOUNT_LOGIN_ON_GET is on: a link on any page begins a login at django-allauth's.",
            hint="Leave it out.",
            id="svc_accounts.W019",
        )
    if getattr(django_settings, "ACCOUNT_RATE_LIMITS", True) is False:
        yield Warning(
            "ACCOUNT_RATE_LIMITS is off: django-allauth's pages let passwords be guessed without end.",
            hint="Leave it out.",
            id="svc_accounts.W020",
        )


def _of_rest_framework() -> Iterable[CheckMessage]:
    """What its views do that say nothing of their own, by the project's settings or by its defaults."""
    if not apps.is_installed("rest_framework"):
        return
    configured = {**DEFAULTS_OF_REST_FRAMEWORK, **getattr(django_settings, "REST_FRAMEWORK", {})}
    for path in configured["DEFAULT_AUTHENTICATION_CLASSES"]:
        if str(path).startswith(FOREIGN_LOGINS):
            yield Warning(
                f"REST framework takes callers by {path}: it asks for no second factor, counts no wrong "
                "passwords, or goes on after a logout.",
                hint='In REST_FRAMEWORK, write "DEFAULT_AUTHENTICATION_CLASSES": '
                '["svc_infra_django.contrib.drf.PrincipalAuthentication"].',
                id="svc_accounts.W013",
            )
    if "rest_framework.permissions.AllowAny" in configured["DEFAULT_PERMISSION_CLASSES"]:
        yield Warning(
            "REST framework lets everybody into a view that names no permission classes.",
            hint='In REST_FRAMEWORK, write "DEFAULT_PERMISSION_CLASSES": '
            '["rest_framework.permissions.IsAuthenticated"].',
            id="svc_accounts.W017",
        )

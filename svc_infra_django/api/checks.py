"""What of the project's settings would make the API worse than it looks."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

from django.apps import apps
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Warning
from django.utils.module_loading import import_string

from ..config.checks import register
from ..config.sections import BadSettings, load
from .authentication import Authenticator
from .conf import ApiSettings

MIDDLEWARE = "svc_infra_django.api.middleware.ProblemMiddleware"


@register("svc_infra")
def check_documentation(app_configs: Any, **_: Any) -> Iterable[CheckMessage]:
    """W001: the documentation page would load its scripts from a stranger's server."""
    if not apps.is_installed("ninja"):
        yield Warning(
            "The API's documentation page takes its scripts from a public CDN.",
            hint='Add "ninja" to INSTALLED_APPS: the page then uses local static files.',
            id="svc_api.W001",
        )


@register("svc_infra")
def check_middleware(app_configs: Any, **_: Any) -> Iterable[CheckMessage]:
    """W002: unknown paths and wrong methods under the API get Django's HTML pages."""
    if MIDDLEWARE not in django_settings.MIDDLEWARE:
        yield Warning(
            "ProblemMiddleware is not in MIDDLEWARE: 404 and 405 under the API are HTML pages.",
            hint=f'Add "{MIDDLEWARE}" right after RequestContextMiddleware.',
            id="svc_api.W002",
        )


@register("svc_infra")
def check_routers(app_configs: Any, **_: Any) -> Iterable[CheckMessage]:
    """W003: an app says where its API belongs and has none."""
    for app in apps.get_app_configs():
        if getattr(app, "api_prefix", "") and find_spec(f"{app.name}.api") is None:
            yield Warning(
                f"{app.name} has an api_prefix but no module {app.name}.api.",
                hint="Write the module with a `router` in it, or take the prefix away.",
                obj=app,
                id="svc_api.W003",
            )


@register("svc_infra")
def check_authenticators(app_configs: Any, **_: Any) -> Iterable[CheckMessage]:
    """E001 a path that cannot be imported, E002 something that is no Authenticator."""
    try:
        paths = load(ApiSettings).authenticators or ()
    except BadSettings:  # svc_config.E002 says so already
        return
    for path in paths:
        try:
            found = import_string(path)
        except ImportError as error:
            yield Error(
                f'SVC_INFRA["api"]["authenticators"]: {path} cannot be imported: {error}',
                hint="Correct the dotted path.",
                id="svc_api.E001",
            )
            continue
        if not (isinstance(found, type) and issubclass(found, Authenticator)):
            yield Error(
                f'SVC_INFRA["api"]["authenticators"]: {path} is not an Authenticator class.',
                hint="Subclass svc_infra_django.api.Authenticator.",
                id="svc_api.E002",
            )

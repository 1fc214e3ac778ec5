"""What every app of the suite does at start-up, written once."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any, ClassVar

from django.apps import AppConfig


class SvcAppConfig(AppConfig):
    """Base of the suite's app configs: labels of its own apps are `svc_<app>`, the rest is declared.

    What other floors need of an app stands here as dotted paths, so nobody imports upward and the
    order of INSTALLED_APPS does not matter.
    """

    # Django takes the single candidate with default=True in an apps module; without this the base,
    # imported there, would count as a second one and neither would be used.
    default: ClassVar[bool] = False  # type: ignore[misc]
    default_auto_field = "django.db.models.BigAutoField"

    settings_section: ClassVar[str] = ""
    """Dotted path of this app's settings class, relative to the app: `.conf.WebhooksSettings`."""

    api_prefix: ClassVar[str] = ""
    """Where `mount_installed_apps` puts this app's `api.router`; empty for no API."""

    api_routers: ClassVar[dict[str, str]] = {}
    """Further routers of this app: prefixes, and the modules that have the `router`, relative to the app."""

    authenticators: ClassVar[tuple[str, ...]] = ()
    """Authenticator classes that this app brings, relative to the app."""

    worker_services: ClassVar[tuple[str, ...]] = ()
    """Classes that every worker process runs beside its jobs, relative to the app."""

    health_checks: ClassVar[tuple[str, ...]] = ()
    """Health check classes for `/readyz`, relative to the app."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.default = True
        package, _, app = getattr(cls, "name", "").rpartition(".")
        if package == __package__ and "label" not in vars(cls):
            cls.label = f"svc_{app}"

    def ready(self) -> None:
        for room in ("checks", "events", "receivers"):
            if find_spec(f"{self.name}.{room}"):
                import_module(f"{self.name}.{room}")


def declared(attribute: str) -> list[tuple[SvcAppConfig, Any]]:
    """Objects that the installed apps name in `attribute`, with their app, in INSTALLED_APPS order."""
    from django.apps import apps

    found: list[tuple[SvcAppConfig, Any]] = []
    for app in apps.get_app_configs():
        paths = getattr(app, attribute, ())
        for path in (paths,) if isinstance(paths, str) else paths:
            if path:
                module, _, name = path.rpartition(".")
                found.append((app, getattr(import_module(module, app.name), name)))  # type: ignore[arg-type]
    return found

from __future__ import annotations

from typing import Any

from django.core.checks import run_checks


def ids() -> set[str]:
    return {message.id for message in run_checks(tags=["svc_infra"]) if message.id.startswith("svc_api")}


def test_the_test_project_is_as_it_should_be() -> None:
    assert ids() == set()


def test_documentation_from_a_stranger_is_reported(settings: Any) -> None:
    settings.INSTALLED_APPS = [app for app in settings.INSTALLED_APPS if app != "ninja"]

    assert ids() == {"svc_api.W001"}


def test_a_missing_middleware_is_reported(settings: Any) -> None:
    settings.MIDDLEWARE = [each for each in settings.MIDDLEWARE if "ProblemMiddleware" not in each]

    assert ids() == {"svc_api.W002"}


def test_authenticators_that_are_none_are_reported(svc_settings: Any) -> None:
    svc_settings(api={"authenticators": ("nowhere.Header", "django.http.HttpRequest")})

    assert ids() == {"svc_api.E001", "svc_api.E002"}


def test_a_prefix_without_an_api_is_reported(monkeypatch: Any) -> None:
    from django.apps import apps

    monkeypatch.setattr(apps.get_app_config("auth"), "api_prefix", "auth", raising=False)

    assert ids() == {"svc_api.W003"}

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.checks import run_checks

from svc_infra_django.apikeys.checks import (
    check_environment,
    check_grace,
    check_own_peppers,
    check_pepper,
)
from svc_infra_django.config.environment import Environment
from svc_infra_django.config.secrets import Secret


def ids(check: Callable[..., Any]) -> list[str]:
    return [message.id for message in check(None)]


def test_a_grace_beyond_the_longest_is_told(svc_settings: Callable[..., None]) -> None:
    assert ids(check_grace) == []
    svc_settings(apikeys={"rotation_grace": timedelta(days=8)})
    assert ids(check_grace) == ["svc_apikeys.W001"]


@pytest.mark.parametrize("secret", ["short", "django-insecure-" + "x" * 50])
def test_a_weak_secret_key_is_told(settings: Any, secret: str) -> None:
    assert ids(check_pepper) == []
    settings.SECRET_KEY = secret
    assert ids(check_pepper) == ["svc_apikeys.W002"]


@pytest.mark.parametrize(
    ("value", "told"), [("x" * 32, []), ("x" * 31, ["svc_apikeys.W004"]), ("", ["svc_apikeys.W004"])]
)
def test_a_pepper_that_is_weak_or_missing_is_told(
    svc_settings: Callable[..., None], monkeypatch: pytest.MonkeyPatch, value: str, told: list[str]
) -> None:
    assert ids(check_own_peppers) == []
    monkeypatch.setenv("PEPPER", value)
    svc_settings(apikeys={"peppers": (Secret("env:PEPPER"),)})
    assert ids(check_own_peppers) == told


def test_test_keys_in_production_are_told(
    svc_settings: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Environment, "detect", classmethod(lambda cls: Environment.PRODUCTION))
    assert ids(check_environment) == []
    svc_settings(apikeys={"environment": "test"})
    assert ids(check_environment) == ["svc_apikeys.W003"]


@pytest.mark.parametrize(
    "section",
    [
        {"brand": "UPPER"},
        {"brand": "a_b"},
        {"environment": "prod"},
        {"max_lifetime": 0},
        {"rotation_grace": -1},
        {"default_rate": "often"},
        {"default_quota": "1/week"},
        {"cache_seconds": 61},
        {"peppers": ("the pepper itself",)},
    ],
)
def test_bad_settings_are_named_and_break_no_other_check(
    svc_settings: Callable[..., None], section: Any
) -> None:
    svc_settings(apikeys=section)

    found = [message for message in run_checks() if message.id == "svc_config.E002"]

    assert len(found) == 1
    assert next(iter(section)) in found[0].msg

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from svc_infra_django.config import Secret
from svc_infra_django.webhooks.inbound import checks


def found(check: Any) -> list[str]:
    return [message.id for message in check(None)]


@pytest.mark.parametrize(
    "preset", ["paypal", "os.path", "os.nothing", "svc_infra_django.webhooks.inbound.presets.Received"]
)
def test_a_preset_that_is_none_is_named(svc_settings: Callable[..., None], preset: str) -> None:
    assert found(checks.check_presets) == []

    svc_settings(inbound={"sources": {"shop": {"preset": preset}}})

    assert found(checks.check_presets) == ["svc_inbound.E001"]


def test_a_secret_that_is_not_there_is_named(svc_settings: Callable[..., None]) -> None:
    assert found(checks.check_secrets) == []

    svc_settings(inbound={"sources": {"shop": {"secrets": [Secret("env:NOBODY_SET_THIS")]}}})

    assert found(checks.check_secrets) == ["svc_inbound.E002"]


def test_settings_that_cannot_be_read_are_left_to_another_check(svc_settings: Callable[..., None]) -> None:
    svc_settings(inbound={"sources": {"shop": {"secrets": ["pasted"]}}})

    assert found(checks.check_presets) == found(checks.check_secrets) == []

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from svc_infra_django.webhooks import checks


def found(check: Any) -> list[str]:
    return [message.id for message in check(None)]


def test_a_lease_must_outlast_an_attempt(svc_settings: Callable[..., None]) -> None:
    assert found(checks.check_lease) == []

    svc_settings(webhooks={"lease_seconds": 2, "timeout_seconds": 2})

    assert found(checks.check_lease) == ["svc_webhooks.E001"]


def test_settings_that_cannot_be_read_are_left_to_another_check(svc_settings: Callable[..., None]) -> None:
    svc_settings(webhooks={"lease_seconds": "long"})

    assert (
        found(checks.check_lease) == found(checks.check_connect_timeout) == found(checks.check_networks) == []
    )


def test_a_useless_connect_timeout_is_named(svc_settings: Callable[..., None]) -> None:
    assert found(checks.check_connect_timeout) == []

    svc_settings(webhooks={"timeout_seconds": 2, "connect_timeout_seconds": 20})

    assert found(checks.check_connect_timeout) == ["svc_webhooks.W001"]


def test_plain_http_is_not_for_production(svc_settings: Callable[..., None]) -> None:
    assert found(checks.check_plain_http) == ["svc_webhooks.W002"]
    svc_settings(webhooks={"allow_http": False})
    assert found(checks.check_plain_http) == []


@pytest.mark.parametrize(
    ("network", "ids"),
    [
        ("127.0.0.0/8", ["svc_webhooks.W003"]),
        ("0.0.0.0/0", ["svc_webhooks.W003"]),
        ("169.254.0.0/16", ["svc_webhooks.W003"]),
        ("10.1.0.0/16", []),
        ("fd12::/16", []),
        ("::1/128", ["svc_webhooks.W003"]),
    ],
)
def test_dangerous_networks_are_named(
    svc_settings: Callable[..., None], network: str, ids: list[str]
) -> None:
    svc_settings(webhooks={"allowed_networks": (network,)})

    assert found(checks.check_networks) == ids


def test_the_database_of_the_tests_is_one_that_the_queue_can_use() -> None:
    assert found(checks.check_database) == []

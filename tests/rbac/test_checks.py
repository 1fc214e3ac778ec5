from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.core.checks import run_checks

from svc_infra_django.rbac.checks import check_backend, check_declared_roles, check_order


def test_a_missing_backend_is_told(settings: Any) -> None:
    assert list(check_backend(None)) == []
    settings.AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend"]
    assert [message.id for message in check_backend(None)] == ["svc_rbac.W001"]


def test_permissions_that_no_model_has_are_told_together(svc_settings: Callable[..., None]) -> None:
    svc_settings(
        rbac={
            "roles": {
                "good": ("svc_rbac.view_role", "svc_apikeys.*", "*"),
                "bad": ("a.b", "svc_rbac.fly", "c.*"),
            }
        }
    )

    found = list(check_declared_roles(None))

    assert {message.id for message in found} == {"svc_rbac.W002"}
    assert [message.msg.rsplit(" ", 1)[1] for message in found] == ["'a.b'.", "'svc_rbac.fly'.", "'c.*'."]


@pytest.mark.parametrize(
    "roles", [{"x": ("nonsense",)}, {"": ("a.b",)}, {"x" * 101: ()}, {"a\0": ()}, {"x": "a.b"}, 7]
)
def test_bad_sections_are_named_and_break_no_other_check(
    svc_settings: Callable[..., None], roles: Any
) -> None:
    svc_settings(rbac={"roles": roles})

    found = [message for message in run_checks() if message.id == "svc_config.E002"]

    assert found
    assert all("['rbac']['roles']" in message.msg for message in found)


def test_a_backend_that_comes_too_late_to_deny_is_told(settings: Any) -> None:
    assert list(check_order(None)) == []
    settings.AUTHENTICATION_BACKENDS = settings.AUTHENTICATION_BACKENDS[::-1]
    assert [message.id for message in check_order(None)] == ["svc_rbac.W003"]

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.backends import BaseBackend
from django.contrib.auth.models import Permission
from django.test import RequestFactory

from svc_infra_django.api import requires
from svc_infra_django.errors import PermissionDeniedError
from svc_infra_django.principals import Principal
from tests.api.test_authentication import header  # noqa: F401  # a fixture that both files use

pytestmark = pytest.mark.urls("tests.api.apis")


@pytest.fixture
def adder(user: Any) -> Any:
    user.user_permissions.add(Permission.objects.get(codename="add_group"))
    return user


@pytest.mark.parametrize("path", ["/things/guarded", "/things/aguarded"])
def test_without_the_permission_the_answer_names_it(call: Any, user: Any, path: str) -> None:
    response = call("get", path, user=user)

    assert response.status_code == 403
    assert response.json()["permission"] == "auth.add_group"
    assert "auth.add_group" in response.json()["detail"]


@pytest.mark.parametrize("path", ["/things/guarded", "/things/aguarded"])
def test_with_the_permission_it_runs_and_its_parameters_are_read(call: Any, adder: Any, path: str) -> None:
    assert call("get", f"{path}?number=7", user=adder).json() == {"number": 7}
    assert call("get", f"{path}?number=x", user=adder).status_code == 422


def test_a_key_cannot_do_more_than_its_scopes(call: Any, adder: Any, header: None) -> None:  # noqa: F811  # the fixture
    response = call("get", "/things/guarded", headers={"X-Test": "good"})

    assert response.status_code == 403
    assert "scope auth.add_group" in response.json()["detail"]


@pytest.mark.parametrize("path", ["/things/aguarded", "/things/personal"])
def test_what_is_personal_takes_no_key(call: Any, adder: Any, header: None, path: str) -> None:  # noqa: F811  # the fixture
    response = call("get", path, headers={"X-Test": "good"})

    assert (response.status_code, response.json()["code"]) == (403, "delegation_refused")
    assert call("get", path, user=adder).status_code == 200


class Tenanted(BaseBackend):
    """Lets everybody do everything in the tenant acme."""

    def has_perm(self, user: Any, permission: str, obj: Any = None) -> bool:
        return getattr(obj, "tenant", "") == "acme"


def test_a_key_that_lacks_the_scope_of_a_right_in_its_tenant_is_told_so(user: Any, settings: Any) -> None:
    settings.AUTHENTICATION_BACKENDS = [f"{__name__}.Tenanted"]
    robot = Principal(user, "api_key", tenant="acme", scopes=frozenset())
    request = RequestFactory().get("/")
    request.principal = robot  # type: ignore[attr-defined]

    with pytest.raises(PermissionDeniedError, match="this key may not"):
        requires("auth.add_group")(lambda request: None)(request)

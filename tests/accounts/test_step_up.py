"""Operations that want a fresh login, from the token to the answer."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import path
from django.utils import timezone

from svc_infra_django.accounts.models import AuthSession
from svc_infra_django.api import ApiRequest, create_api, mount_installed_apps, requires_step_up
from svc_infra_django.apikeys import issue_key
from tests.accounts.services.test_mfa import code_now, enrol
from tests.conftest import PASSWORD

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]

api = create_api(urls_namespace="step-up")
mount_installed_apps(api)


@api.get("auth/lately")
@requires_step_up(max_age=300)
def lately(request: ApiRequest) -> list[str]:
    return list(request.principal.amr)


@api.get("auth/vault")
@requires_step_up(max_age=300, acr="mfa")
async def vault(request: ApiRequest) -> list[str]:
    return list(request.principal.amr)


urlpatterns = [path("api/", api.urls)]


@pytest.fixture(autouse=True)
def no_slowing_down(settings: Any) -> None:
    settings.OTP_TOTP_THROTTLE_FACTOR = 0


def test_rule_47_step_up_says_how_lately_and_how_well(ada: Any) -> None:
    assert ada.get("lately").json() == ["pwd"]

    refused = ada.get("vault")

    assert refused.status_code == 401
    assert refused["WWW-Authenticate"] == (
        'Bearer error="insufficient_user_authentication", max_age="300", acr_values="mfa"'
    )
    assert refused.json()["code"] == "step_up_required"
    assert (refused.json()["max_age"], refused.json()["acr_values"]) == (300, "mfa")


def test_rule_47_an_old_login_is_stepped_up_by_the_password(ada: Any) -> None:
    AuthSession.objects.update(auth_time=timezone.now() - timedelta(seconds=301))
    ada.refresh()
    assert ada.get("lately").status_code == 401

    assert ada.post("step-up", {"password": "wrong"}).status_code == 401
    assert ada.post("step-up", {}).status_code == 401
    assert ada.post("step-up", {"password": PASSWORD}).status_code == 204
    ada.refresh()

    assert ada.get("lately").status_code == 200


def test_rule_47_a_code_raises_the_session_to_two_factors_and_refreshing_keeps_them(
    ada: Any, user: Any
) -> None:
    device, _ = enrol(user)
    assert ada.post("step-up", {"password": PASSWORD}).status_code == 401

    assert ada.post("step-up", {"code": code_now(device)}).status_code == 204
    ada.refresh()

    assert ada.get("vault").json() == ["pwd", "otp", "mfa"]
    ada.refresh()
    assert ada.get("vault").status_code == 200


def test_a_browser_session_steps_up_too(user: Any, client: Client) -> None:
    client.force_login(user)
    assert client.get("/api/auth/lately").status_code == 401

    sent: dict[str, Any] = {"data": {"password": PASSWORD}, "content_type": "application/json"}
    assert client.post("/api/auth/step-up", **sent).status_code == 204

    assert client.get("/api/auth/lately").json() == ["pwd"]
    assert client.get("/api/auth/vault").status_code == 401


def test_a_key_proves_nobody(user: Any, client: Client) -> None:
    _, key = issue_key(owner=user, name="k", scopes=None)

    refused = client.get("/api/auth/lately", headers={"X-API-Key": key})

    assert (refused.status_code, refused.json()["code"]) == (403, "delegation_refused")


def test_the_document_says_so() -> None:
    assert (
        "proved within 300 seconds"
        in api.get_openapi_schema()["paths"]["/api/auth/vault"]["get"]["description"]
    )


def test_an_acr_that_nobody_can_reach_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="acr"):
        requires_step_up(acr="gold")

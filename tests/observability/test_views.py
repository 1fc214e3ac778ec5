from __future__ import annotations

import pytest
from django.test import Client

from svc_infra_django.config import Secret

pytestmark = pytest.mark.usefixtures("site")


def test_metrics_are_open_without_a_token() -> None:
    response = Client().get("/metrics")

    assert response.status_code == 200
    assert response["Content-Type"].startswith("text/plain")
    assert b"http_requests_total" in response.content


@pytest.fixture
def token(monkeypatch, svc_settings) -> str:
    monkeypatch.setenv("TESTS_METRICS_TOKEN", "let-me-see-them")
    svc_settings(observability={"metrics_token": Secret("env:TESTS_METRICS_TOKEN")})
    return "let-me-see-them"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_the_token_opens_them(token, scheme) -> None:
    assert Client().get("/metrics", headers={"Authorization": f"{scheme} {token}"}).status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        "let-me-see-them",
        "Basic let-me-see-them",
        "Bearer let-me-see-the",
        "Bearer let-me-see-them ",
        "Bearer ünïcödé",
    ],
)
def test_nothing_else_does(token, header) -> None:
    response = Client().get("/metrics", headers={} if header is None else {"Authorization": header})

    assert response.status_code == 401
    assert response["WWW-Authenticate"] == "Bearer"
    assert response["Content-Type"] == "application/problem+json"
    assert response.json()["status"] == 401
    assert b"http_requests" not in response.content


def test_a_token_that_cannot_be_read_opens_nothing(svc_settings) -> None:
    svc_settings(observability={"metrics_token": Secret("env:TESTS_NOT_SET")})

    response = Client(raise_request_exception=False).get("/metrics", headers={"Authorization": "Bearer "})

    assert response.status_code == 500


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/startupz", "/metrics"])
def test_only_reading(path) -> None:
    assert Client().post(path).status_code == 405
    if path != "/readyz":
        assert Client().head("/healthz").status_code == 200

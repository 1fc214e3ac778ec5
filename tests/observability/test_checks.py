from __future__ import annotations

import pytest
from django.core import checks

from svc_infra_django.config import Secret


def found(*, deploy: bool = False) -> set[str]:
    messages = checks.run_checks(include_deployment_checks=deploy)
    return {message.id for message in messages if (message.id or "").startswith("svc_observability.")}


def test_the_tests_own_project_is_clean() -> None:
    assert found() == set()


@pytest.mark.parametrize("first", ["django.middleware.common.CommonMiddleware", None])
def test_the_request_context_must_come_first(settings, first) -> None:
    settings.MIDDLEWARE = [first, *settings.MIDDLEWARE] if first else []

    assert found() == {"svc_observability.W001"}


def test_open_metrics_are_told_at_deployment(svc_settings) -> None:
    assert found(deploy=True) == {"svc_observability.W002"}

    svc_settings(observability={"metrics_token": Secret("env:PATH")})

    assert found(deploy=True) == set()


@pytest.mark.parametrize("network", ["0.0.0.0/0", "::/0"])
def test_trusting_the_whole_world_is_told(svc_settings, network) -> None:
    svc_settings(observability={"trusted_proxies": ["10.0.0.0/8", network]})

    assert "svc_observability.W003" in found(deploy=True)


def test_a_missing_folder_for_metrics_is_told(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "none"))
    assert found() == {"svc_observability.E001"}

    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    assert found() == set()

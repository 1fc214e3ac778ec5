from __future__ import annotations

import pytest
from django.apps import AppConfig, apps

from svc_infra_django.app_config import SvcAppConfig, declared
from svc_infra_django.observability.conf import ObservabilitySettings


def test_apps_of_the_suite_have_labels_of_their_own() -> None:
    labels = {app.label for app in apps.get_app_configs() if app.name.startswith("svc_infra_django.")}

    assert {"svc_config", "svc_observability", "svc_webhooks", "svc_accounts"} <= labels


def test_an_app_of_the_project_keeps_its_label() -> None:
    class OrdersConfig(SvcAppConfig):
        name = "orders"

    assert "label" not in vars(OrdersConfig)


def test_a_label_that_is_given_wins() -> None:
    class OrdersConfig(SvcAppConfig):
        name = "svc_infra_django.orders"
        label = "shop_orders"

    assert OrdersConfig.label == "shop_orders"


def test_django_finds_the_one_config_of_an_app(monkeypatch, tmp_path) -> None:
    package = tmp_path / "orders_for_tests"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "apps.py").write_text(
        "from svc_infra_django.app_config import SvcAppConfig\n"
        "class OrdersConfig(SvcAppConfig):\n"
        "    name = 'orders_for_tests'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    assert type(AppConfig.create("orders_for_tests")).__name__ == "OrdersConfig"


def test_declared_resolves_paths_of_the_app() -> None:
    found = {cls for _, cls in declared("settings_section")}

    assert ObservabilitySettings in found
    assert {app.label for app, _ in declared("health_checks")} >= {"svc_observability"}


def test_any_app_may_declare(monkeypatch) -> None:
    monkeypatch.setattr(
        apps.get_app_config("auth"), "things", ("django.contrib.auth.models.User",), raising=False
    )

    assert [(app.label, thing.__name__) for app, thing in declared("things")] == [("auth", "User")]


def test_a_path_that_leads_nowhere_is_told(monkeypatch) -> None:
    monkeypatch.setattr(apps.get_app_config("auth"), "things", (".models.Nobody",), raising=False)

    with pytest.raises(AttributeError, match="Nobody"):
        declared("things")

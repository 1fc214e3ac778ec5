from __future__ import annotations

from types import MappingProxyType

import pytest
from django.core import checks
from django.core.management import call_command
from django.core.management.base import SystemCheckError

from svc_infra_django.config import Secret


def messages() -> list[checks.CheckMessage]:
    return [message for message in checks.run_checks() if (message.id or "").startswith("svc_config.")]


def test_the_tests_own_project_is_clean() -> None:
    assert messages() == []


def test_every_mistake_of_every_section_is_told_together(svc_settings, monkeypatch) -> None:
    monkeypatch.delenv("TESTS_NOT_SET", raising=False)
    svc_settings(
        observability={"metrics_token": Secret("env:TESTS_NOT_SET")},
        obsevrability={"access_log": False},
        api={"no_such_field": 1},
    )

    found = {message.id: message for message in messages()}

    assert set(found) == {"svc_config.E001", "svc_config.E002", "svc_config.E003"}
    assert "Did you mean 'observability'?" in found["svc_config.E001"].hint
    assert "['api']['no_such_field']" in found["svc_config.E002"].msg
    assert "TESTS_NOT_SET is not set" in found["svc_config.E003"].msg
    assert all(message.hint for message in found.values())


def test_a_pasted_secret_is_refused_without_showing_it(svc_settings) -> None:
    svc_settings(observability={"metrics_token": "hunter2-hunter2"})

    (message,) = messages()

    assert message.id == "svc_config.E002"
    assert "hunter2" not in str(message)
    assert 'Secret("env:NAME")' in message.msg


def test_what_is_no_dict_is_told(settings) -> None:
    settings.SVC_INFRA = ["webhooks"]

    assert [message.id for message in messages()] == ["svc_config.E004"]


def test_manage_py_check_fails(svc_settings) -> None:
    svc_settings(observability={"metrics_label_limit": "many"})

    with pytest.raises(SystemCheckError, match="metrics_label_limit"):
        call_command("check")


@pytest.mark.parametrize("section", ["accounts", "apikeys", "jobs", "observability", "rbac", "webhooks"])
def test_a_bad_section_is_told_once_and_hides_nothing_else(svc_settings, section) -> None:
    svc_settings(**{section: {"no_such_field": 1}})
    settings_of_tests = [message.id for message in checks.run_checks(include_deployment_checks=True)]

    assert settings_of_tests.count("svc_config.E002") == 1
    assert "security.W004" in settings_of_tests


def test_any_mapping_of_sections_will_do(settings) -> None:
    settings.SVC_INFRA = MappingProxyType({"observability": {"access_log": False}})

    assert messages() == []

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svc_infra_django.config import Environment
from svc_infra_django.config.environment import UnknownEnvironment


@pytest.mark.parametrize(
    ("name", "environment"),
    [
        ("local", "LOCAL"),
        ("test", "TEST"),
        ("staging", "STAGING"),
        ("production", "PRODUCTION"),
        (" Test ", "TEST"),
    ],
)
def test_known_names(name, environment) -> None:
    assert Environment.detect({"SVC_ENVIRONMENT": name}) is Environment[environment]


def test_silence_means_production() -> None:
    environment = Environment.detect({})

    assert environment.is_production
    assert not environment.is_local
    assert not environment.is_test


@given(st.text().filter(lambda name: name.strip().lower() not in list(Environment)))
def test_a_typo_is_an_error_and_never_less_safety(name: str) -> None:
    with pytest.raises(UnknownEnvironment, match="local, test, staging, production"):
        Environment.detect({"SVC_ENVIRONMENT": name})

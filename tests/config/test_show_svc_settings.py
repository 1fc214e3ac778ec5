from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from pydantic import BaseModel, SecretStr

from svc_infra_django.config import Secret
from svc_infra_django.config.management.commands.show_svc_settings import _masked


def shown(*args: str) -> str:
    out = StringIO()
    call_command("show_svc_settings", *args, stdout=out, no_color=True)
    return out.getvalue()


def test_defaults_and_what_is_set_are_told_apart(svc_settings) -> None:
    svc_settings(observability={"access_log": False})

    lines = shown("observability").splitlines()

    assert "  access_log = False  (set)" in lines
    assert "  metrics_label_limit = 1000  (default)" in lines


def test_only_what_was_changed(svc_settings) -> None:
    svc_settings(observability={"access_log": False})

    assert shown("observability", "--changed") == "observability\n  access_log = False  (set)\n"


def test_every_section_is_shown() -> None:
    assert "observability" in shown().splitlines()


def test_a_section_that_is_not_there_is_an_error() -> None:
    with pytest.raises(CommandError, match="observability"):
        shown("obsevrability")


def test_bad_settings_are_told_and_not_thrown(svc_settings) -> None:
    svc_settings(observability={"acess_log": False})

    with pytest.raises(CommandError, match=r"\['observability'\]\['acess_log'\]"):
        shown("observability")


def test_a_secret_shows_as_its_place(svc_settings, monkeypatch) -> None:
    monkeypatch.setenv("TESTS_SECRET", "hunter2-hunter2")
    svc_settings(observability={"metrics_token": Secret("env:TESTS_SECRET")})

    text = shown("observability")

    assert "Secret('env:TESTS_SECRET')" in text
    assert "hunter2" not in text


class Provider(BaseModel):
    client_id: str
    client_secret: str


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("signing_key", "hunter2"),
        ("keys", ["hunter2", "hunter2"]),
        ("providers", {"google": Provider(client_id="g", client_secret="hunter2")}),
        ("providers", {"google": {"clientSecret": "hunter2", "password": "hunter2"}}),
        ("pin", SecretStr("hunter2")),
        ("token", b"hunter2"),
        ("tokens", {"ada": "hunter2", "bob": {"first": "hunter2"}}),
        ("passwords", frozenset({"hunter2"})),
        ("url", "redis://ada:hunter2@cache:6379/0"),
        ("urls", {"main": ["postgres://:hunter2@db/shop"]}),
    ],
)
def test_what_is_named_like_a_secret_is_masked(name, value) -> None:
    assert "hunter2" not in repr(_masked(name, value))


def test_other_values_show() -> None:
    assert _masked("providers", {"google": {"client_id": "g"}}) == {"google": {"client_id": "g"}}
    assert _masked("access_token_minutes", 15) == 15

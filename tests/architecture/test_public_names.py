"""What a project may import from an app's package, frozen: a change here is a change for users."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from inspect import signature
from pathlib import Path

import pytest
from asgiref.sync import iscoroutinefunction

import svc_infra_django

FROZEN = Path(__file__).with_name("public_names.txt")
PACKAGE = Path(svc_infra_django.__file__).parent


def public_names() -> Iterator[str]:
    for init in sorted(PACKAGE.glob("*/__init__.py")):
        package = f"svc_infra_django.{init.parent.name}"
        yield from (f"{package}.{name}" for name in getattr(import_module(package), "__all__", ()))


NAMES = sorted(public_names())
TWINS = [
    (name, f"{package}.{stem[1:]}")
    for name in NAMES
    for package, _, stem in [name.rpartition(".")]
    if stem.startswith("a") and f"{package}.{stem[1:]}" in NAMES
]


def resolve(name: str) -> object:
    module, _, attribute = name.rpartition(".")
    return getattr(import_module(module), attribute)


def test_the_names_are_the_frozen_ones() -> None:
    assert FROZEN.read_text(encoding="utf-8").split() == NAMES, (
        f"If the change is meant, write it into {FROZEN.name} and the changelog."
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_there_and_documented(name: str) -> None:
    assert getattr(resolve(name), "__doc__", None)


@pytest.mark.parametrize(("asynchronous", "synchronous"), TWINS)
def test_twins_differ_in_waiting_only(asynchronous: str, synchronous: str) -> None:
    twin, original = resolve(asynchronous), resolve(synchronous)

    assert iscoroutinefunction(twin)
    assert not iscoroutinefunction(original)
    assert str(signature(twin)) == str(signature(original))  # type: ignore[arg-type]


@pytest.mark.parametrize(("asynchronous", "synchronous"), TWINS)
def test_twins_have_one_body(asynchronous: str, synchronous: str) -> None:
    assert getattr(resolve(asynchronous), "func", None) is resolve(synchronous)

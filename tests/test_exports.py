from __future__ import annotations

import sys
from types import ModuleType

import pytest

from svc_infra_django._exports import lazy


@pytest.fixture
def package(monkeypatch) -> ModuleType:
    package = ModuleType("lazy_for_tests")
    names = {"brew": ".kettle", "kettle": ".kettle", "broken": ".broken", "gone": ".kettle"}
    package.__getattr__, package.__dir__, package.__all__ = lazy("lazy_for_tests", names)
    package.__path__ = []
    kettle = ModuleType("lazy_for_tests.kettle")
    kettle.brew = lambda: "tea"
    monkeypatch.setitem(sys.modules, "lazy_for_tests", package)
    monkeypatch.setitem(sys.modules, "lazy_for_tests.kettle", kettle)
    return package


def test_a_name_is_imported_when_it_is_asked_for(package) -> None:
    assert "brew" not in vars(package)
    assert package.brew() == "tea"
    assert "brew" in vars(package)


def test_a_name_that_is_its_module_is_the_module(package) -> None:
    assert package.kettle is sys.modules["lazy_for_tests.kettle"]


def test_the_names_are_listed(package) -> None:
    assert dir(package) == package.__all__ == ["brew", "broken", "gone", "kettle"]


@pytest.mark.parametrize("name", ["other", "__wrapped__", "gone"])
def test_other_names_are_no_attributes(package, name) -> None:
    with pytest.raises(AttributeError, match=name):
        getattr(package, name)


def test_a_fault_inside_a_module_is_not_hidden(package, monkeypatch) -> None:
    class Finder:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == "lazy_for_tests.broken":
                raise KeyError("a mistake in the module")

    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])

    with pytest.raises(KeyError, match="a mistake in the module"):
        package.broken  # noqa: B018 asking is the act

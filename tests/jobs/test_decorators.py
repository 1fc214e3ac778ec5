from __future__ import annotations

import sys
from datetime import timedelta
from types import ModuleType

import pytest

from svc_infra_django.jobs import periodic
from svc_infra_django.jobs.decorators import parameter_names, task_at
from svc_infra_django.jobs.errors import BadSchedule, BadTask, UnknownTask
from tests.jobs import work


def test_a_task_is_found_by_its_path() -> None:
    assert task_at("tests.jobs.work.add") is work.add


@pytest.mark.parametrize(
    "path", ["", "add", "no.such", "tests.jobs.work.nothing", "..x", "\x00.x", "os.path.join"]
)
def test_what_is_no_task_is_unknown_whatever_the_import_says(path: str) -> None:
    with pytest.raises(UnknownTask):
        task_at(path)
    assert parameter_names(path) == []


def test_a_module_that_breaks_when_it_is_imported_makes_its_tasks_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Broken(ModuleType):
        def __getattr__(self, name: str) -> object:
            raise RuntimeError("broken")

    monkeypatch.setitem(sys.modules, "broken_module", Broken("broken_module"))

    with pytest.raises(UnknownTask, match="broken"):
        task_at("broken_module.job")


def test_parameters_are_named_without_the_context() -> None:
    assert parameter_names("tests.jobs.work.add") == ["a", "b"]
    assert parameter_names("tests.jobs.work.record_pid") == ["path"]


def test_a_task_that_needs_arguments_cannot_be_periodic() -> None:
    with pytest.raises(BadTask, match="missing a required argument"):
        periodic(every=60)(work.add)


@pytest.mark.parametrize("every", [0, -1, 0.01, 1e300, float("nan"), float("inf"), timedelta.max])
def test_an_interval_that_no_clock_can_keep_is_refused(every: float | timedelta) -> None:
    with pytest.raises(BadSchedule):
        periodic(every=every)

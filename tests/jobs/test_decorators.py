from __future__ import annotations

import sys
from datetime import date, datetime, timedelta
from types import ModuleType
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User

from svc_infra_django.jobs import Limit, Rate, Unique, exponential, periodic, task
from svc_infra_django.jobs.compat import InvalidTask
from svc_infra_django.jobs.decorators import JobTask, argument_names, task_at
from svc_infra_django.jobs.errors import BadSchedule, BadTask, UnknownTask
from tests.jobs import work


def plain(a: int = 1) -> None: ...


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "options",
    [
        *({"queue": name} for name in ("x" * 65, "a\x00", "\ud800", "a,b", " ", " a", 5, None)),
        *({"priority": value} for value in ("5", NAN, INF, None, 101)),
        *({"max_attempts": value} for value in ("3", 1.5, None, 0, 40_000)),
        *({"timeout": value} for value in ("5", NAN, INF, 1e300, -1, 0, timedelta(0))),
        *({"backoff": value} for value in (5, None, "soon")),
        *({"retry_on": value} for value in ("x", ("x",), 5, int, {ValueError: 5}, {"x": plain})),
        *({"discard_on": value} for value in ("xy", (5,), 5, int, None)),
        *({"redact": value} for value in ((5,), [None], 3, None)),
        *({"unique": value} for value in (1, "x", Unique(until="never"), Unique(by=("nope",)))),  # type: ignore[arg-type]
        *({"unique": Unique(window=value)} for value in (-1, 0, NAN, INF, "x", timedelta.max)),  # type: ignore[arg-type]
        *({"unique": Unique(by=value)} for value in (3, None, "a", (3,))),  # type: ignore[arg-type]
        *({"concurrency": value} for value in (Limit(2, by="a"), Limit(2, by=3))),  # type: ignore[arg-type]
        *({"concurrency": value} for value in (0, 40_000, 1.5, "2", Rate("1/m"))),
        *({"concurrency": value} for value in (Limit("2"), Limit(2, key="\x00"), Limit(2, key=5))),  # type: ignore[arg-type]
        *({"rate": value} for value in (5, "often", "0/m", "1/0s", Limit(2), Rate(5))),  # type: ignore[arg-type]
        *({"rate": Rate("1/m", **odd)} for odd in ({"burst": 0}, {"burst": "x"}, {"key": "\ud800"})),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_what_would_fail_in_the_worker_or_the_database_is_refused_where_it_is_declared(
    options: dict[str, Any],
) -> None:
    with pytest.raises(InvalidTask, match=r"plain|priority|rate"):
        task(**options)(plain)


@pytest.mark.parametrize(
    "changes",
    [
        *({"run_after": value} for value in ("soon", date(2030, 1, 1), 5, datetime(2030, 1, 1))),
        *({"tenant": value} for value in ("x" * 129, "a\x00", "\ud800", 5)),
        *({"headers": value} for value in ({"a": 5}, {5: "a"}, {"a": "\x00"}, {"a": object()})),
        *({"priority": value} for value in ("5", NAN, 2**40)),
        {"owner": User()},
    ],
)  # fmt: skip
def test_a_change_that_could_not_be_kept_is_refused_where_it_is_made(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidTask):
        work.add.using(**changes)


def test_options_may_be_written_in_several_ways() -> None:
    made: Any = task(
        retry_on=[ValueError, OSError], discard_on=KeyError, redact=["a"], timeout=timedelta(seconds=2),
        unique=False, concurrency=2, rate="5/m", backoff=exponential(),
    )(plain)  # fmt: skip

    assert isinstance(made, JobTask)
    assert (made.retry_on, made.discard_on, made.redact) == ((ValueError, OSError), (KeyError,), ("a",))
    assert (made.timeout, made.unique, made.concurrency, made.rate) == (2.0, None, Limit(2), Rate("5/m"))


def test_a_task_of_nobody_in_particular_has_no_owner() -> None:
    assert work.add.using(owner=AnonymousUser()).owner_id is None


def test_a_task_is_found_by_its_path() -> None:
    assert task_at("tests.jobs.work.add") is work.add


@pytest.mark.parametrize(
    "path", ["", "add", "no.such", "tests.jobs.work.nothing", "..x", "\x00.x", "os.path.join"]
)
def test_what_is_no_task_is_unknown_whatever_the_import_says(path: str) -> None:
    with pytest.raises(UnknownTask):
        task_at(path)
    assert argument_names(path, 2) == ["", ""]


def test_a_module_that_breaks_when_it_is_imported_makes_its_tasks_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Broken(ModuleType):
        def __getattr__(self, name: str) -> object:
            raise RuntimeError("broken")

    monkeypatch.setitem(sys.modules, "broken_module", Broken("broken_module"))

    with pytest.raises(UnknownTask, match="broken"):
        task_at("broken_module.job")


def test_arguments_are_named_without_the_context() -> None:
    assert argument_names("tests.jobs.work.add", 2) == ["a", "b"]
    assert argument_names("tests.jobs.work.record_pid", 1) == ["path"]
    assert argument_names("tests.jobs.work.send_codes", 3) == ["to", "codes", "codes"]
    assert argument_names("tests.jobs.work.send_codes", 1) == ["to"]


def test_a_task_that_needs_arguments_cannot_be_periodic() -> None:
    with pytest.raises(BadTask, match="missing a required argument"):
        periodic(every=60)(work.add)


@pytest.mark.parametrize("every", [0, -1, 0.01, 1e300, float("nan"), float("inf"), timedelta.max])
def test_an_interval_that_no_clock_can_keep_is_refused(every: float | timedelta) -> None:
    with pytest.raises(BadSchedule):
        periodic(every=every)

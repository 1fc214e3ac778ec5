from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import Any

import pytest
from django.db import DatabaseError, connections
from django.db.models import Sum

from svc_infra_django.jobs import throughput
from svc_infra_django.jobs.charts import Bar, throughput_chart
from svc_infra_django.jobs.models import Job, Throughput
from svc_infra_django.jobs.services.operating import prune
from svc_infra_django.jobs.throughput import Tally, per_minute
from tests.jobs import work
from tests.jobs.conftest import wait_until

NOON = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)


def tallied(*ends: tuple[str, Job.State, datetime]) -> Tally:
    tally = Tally()
    for queue, state, at in ends:
        tally.add(queue, state, at=at)
    return tally


@pytest.mark.django_db
def test_ends_are_counted_by_minute_and_queue() -> None:
    late = NOON + timedelta(seconds=59)
    tally = tallied(
        ("mail", Job.State.SUCCEEDED, NOON),
        ("mail", Job.State.SUCCEEDED, late),
        ("mail", Job.State.FAILED, late),
        ("default", Job.State.SCHEDULED, NOON - timedelta(seconds=1)),
        ("default", Job.State.READY, NOON),  # handed back: nothing ended
    )

    tally.write()
    tally.write()

    assert [list(row.values())[1:] for row in per_minute(now=late, minutes=2)] == [[0, 0, 0, 1], [2, 1, 0, 0]]
    assert [row["retried"] for row in per_minute(now=late, minutes=2, queue="mail")] == [0, 0]


@pytest.mark.django_db
def test_what_could_not_be_written_is_kept_for_the_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    tally = tallied(("mail", Job.State.FAILED, NOON))

    def fail(counts: Any) -> None:
        raise DatabaseError

    with monkeypatch.context() as broken, pytest.raises(DatabaseError):
        broken.setattr(throughput, "_add", fail)
        tally.write()
    tally.write()

    assert Throughput.objects.get().failed == 1


@pytest.mark.django_db(transaction=True)
def test_workers_that_write_the_same_minute_add_up() -> None:
    def write() -> None:
        try:
            for _ in range(5):
                tallied(("b", Job.State.FAILED, NOON), ("a", Job.State.SUCCEEDED, NOON)).write()
        finally:
            connections.close_all()

    threads = [Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert per_minute(now=NOON, minutes=1)[0] | {"minute": None} == {
        "minute": None, "succeeded": 20, "failed": 20, "cancelled": 0, "retried": 0
    }  # fmt: skip


@pytest.mark.django_db
def test_minutes_are_forgotten_after_two_days() -> None:
    tallied(("mail", Job.State.FAILED, NOON)).write()

    prune(now=NOON + timedelta(hours=47))
    assert Throughput.objects.exists()
    prune(now=NOON + timedelta(hours=49))
    assert not Throughput.objects.exists()


def test_a_worker_counts_what_ends(worker: Callable[..., Any], ledger: str) -> None:
    worker(watch_seconds=0.1).ready()
    work.mail.enqueue(ledger, "x")
    work.fail.enqueue()

    def counted(queue: str) -> dict[str, int]:
        sums = Throughput.objects.filter(queue=queue).aggregate(
            Sum("succeeded"), Sum("failed"), Sum("retried")
        )
        return {name: number for name, number in sums.items() if number}

    wait_until(lambda: counted("default") == {"failed__sum": 1, "retried__sum": 2})
    wait_until(lambda: counted("mail") == {"succeeded__sum": 1})


def parsed(svg: str) -> ET.Element:
    return ET.fromstring(svg)  # noqa: S314 - our own


def test_a_chart_says_in_words_what_it_shows() -> None:
    bars = [Bar(NOON + timedelta(minutes=number), number, number % 2) for number in range(60)]

    figure = parsed(throughput_chart(bars, title="The last <hour>"))

    svg = figure[0]
    assert svg.get("role") == "img"
    assert svg.get("aria-label") == "The last <hour>: 1770 succeeded and 30 failed, at most 60 in one bar."
    assert len(figure.findall(".//tbody/tr")) == 59
    assert {"url(#svc-failed)", "var(--link-fg, #447e9b)"} <= {each.get("fill") for each in svg.iter("rect")}
    tops = [float(each.get("y") or 0) for each in svg.findall("rect")]
    assert min(tops) >= 0


def test_a_chart_of_nothing_is_a_chart() -> None:
    for bars in ([], [Bar(NOON, 0, 0)]):
        assert "0 succeeded and 0 failed" in (
            parsed(throughput_chart(bars, title="x"))[0].get("aria-label") or ""
        )

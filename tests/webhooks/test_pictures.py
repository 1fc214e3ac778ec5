from __future__ import annotations

from datetime import UTC, datetime, timedelta
from xml.etree.ElementTree import Element, fromstring

import pytest

from svc_infra_django.webhooks.pictures import Dot, Lane, outcome, sparkline, success_rate, summary, timeline

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def read(picture: str) -> Element:
    return fromstring(picture)  # noqa: S314 -- our own picture


def test_a_bar_for_each_delivery_and_the_whole_in_words() -> None:
    picture = read(sparkline(["succeeded", "dead", "retrying", "waiting"]))

    bars = picture.findall("{http://www.w3.org/2000/svg}rect")
    assert len({bar.get("fill") for bar in bars}) == 4
    assert len({bar.get("height") for bar in bars}) == 4, "told apart without colours"
    assert picture.get("aria-label") == "the last 4: 1 succeeded, 1 dead, 1 retrying, 1 waiting"
    assert summary([]) == "nothing sent yet"
    assert read(sparkline([])) is not None


@pytest.mark.parametrize(
    ("outcomes", "rate"),
    [([], None), (["waiting", "retrying"], None), (["succeeded"] * 3 + ["dead", "cancelled"], 0.75)],
)
def test_the_rate_is_of_those_that_are_settled(outcomes: list[str], rate: float | None) -> None:
    assert success_rate(outcomes) == rate


def test_a_delivery_that_failed_and_waits_is_retrying() -> None:
    assert outcome("pending", 0) == "waiting"
    assert outcome("pending", 2) == outcome("sending", 1) == "retrying"
    assert outcome("dead", 5) == "dead"


def test_each_attempt_is_in_its_lane_and_in_time() -> None:
    dots = [Dot(NOW + timedelta(seconds=n), is_success=n == 600, title=f"at {n}") for n in (0, 5, 600)]
    lanes = [
        Lane("<script>", "succeeded", dots),
        Lane("dead", "dead", dots[:2]),
        Lane("waiting", "pending", dots[:1], due_at=NOW + timedelta(hours=1)),
    ]

    picture = read(timeline(lanes, begins_at=NOW, ends_at=NOW + timedelta(hours=1)))

    svg = "{http://www.w3.org/2000/svg}"
    told = [title.text for title in picture.iter(f"{svg}title")]
    assert told == ["at 0", "at 5", "at 600", "at 0", "at 5", "at 0", "next attempt 2026-01-31 13:00:00"]
    assert [text.text for text in picture.iter(f"{svg}text")] == [
        "1 s", "10 s", "1 min", "10 min", "1 h", "<script>", "dead", "waiting",
    ]  # fmt: skip
    assert len(list(picture.iter(f"{svg}rect"))) == 1, "the end of the dead one"
    first, _ = picture.iter(f"{svg}circle")
    assert 600 < float(first.get("cx", 0)) < 700


def test_a_clock_that_went_backwards_draws_a_picture_too() -> None:
    lanes = [Lane("one", "dead", [Dot(NOW - timedelta(days=1), is_success=False, title="x")])]

    assert read(timeline(lanes, begins_at=NOW, ends_at=NOW - timedelta(days=2))) is not None

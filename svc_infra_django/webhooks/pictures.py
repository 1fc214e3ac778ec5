"""Small pictures for the admin, as SVG: no script, no style sheet, and readable without their colours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import log10

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

GREEN, RED, AMBER, GREY = "#2e7d32", "#c62828", "#ef6c00", "#9e9e9e"

BAR_WIDTH, BAR_HEIGHT = 4, 18
# Colour and height of a bar, by what became of the delivery.
BARS = {
    "succeeded": (GREEN, 8),
    "dead": (RED, 18),
    "retrying": (AMBER, 13),
    "waiting": (GREY, 4),
    "cancelled": (GREY, 4),
}

LABEL_WIDTH, PLOT_WIDTH, LANE_HEIGHT, AXIS_HEIGHT = 220, 560, 22, 18
TICKS = (
    (1, "1 s"), (10, "10 s"), (60, "1 min"), (600, "10 min"), (3_600, "1 h"), (21_600, "6 h"),
    (86_400, "1 d"), (604_800, "7 d"), (2_592_000, "30 d"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Dot:
    """One attempt in a timeline."""

    at: datetime
    is_success: bool
    title: str


@dataclass(frozen=True, slots=True)
class Lane:
    """One delivery in a timeline: what was tried, and when the next attempt is due, if one is."""

    label: str
    state: str
    dots: Sequence[Dot]
    due_at: datetime | None = None


def outcome(state: str, attempts: int) -> str:
    """What a delivery counts as: one that has failed and still waits is `retrying`."""
    if state in ("pending", "sending"):
        return "retrying" if attempts else "waiting"
    return state


def success_rate(outcomes: Sequence[str]) -> float | None:
    """The share of those settled that succeeded; None if none is."""
    settled = [one for one in outcomes if one in ("succeeded", "dead")]
    return settled.count("succeeded") / len(settled) if settled else None


def sparkline(outcomes: Sequence[str]) -> SafeString:
    """A bar for each delivery, the newest on the right: low is good, high is dead."""
    told = summary(outcomes)
    bars = (
        (number * BAR_WIDTH, BAR_HEIGHT - height, BAR_WIDTH - 1, height, colour)
        for number, (colour, height) in enumerate(BARS[one] for one in outcomes)
    )
    return format_html(
        '<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{}" width="{}" height="{}">'
        "<title>{}</title>{}</svg>",
        told, max(len(outcomes) * BAR_WIDTH, 1), BAR_HEIGHT, told,
        format_html_join("", '<rect x="{}" y="{}" width="{}" height="{}" fill="{}"/>', bars),
    )  # fmt: skip


def summary(outcomes: Sequence[str]) -> str:
    """The bars in words: `the last 50: 48 succeeded, 2 dead`."""
    if not outcomes:
        return "nothing sent yet"
    counts = ((outcomes.count(name), name) for name in BARS)
    return f"the last {len(outcomes)}: " + ", ".join(f"{count} {name}" for count, name in counts if count)


def timeline(lanes: Sequence[Lane], *, begins_at: datetime, ends_at: datetime) -> SafeString:
    """A lane for each delivery with its attempts in time, from publishing on.

    Time grows by powers of ten, as the waits between attempts do. A disc is a success, a cross a failure,
    a square the end of a dead delivery, and a ring the next attempt.
    """
    total = max((ends_at - begins_at).total_seconds(), 1.0)
    height = AXIS_HEIGHT + LANE_HEIGHT * len(lanes)

    def x(at: datetime) -> float:
        seconds = min(max((at - begins_at).total_seconds(), 0.0), total)
        return round(LABEL_WIDTH + PLOT_WIDTH * log10(1 + seconds) / log10(1 + total), 1)

    ticks = (
        (place, height, place, text)
        for seconds, text in TICKS
        if seconds <= total
        for place in [round(LABEL_WIDTH + PLOT_WIDTH * log10(1 + seconds) / log10(1 + total), 1)]
    )
    return format_html(
        '<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="The attempts in time" width="{}" '
        'height="{}" font-size="11" font-family="sans-serif">{}{}</svg>',
        LABEL_WIDTH + PLOT_WIDTH + 20, height + 4,
        format_html_join(
            "",
            '<path d="M{} {}V{}" stroke="#9e9e9e" stroke-dasharray="2 3"/>'
            '<text x="{}" y="11" fill="#757575">{}</text>',
            ((place, AXIS_HEIGHT, bottom, at, text) for place, bottom, at, text in ticks),
        ),
        format_html_join("", "{}", ([_lane(lane, number, x)] for number, lane in enumerate(lanes))),
    )  # fmt: skip


def _lane(lane: Lane, number: int, x: Callable[[datetime], float]) -> SafeString:
    y = AXIS_HEIGHT + LANE_HEIGHT * number + LANE_HEIGHT // 2
    end = lane.dots[-1] if lane.dots and lane.state == "dead" else None
    marks = [_dot(x(dot.at), y, dot, is_end=dot is end) for dot in lane.dots]
    if lane.due_at is not None:
        ring = '<circle cx="{}" cy="{}" r="5" fill="none" stroke="{}"><title>next attempt {}</title></circle>'
        marks.append(format_html(ring, x(lane.due_at), y, AMBER, f"{lane.due_at:%Y-%m-%d %H:%M:%S}"))
    return format_html(
        '<g><text x="0" y="{}" fill="currentColor">{}</text>'
        '<path d="M{} {}H{}" stroke="currentColor" stroke-opacity="0.2"/>{}</g>',
        y + 4, lane.label, LABEL_WIDTH, y, LABEL_WIDTH + PLOT_WIDTH,
        format_html_join("", "{}", ([mark] for mark in marks)),
    )  # fmt: skip


def _dot(x: float, y: int, dot: Dot, *, is_end: bool) -> SafeString:
    if dot.is_success:
        return format_html(
            '<circle cx="{}" cy="{}" r="5" fill="{}"><title>{}</title></circle>', x, y, GREEN, dot.title
        )
    if is_end:
        return format_html(
            '<rect x="{}" y="{}" width="10" height="10" fill="{}"><title>{}</title></rect>',
            x - 5, y - 5, RED, dot.title,
        )  # fmt: skip
    return format_html(
        '<path d="M{} {}l8 8m0 -8l-8 8" stroke="{}" stroke-width="2"><title>{}</title></path>',
        x - 4, y - 4, RED, dot.title,
    )  # fmt: skip

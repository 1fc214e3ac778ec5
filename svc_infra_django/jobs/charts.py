"""Bars drawn as SVG on the server: no script, no file from elsewhere. Plain functions.

The colours are those of Django's admin, so they follow its light and dark theme; what failed is hatched too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

WIDTH, HEIGHT, BOTTOM, LEFT = 720, 140, 18, 44


@dataclass(frozen=True, slots=True)
class Bar:
    """What ended in one span of time."""

    at: datetime
    succeeded: int
    failed: int

    @property
    def total(self) -> int:
        return self.succeeded + self.failed


def throughput_chart(bars: Sequence[Bar], *, title: str) -> SafeString:
    """Stacked bars, the oldest on the left, with their numbers as a table for those who do not see them."""
    highest = max((bar.total for bar in bars), default=0)
    top = max(1, highest)
    succeeded, failed = sum(bar.succeeded for bar in bars), sum(bar.failed for bar in bars)
    said = f"{succeeded} succeeded and {failed} failed, at most {highest} in one bar."
    step = (WIDTH - LEFT) / max(1, len(bars))
    drawn = format_html_join("", "{}", ([_bar(bar, number, step, top)] for number, bar in enumerate(bars)))
    labels = format_html_join(
        "",
        '<text x="{}" y="{}" font-size="11" fill="var(--body-quiet-color, #666)">{}</text>',
        (
            (f"{LEFT + number * step:.0f}", HEIGHT - 4, f"{bar.at:%H:%M}")
            for number, bar in enumerate(bars)
            if number % max(1, len(bars) // 6) == 0
        ),
    )
    rows = format_html_join(
        "",
        "<tr><td>{}</td><td>{}</td><td>{}</td></tr>",
        ((f"{bar.at:%H:%M}", bar.succeeded, bar.failed) for bar in bars if bar.total),
    )
    return format_html(
        '<figure class="svc-chart"><svg role="img" aria-label="{}: {}" viewBox="0 0 {} {}" width="100%" '
        'preserveAspectRatio="xMinYMin meet"><title>{}: {}</title><defs>'
        '<pattern id="svc-failed" width="4" height="4" patternUnits="userSpaceOnUse" '
        'patternTransform="rotate(45)"><rect width="4" height="4" fill="var(--error-fg, #ba2121)"/>'
        '<line x1="0" y1="0" x2="0" y2="4" stroke="var(--body-bg, #fff)" stroke-width="1"/></pattern></defs>'
        '<text x="0" y="12" font-size="11" fill="var(--body-quiet-color, #666)">{}</text>'
        '<line x1="{}" y1="{}" x2="{}" y2="{}" stroke="var(--border-color, #ccc)"/>{}{}</svg>'
        "<figcaption>{}: {}</figcaption><details><summary>As numbers</summary><table><thead><tr>"
        '<th scope="col">from</th><th scope="col">succeeded</th><th scope="col">failed</th></tr></thead>'
        "<tbody>{}</tbody></table></details></figure>",
        title,
        said,
        WIDTH,
        HEIGHT,
        title,
        said,
        highest,
        LEFT,
        HEIGHT - BOTTOM,
        WIDTH,
        HEIGHT - BOTTOM,
        drawn,
        labels,
        title,
        said,
        rows,
    )


def _bar(bar: Bar, number: int, step: float, top: int) -> SafeString:
    """The succeeded below, the failed on top of them."""
    room, x, width = HEIGHT - BOTTOM - 4, LEFT + number * step, max(1.0, step - 1)
    below, above = room * bar.succeeded / top, room * bar.failed / top
    base = HEIGHT - BOTTOM
    return format_html_join(
        "",
        '<rect x="{}" y="{}" width="{}" height="{}" fill="{}"/>',
        (
            (f"{x:.1f}", f"{y:.1f}", f"{width:.1f}", f"{height:.1f}", fill)
            for y, height, fill in (
                (base - below, below, "var(--link-fg, #447e9b)"),
                (base - below - above, above, "url(#svc-failed)"),
            )
            if height
        ),
    )

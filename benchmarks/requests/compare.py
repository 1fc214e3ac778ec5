"""What a request costs: our whole chain, against django-ninja alone and against DRF with the same duties.

CPU time of a fresh process each time, with one query for the caller where there is a token. The chain
against Ninja alone is what the suite adds; against the DRF stack it is what a project would have instead.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.harness import Case, Contender
from benchmarks.harness import compare as measured

OURS = Contender("ours", "benchmarks.requests.ours")
NINJA = Contender(
    "ninja", "benchmarks.requests.ninja_alone", ("django>=5.2,<6.1", "django-ninja==1.7.1", "granian==2.8.7")
)
DRF = Contender(
    "drf",
    "benchmarks.requests.drf_stack",
    (
        "django>=5.2,<6.1",
        "djangorestframework==3.18.3",
        "djangorestframework-simplejwt==5.5.1",
        "django-structlog",
        "django-prometheus>=2.5,<2.6",
        "granian==2.8.7",
    ),
)
DRF_NAME = "DRF + simplejwt + django-structlog + django-prometheus"

# path, way, peer, its name, the ratio to reach
CASES = (
    ("/api/open", "wsgi", NINJA, "django-ninja alone", 0.5),
    ("/api/open", "wsgi", DRF, DRF_NAME, 2.0),
    ("/api/open/async", "wsgi", NINJA, "django-ninja alone", 0.5),
    ("/api/open/missing", "wsgi", DRF, DRF_NAME, 2.0),
    ("/api/mine", "wsgi", DRF, DRF_NAME, 1.2),
    ("/api/open", "granian", NINJA, "django-ninja alone", 0.5),
    ("/api/open", "granian", DRF, DRF_NAME, 1.5),
    ("/api/mine", "granian", DRF, DRF_NAME, 1.2),
)
WHAT = {
    "/api/open": "a public operation",
    "/api/open/async": "a public async operation",
    "/api/open/missing": "an error answer",
    "/api/mine": "an operation with an access token",
}
WHERE = {"wsgi": "WSGI handler", "granian": "served by granian"}


def compare() -> Iterator[Case]:
    for path, way, peer, peer_name, bar in CASES:
        yield measured(
            f"{WHAT[path]}, {WHERE[way]}",
            unit="µs CPU per request",
            bar=bar,
            peer_name=peer_name,
            ours=lambda path=path, way=way: OURS.measure(path, way),  # type: ignore[misc]
            peer=lambda path=path, way=way, peer=peer: peer.measure(path, way),  # type: ignore[misc]
            higher_is_better=False,
            rounds=3,
        )

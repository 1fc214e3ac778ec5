"""What an API key costs on top of a request, and what it costs elsewhere; `roles.py` has the roles.

CPU time of a fresh process each time. "Warm" is a key that was used a second ago: no query. "Strict"
asks the database at every call: one query. The peers ask it at every call and have no other way.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from benchmarks.apikeys import roles
from benchmarks.harness import Case, Contender
from benchmarks.harness import compare as measured

DJANGO = "django>=5.2,<6.1"
OURS = Contender("ours", "benchmarks.apikeys.ours")
DRF_API_KEY = Contender(
    "drf-api-key",
    "benchmarks.apikeys.drf_api_key",
    (DJANGO, "djangorestframework==3.18.3", "djangorestframework-api-key==3.1.0", "granian==2.8.7"),
)
KNOX = Contender(
    "drf-knox",
    "benchmarks.apikeys.knox",
    (DJANGO, "djangorestframework==3.18.3", "django-rest-knox==5.1.0", "granian==2.8.7"),
)
API_KEY_NAME, KNOX_NAME = "DRF + djangorestframework-api-key", "DRF + django-rest-knox"
UNIT = "µs CPU per request"

KEY, OPEN = "/api/mine", "/api/open"
STRICT = {"BENCH_CACHE_SECONDS": "0"}


def compare() -> Iterator[Case]:
    yield from keys()
    yield from roles.compare()


def keys() -> Iterator[Case]:
    case = partial(measured, unit=UNIT, higher_is_better=False)
    for title, way, environment, bar in (
        ("a warm key, WSGI handler", "wsgi", {}, 0.85),
        ("a warm key, served by granian", "granian", {}, 0.95),
        ("a strict key, WSGI handler, SQLite", "wsgi", STRICT, 0.6),
    ):
        yield case(
            title,
            bar=bar,
            peer_name="our request without a key",
            ours=partial(OURS.measure, KEY, way, "1", **environment),
            peer=partial(OURS.measure, OPEN, way, "1", **environment),
        )
    yield case(
        "a strict key among 100,000",
        bar=0.95,
        peer_name="a strict key among 100",
        ours=partial(OURS.measure, KEY, "wsgi", "100000", **STRICT),
        peer=partial(OURS.measure, KEY, "wsgi", "100", **STRICT),
    )
    for peer, name in ((DRF_API_KEY, API_KEY_NAME), (KNOX, KNOX_NAME)):
        for title, way, environment in (
            ("a request with a warm key, WSGI handler", "wsgi", {}),
            ("a request with a strict key, WSGI handler", "wsgi", STRICT),
            ("a request with a warm key, served by granian", "granian", {}),
        ):
            yield case(
                title,
                bar=1.0,
                peer_name=name,
                ours=partial(OURS.measure, KEY, way, "1", **environment),
                peer=partial(peer.measure, KEY, way, "1"),
            )
        yield case(
            "theirs without a key in place of ours, WSGI handler",
            bar=0.0,
            peer_name=f"{name}, with a key",
            ours=partial(peer.measure, OPEN, "wsgi", "1"),
            peer=partial(peer.measure, KEY, "wsgi", "1"),
        )

"""What an API key costs on top of a request, and what it costs elsewhere; `roles.py` has the roles.

CPU time of a fresh process each time; with PostgreSQL, which works elsewhere, the time that passes. "Warm"
is a key that was used a second ago: no query. "Strict" asks the database at every call: one query. The peers
ask it at every call and have no other way. What a key leaves is measured against the same operation without
one, by turns.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial

from benchmarks.apikeys import roles
from benchmarks.harness import Case, Contender
from benchmarks.harness import compare as measured

DRF = ("django>=5.2,<6.1", "djangorestframework==3.18.3", "psycopg[binary]>=3.2")
OURS = Contender("ours", "benchmarks.apikeys.ours")
DRF_API_KEY = Contender(
    "drf-api-key",
    "benchmarks.apikeys.drf_api_key",
    (*DRF, "djangorestframework-api-key==3.1.0"),
)
KNOX = Contender(
    "drf-knox",
    "benchmarks.apikeys.knox",
    (*DRF, "django-rest-knox==5.1.0"),
)
API_KEY_NAME, KNOX_NAME = "DRF + djangorestframework-api-key", "DRF + django-rest-knox"
UNIT = "µs CPU per request"

KEY = "/api/mine"
STRICT = {"BENCH_CACHE_SECONDS": "0"}
WHERE = {
    "wsgi": "SQLite",
    "wall": "PostgreSQL",
    "threads": "PostgreSQL, four threads",
    "granian": "served by granian",
}
ROUNDS = 3


def compare() -> Iterator[Case]:
    yield from keys()
    yield from roles.compare()


def keys() -> Iterator[Case]:
    case = partial(measured, rounds=ROUNDS, warm_up=False)
    left = partial(case, unit="%", higher_is_better=True)
    for title, way, environment, bar in (
        ("warm", "wsgi", {}, 0.85),
        ("warm", "granian", {}, 0.95),
        ("strict", "wsgi", STRICT, 0.6),
        ("strict", "wall", STRICT, 0.4),
        ("strict", "threads", STRICT, 0.4),
    ):
        yield left(
            f"the speed that a key leaves: {title}, {WHERE[way]}",
            bar=bar,
            rounds=5 if way == "granian" else ROUNDS,  # there a server's start decides more than the key
            peer_name="our request without a key",
            ours=share(OURS, way, environment),
            peer=lambda: 100.0,
        )
    yield case(
        "a strict key among 100,000",
        unit=UNIT,
        bar=0.95,
        peer_name="a strict key among 100",
        ours=OURS.each_round(KEY, "wsgi", "100000", **STRICT),
        peer=OURS.each_round(KEY, "wsgi", "100", **STRICT),
        higher_is_better=False,
    )
    for peer, name in ((DRF_API_KEY, API_KEY_NAME), (KNOX, KNOX_NAME)):
        for title, way, environment in (
            ("warm", "wsgi", {}),
            ("strict", "wsgi", STRICT),
            ("strict", "wall", STRICT),
        ):
            yield left(
                f"the speed that a key leaves: {title}, {WHERE[way]}",
                bar=1.0,
                peer_name=name,
                ours=share(OURS, way, environment),
                peer=share(peer, way, {}),
            )
        yield case(
            "a request with a strict key, SQLite",
            unit=UNIT,
            bar=1.0,
            peer_name=name,
            ours=OURS.each_round(KEY, "wsgi", "1", **STRICT),
            peer=peer.each_round(KEY, "wsgi", "1"),
            higher_is_better=False,
        )


def share(contender: Contender, way: str, environment: dict[str, str]) -> Callable[[], float]:
    # `make bench` brings up a PostgreSQL if none is named.
    servers = (
        {"BENCH_DATABASE_URL": os.environ.get("DATABASE_URL", "postgresql://none-named")}
        if way in ("wall", "threads")
        else {}
    )
    return contender.each_round("share", way, "1", **environment, **servers)

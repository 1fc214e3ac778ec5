"""What it costs that an operation wants a token: its speed, as a share of the same operation's without one.

CPU time of a fresh process each time, in which both operations take turns. With PostgreSQL, which works
elsewhere, it is the time that passes: with one request after the other, and with as many threads as a server
has, of which others go on while one waits. Each peer is measured against its own open operation, so that
this compares authentication and nothing around it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial

from benchmarks.harness import Case, Contender
from benchmarks.harness import compare as measured

SERVER = ("django>=5.2,<6.1", "granian==2.8.7", "psycopg[binary]>=3.2")
OURS = Contender("ours", "benchmarks.authentication.ours")
PEERS = {
    "DRF + simplejwt, which reads the user": Contender(
        "auth_drf",
        "benchmarks.authentication.drf_simplejwt",
        (*SERVER, "djangorestframework==3.18.3", "djangorestframework-simplejwt==5.5.1"),
    ),
    "django-ninja + simplejwt, which revokes nothing": Contender(
        "auth_ninja",
        "benchmarks.authentication.ninja_simplejwt",
        (*SERVER, "django-ninja==1.7.1", "djangorestframework-simplejwt==5.5.1"),
    ),
    "django-allauth's session tokens": Contender(
        "auth_allauth",
        "benchmarks.authentication.allauth_sessions",
        (*SERVER, "django-ninja==1.7.1", "django-allauth[headless]>=65.16"),
    ),
    "django-oauth-toolkit": Contender(
        "auth_toolkit",
        "benchmarks.authentication.oauth_toolkit",
        (*SERVER, "djangorestframework==3.18.3", "django-oauth-toolkit>=3.0"),
    ),
}
WHERE = {
    "wsgi": "SQLite",
    "wall": "PostgreSQL",
    "threads": "PostgreSQL, four threads",
    "granian": "served by granian",
}
ROUNDS = 3
ONE_MGET = "one MGET of Redis each time"

# For how long is remembered, way, the share to reach, what is asked.
CASES = (
    ("2", "wsgi", 0.85, "remembered for 2 s"),
    ("2", "wall", 0.85, "remembered for 2 s"),
    ("2", "granian", 0.95, "remembered for 2 s"),
    ("0", "wsgi", 0.6, "one query each time"),
    ("0", "wall", 0.4, "one query each time"),
    ("0", "threads", 0.4, "one query each time"),
    ("0", "wall", 0.4, ONE_MGET),
)


def compare() -> Iterator[Case]:
    case = partial(measured, unit="%", higher_is_better=True, rounds=ROUNDS, warm_up=False)
    for seconds, way, bar, what in CASES:
        yield case(
            f"the speed that a token leaves: {what}, {WHERE[way]}",
            bar=bar,
            rounds=5 if way == "granian" else ROUNDS,  # there a server's start decides more than the token
            peer_name="the same operation without authentication",
            ours=share(OURS, way, seconds, with_redis=what == ONE_MGET),
            peer=lambda: 100.0,
        )
    for name, peer in PEERS.items():
        for way in ("wsgi", "wall"):
            yield case(
                f"the speed that a token leaves: remembered for 2 s, {WHERE[way]}",
                bar=1.0,
                peer_name=name,
                ours=share(OURS, way),
                peer=share(peer, way),
            )


def share(
    contender: Contender, way: str, seconds: str = "2", *, with_redis: bool = False
) -> Callable[[], float]:
    # `make bench` brings up servers if none are named.
    servers = {}
    if way in ("wall", "threads"):
        servers["BENCH_DATABASE_URL"] = os.environ.get("DATABASE_URL", "postgresql://none-named")
    if with_redis:
        servers["BENCH_REDIS_URL"] = os.environ.get("REDIS_URL", "redis://none-named")
    return contender.each_round("share", way, REVOCATION_SECONDS=seconds, **servers)

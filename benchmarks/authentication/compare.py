"""What it costs that an operation wants a token: its speed, as a share of the same operation's without one.

CPU time of a fresh process each time, warm, in one process; with PostgreSQL, which works elsewhere, the time
that passes. Each peer is measured against its own open operation, so that this compares authentication and
nothing around it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from benchmarks.harness import Case, Contender
from benchmarks.harness import compare as measured

SERVER = ("django>=5.2,<6.1", "granian==2.8.7")
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
OPEN, MINE = "/api/open", "/api/mine"

# What is remembered for how long, way, the share to reach.
CASES = (
    ("2", "wsgi", 0.85, "remembered for 2 s, WSGI handler"),
    ("2", "granian", 0.95, "remembered for 2 s, served by granian"),
    ("0", "wsgi", 0.6, "one query each time, WSGI handler"),
    ("0", "wall", 0.4, "one query each time, WSGI handler, PostgreSQL"),
)


def compare() -> Iterator[Case]:
    for seconds, way, bar, what in CASES:
        yield measured(
            f"a token: {what}",
            unit="µs per request" if way == "wall" else "µs CPU per request",
            bar=bar,
            peer_name="the same operation without authentication",
            ours=lambda seconds=seconds, way=way: cost(OURS, MINE, way, seconds),  # type: ignore[misc]
            peer=lambda seconds=seconds, way=way: cost(OURS, OPEN, way, seconds),  # type: ignore[misc]
            higher_is_better=False,
        )
    for name, peer in PEERS.items():
        yield measured(
            "the share of speed that a token leaves",
            unit="% of the open operation's",
            bar=1.0,
            peer_name=name,
            ours=lambda: share(OURS),
            peer=lambda peer=peer: share(peer),  # type: ignore[misc]
            higher_is_better=True,
        )


def cost(contender: Contender, path: str, way: str, seconds: str = "2") -> float:
    # `make bench` brings up a PostgreSQL if none is named.
    servers = {"BENCH_DATABASE_URL": os.environ["DATABASE_URL"]} if way == "wall" else {}
    return contender.measure(path, way, REVOCATION_SECONDS=seconds, **servers)


def share(contender: Contender) -> float:
    return 100 * cost(contender, OPEN, "wsgi") / cost(contender, MINE, "wsgi")

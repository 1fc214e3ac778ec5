"""What a check of a permission costs, beside Django's own, guardian, rules and casbin.

Warm is a user whose rights were read before. `rights` is one answer of the compiled rights, beside a
look-up of the same string in a frozenset; `Principal.can` is the public check, which guards ask, and looks at
the clock besides; `has_perm` goes through Django and all its backends, as the admin and templates do, beside
the same loop with a backend that looks at nothing. Cold reads the rights: one query, of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmarks.harness import Case, Contender
from benchmarks.harness import compare as measured

# Each measurement is the quickest of many already.
ROUNDS = 2

MODULE = "benchmarks.apikeys.role_check"
DJANGO = "django>=5.2,<6.1"
OURS = Contender("ours", MODULE)
MODEL_BACKEND = Contender("model-backend", MODULE, (DJANGO,))
GUARDIAN = Contender("guardian", MODULE, (DJANGO, "django-guardian==3.5.2"))
RULES = Contender("rules", MODULE, (DJANGO, "rules==3.5"))
CASBIN = Contender("casbin", MODULE, (DJANGO, "casbin==1.43.0"))


def compare() -> Iterator[Case]:
    for rules in (10, 10_000):
        yield case(
            f"compiled rights of {rules:,} rules",
            0.25,
            "frozenset, the same string",
            (
                check(OURS, "ours", "rights", rules),
                check(OURS, "frozenset", "rights", rules),
            ),
        )
    yield case(
        "compiled rights of 10,000 rules",
        0.9,
        "compiled rights of 10 rules",
        (
            check(OURS, "ours", "rights", 10_000),
            check(OURS, "ours", "rights", 10),
        ),
    )
    for rules in (10, 10_000):
        yield case(
            f"warm Principal.can of {rules:,} rules",
            0.25,
            "frozenset, the same string",
            (
                check(OURS, "ours", "can", rules),
                check(OURS, "frozenset", "rights", rules),
            ),
        )
    yield case(
        "warm has_perm of 10,000 rules",
        0.9,
        "a backend that allows everything",
        (
            check(OURS, "ours", "has_perm", 10_000),
            check(OURS, "willing", "has_perm", 10_000),
        ),
    )
    for peer, name, sizes in (
        (MODEL_BACKEND, "model-backend", (10, 10_000)),
        (GUARDIAN, "guardian", (100, 10_000)),
        (RULES, "rules", (10_000,)),
        (CASBIN, "casbin", (100, 1_000, 10_000)),
    ):
        for rules in sizes:
            # Ours asks through two backends, ModelBackend's own through one.
            yield case(
                f"warm has_perm of {rules:,} rules",
                0.7 if peer is MODEL_BACKEND else 1.0,
                TITLES[name],
                (
                    check(OURS, "ours", "has_perm", rules),
                    check(peer, name, "has_perm", rules),
                ),
            )
    for peer, name in ((MODEL_BACKEND, "model-backend"), (GUARDIAN, "guardian")):
        yield case(
            "cold check of 100 rules",
            1.0,
            TITLES[name],
            (
                check(OURS, "ours", "cold", 100),
                check(peer, name, "cold", 100),
            ),
        )
    yield case(
        "cold check among 10,000 roles",
        0.9,
        "cold check among 100 roles",
        (
            check(OURS, "ours", "cold", 100, 10_000),
            check(OURS, "ours", "cold", 100, 100),
        ),
    )


TITLES = {
    "model-backend": "Django's ModelBackend",
    "guardian": "django-guardian, ObjectPermissionChecker",
    "rules": "django-rules, a group predicate",
    "casbin": "pycasbin, in memory",
}


def check(contender: Contender, who: str, how: str, rules: int, roles: int = 0) -> Callable[[], float]:
    return contender.each_round(who, how, str(rules), str(roles))


def case(
    title: str, bar: float, peer_name: str, sides: tuple[Callable[[], float], Callable[[], float]]
) -> Case:
    ours, peer = sides
    return measured(
        title,
        unit="ns",
        bar=bar,
        peer_name=peer_name,
        ours=ours,
        peer=peer,
        higher_is_better=False,
        rounds=ROUNDS,
        warm_up=False,
    )

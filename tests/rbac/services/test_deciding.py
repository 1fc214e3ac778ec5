from __future__ import annotations

from datetime import timedelta
from timeit import timeit

from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from svc_infra_django.principals import covered, is_pattern
from svc_infra_django.rbac.services.deciding import ANSWERS_KEPT, Held, Rights, Scope, covering

words = st.sampled_from(["a", "b", "ab", "a_b", "x"])
permissions = st.lists(words, min_size=1, max_size=4).map(".".join)
wildcards = st.one_of(st.just("*"), permissions.map(lambda text: f"{text}.*"))
patterns = st.one_of(permissions, wildcards)
tenants = st.sampled_from(["", "acme", "other"])
objects = st.sampled_from([("", ""), ("shop.order", "1"), ("shop.order", "2"), ("shop.cart", "1")])
scopes = st.builds(lambda tenant, about: Scope(tenant, *about), tenants, objects)
held = st.lists(st.builds(Held, patterns, scopes, st.none(), st.booleans()), max_size=12)


def plain(grants: list[Held], permission: str, scope: Scope) -> bool | None:
    """The same rules read from the rows one by one."""
    here = [
        one
        for one in grants
        if one.scope.tenant in ("", scope.tenant)
        and (not one.scope.object_type or one.scope[1:] == (scope.object_type, scope.object_id))
    ]
    denied = [one.pattern for one in here if one.denies]
    if covered(permission, denied) or (
        permission.endswith("*") and any(covered(pattern, [permission]) for pattern in denied)
    ):
        return False
    return covered(permission, [one.pattern for one in here if not one.denies]) or None


@given(held, st.one_of(permissions, wildcards, st.text(max_size=12)), scopes)
def test_the_compiled_answer_is_the_plain_one(grants: list[Held], permission: str, scope: Scope) -> None:
    rights = Rights(grants)

    for _ in range(2):  # worked out, then remembered
        assert rights.allow(permission, scope) is (plain(grants, permission, scope) is True)
        assert rights.deny(permission, scope) is (plain(grants, permission, scope) is False)


@given(held, patterns, scopes, scopes)
def test_a_grant_elsewhere_never_shows_here(
    grants: list[Held], permission: str, one: Scope, other: Scope
) -> None:
    rights, without = Rights(grants), Rights(grant for grant in grants if grant.scope.counts_in(one))

    rights.allow(permission, other)
    assert rights.allow(permission, one) == without.allow(permission, one)


@given(permissions)
def test_every_covering_pattern_covers_and_no_other(permission: str) -> None:
    above = list(covering(permission))

    assert len(above) == permission.count(".") + 2
    assert all(covered(permission, [pattern]) for pattern in above)


@given(st.text(max_size=30))
def test_patterns_are_plain_ascii_words(text: str) -> None:
    if is_pattern(text):
        assert text.isascii()
        assert text == text.strip()
        assert text == "*" or "." in text
        assert text.count("*") == text.endswith("*")


def test_patterns_that_are_and_are_not() -> None:
    for good in ("*", "orders.*", "orders.add_order", "a.b.c", "a.b-c", "_a.b", "a.b.*", "a.7"):
        assert is_pattern(good), good
    for bad in (
        "",
        "a",
        ".",
        "a.",
        ".a",
        "a..b",
        "**",
        "a.*.b",
        "a*",
        "*.a",
        "a.b*",
        "7.a",
        "a.b\n",
        "á.b",
        "a" * 199 + ".b",
    ):
        assert not is_pattern(bad), bad


def test_rights_are_good_until_the_first_end() -> None:
    now = timezone.now()
    ends = [now + timedelta(hours=hours) for hours in (3, 1, 2)]

    assert Rights(Held("a.b", expires_at=end) for end in ends).good_until == ends[1]
    assert Rights([Held("a.b")]).good_until is None


def test_who_makes_names_up_gets_no_memory_for_it() -> None:
    rights = Rights([Held("a.*")])

    for number in range(ANSWERS_KEPT + 100):
        rights.allow(f"a.made_up_{number}")
        rights.allow("a.b", Scope(f"tenant {number}", "shop.order", str(number)))

    assert len(rights._scopes) == 1
    assert len(rights._scopes[Scope()].known) <= ANSWERS_KEPT


def test_the_cost_of_an_answer_does_not_grow_with_the_rules() -> None:
    def seconds(rules: int) -> float:
        rights = Rights(Held(f"app{n}.do_thing{n}") for n in range(rules))
        return min(timeit(lambda: rights.allow("app.nothing"), number=2000) for _ in range(5))

    assert seconds(10_000) < 5 * seconds(10)

from __future__ import annotations

from datetime import timedelta
from timeit import timeit

from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from svc_infra_django.principals import covered, is_pattern
from svc_infra_django.rbac.services.deciding import Held, compile_rights, wildcards_above

words = st.sampled_from(["a", "b", "ab", "a_b", "x"])
permissions = st.lists(words, min_size=1, max_size=4).map(".".join)
wildcards = st.one_of(st.just("*"), permissions.map(lambda text: f"{text}.*"))
patterns = st.one_of(permissions, wildcards)
tenants = st.sampled_from(["", "acme", "other"])
held = st.lists(st.builds(Held, patterns, tenants, st.none()), max_size=12)


@given(held, st.one_of(permissions, wildcards, st.text(max_size=12)), tenants)
def test_the_compiled_answer_is_the_plain_one(grants: list[Held], permission: str, tenant: str) -> None:
    plain = covered(permission, [one.pattern for one in grants if one.tenant in ("", tenant)])

    assert compile_rights(tuple(grants)).allow(permission, tenant=tenant) == plain


@given(held, patterns, tenants, tenants)
def test_one_tenants_grants_never_show_in_another(
    grants: list[Held], permission: str, one: str, other: str
) -> None:
    foreign = tuple(grant for grant in grants if grant.tenant not in ("", one))
    rights, without = compile_rights(tuple(grants)), compile_rights(tuple(set(grants) - set(foreign)))

    assert rights.allow(permission, tenant=one) == without.allow(permission, tenant=one)


@given(permissions)
def test_every_wildcard_above_covers_and_no_other(permission: str) -> None:
    above = list(wildcards_above(permission))

    assert len(above) == permission.count(".")
    assert all(covered(permission, [wildcard]) for wildcard in above)


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

    assert compile_rights(tuple(Held("a.b", "", end) for end in ends)).good_until == ends[1]
    assert compile_rights((Held("a.b", "", None),)).good_until is None


def test_the_cost_of_an_answer_does_not_grow_with_the_rules() -> None:
    def seconds(rules: int) -> float:
        rights = compile_rights(tuple(Held(f"app{n}.do_thing{n}", "", None) for n in range(rules)))
        return min(timeit(lambda: rights.allow("app.nothing"), number=2000) for _ in range(5))

    assert seconds(10_000) < 5 * seconds(10)

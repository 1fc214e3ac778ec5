from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count
from typing import Any
from uuid import UUID

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import Group
from django.core.cache import caches
from django.db import transaction
from hypothesis import given
from hypothesis import strategies as st

from svc_infra_django.cache import cache, cached, invalidate
from svc_infra_django.cache.errors import UncacheableArgument, UncacheableResult


@dataclass
class Price:
    amount: Decimal
    at: datetime
    item: UUID


def counting() -> tuple[Callable[[], int], Callable[..., Any]]:
    """A counter, and an asynchronous or synchronous function that calls it."""
    numbers = count(1)
    return (lambda: next(numbers)), lambda *_: next(numbers)


def test_the_second_call_does_not_run() -> None:
    calls = []

    @cached(ttl=300)
    def double(number: int, *, times: int = 2) -> int:
        """Doubles."""
        calls.append(number)
        return number * times

    assert (double(2), double(2), double(number=2, times=2)) == (4, 4, 4)
    assert calls == [2]
    assert double(3) == 6
    assert (double.__name__, double.__doc__) == ("double", "Doubles.")


def test_the_second_asynchronous_call_does_not_run() -> None:
    calls = []

    @cached(ttl=300)
    async def double(number: int) -> int:
        calls.append(number)
        return number * 2

    async def use() -> list[int]:
        return [await double(2), await double(2), await double(3)]

    assert async_to_sync(use)() == [4, 4, 6]
    assert calls == [2, 3]
    assert asyncio.iscoroutinefunction(double)


def test_it_ends_when_its_time_is_over() -> None:
    next_number, _ = counting()

    @cached(ttl=0.05)
    def number() -> int:
        return next_number()

    number()
    time.sleep(0.06)

    assert number() == 2


@pytest.mark.parametrize(("none_ttl", "calls"), [(None, 1), (60, 1), (0, 2)])
def test_none_is_remembered_as_asked(none_ttl: float | None, calls: int) -> None:
    next_number, _ = counting()

    @cached(ttl=300, none_ttl=none_ttl)
    def nothing() -> int | None:
        next_number()
        return None

    assert (nothing(), nothing()) == (None, None)
    assert next_number() == calls + 1


def test_the_annotated_type_comes_back() -> None:
    price = Price(Decimal("1.50"), datetime(2026, 1, 1, tzinfo=UTC), UUID(int=7))

    @cached(ttl=300)
    def priced() -> Price:
        return price

    assert [priced(), priced()] == [price, price]
    assert priced() is not priced()


@pytest.mark.parametrize("value", [{1: 2}, (1, 2), datetime(2026, 1, 1, tzinfo=UTC), object(), {1, 2}])
def test_what_json_would_change_is_refused_without_an_annotation(value: object) -> None:
    @cached(ttl=300)
    def unknown():  # type: ignore[no-untyped-def]  # the point of the test
        return value

    with pytest.raises(UncacheableResult):
        unknown()


@pytest.mark.parametrize("value", [None, 1, 1.5, "é", True, [1, {"a": None}], {"a": [1]}])
def test_plain_values_need_no_annotation(value: object) -> None:
    @cached(ttl=300)
    def known():  # type: ignore[no-untyped-def]  # the point of the test
        return value

    assert (known(), known()) == (value, value)


@pytest.mark.django_db
def test_a_model_is_neither_an_argument_nor_a_result(user: Any) -> None:
    @cached(ttl=300)
    def argument(person: Any) -> int:
        return 1

    @cached(ttl=300)
    def result() -> Group:
        return Group(name="g")

    @cached(ttl=300)
    def hidden() -> Any:
        return Group(name="g")

    with pytest.raises(UncacheableArgument, match="primary key"):
        argument(user)
    with pytest.raises(UncacheableResult, match="Group"):
        result()
    with pytest.raises(UncacheableResult):
        hidden()


@pytest.mark.django_db
def test_a_key_of_one_s_own_may_name_attributes(user: Any, stranger: Any) -> None:
    @cached(ttl=300, key="name:{person.pk}")
    def name(person: Any) -> str:
        return str(person.username)

    @cached(ttl=300, key=lambda person: f"also:{person.pk}")
    def also(person: Any) -> str:
        return str(person.username)

    assert name.key(user) == f"name:{user.pk}"
    assert (name(user), name(stranger), name(user)) == ("ada", "mallory", "ada")
    assert (also(user), also(stranger)) == ("ada", "mallory")


def test_a_value_cannot_pretend_to_be_two() -> None:
    @cached(ttl=300, key="pair:{a}:{b}")
    def pair(a: str, b: str) -> str:
        return a + b

    assert pair.key("a:b", "c") != pair.key("a", "b:c")
    assert len(pair.key("x" * 10_000, "\x00 \ud800")) < 250


arguments = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.binary()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.tuples(inner), st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=6,
)


@cached(ttl=300)
def anything(value: Any) -> int:
    return 1


@given(arguments, arguments)
def test_equal_calls_have_one_key_and_others_another(one: Any, other: Any) -> None:
    assert anything.key(one) == anything.key(value=one)
    # 1, 1.0 and True are equal and different calls; repr tells them apart, order in a dict does not matter.
    same = type(one) is type(other) and one == other
    if not same:
        assert anything.key(one) != anything.key(other)


def test_forgetting_one_call_leaves_the_others() -> None:
    next_number, _ = counting()

    @cached(ttl=300)
    def number(which: str) -> int:
        return next_number()

    number("a"), number("b")
    number.invalidate("a")

    assert (number("a"), number("b")) == (3, 2)


def test_a_tag_forgets_every_value_under_it() -> None:
    next_number, _ = counting()

    @cached(ttl=300, tags=["items", "item:{item}"])
    def number(item: int, language: str = "en") -> int:
        return next_number()

    assert [number(1), number(1, "de"), number(2)] == [1, 2, 3]
    invalidate("item:1")
    assert [number(1), number(1, "de"), number(2)] == [4, 5, 3]
    invalidate("items")
    assert [number(1), number(1, "de"), number(2)] == [6, 7, 8]


@pytest.mark.django_db(transaction=True)
def test_forgetting_waits_for_the_commit() -> None:
    Group.objects.create(name="old")

    @cached(ttl=300, tags=["groups"])
    def names() -> list[str]:
        return [group.name for group in Group.objects.all()]

    names()
    seen_elsewhere = []
    with transaction.atomic():
        Group.objects.update(name="new")
        invalidate("groups")
        assert names() == ["new"]  # this transaction sees its own rows
        with ThreadPoolExecutor(1) as other:
            seen_elsewhere.append(other.submit(names).result())

    assert seen_elsewhere == [["old"]]
    assert names() == ["new"]


@pytest.mark.django_db(transaction=True)
def test_a_rollback_forgets_and_spoils_nothing() -> None:
    Group.objects.create(name="old")
    runs = []

    @cached(ttl=300)
    def names() -> list[str]:
        runs.append(1)
        return [group.name for group in Group.objects.all()]

    names()
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        Group.objects.update(name="never")
        names.invalidate()
        assert names() == ["never"]
        raise ZeroDivisionError

    assert names() == ["old"]
    assert len(runs) == 2


def test_a_value_computed_before_the_invalidation_is_not_used_after_it() -> None:
    row = ["old"]
    reading, may_return = threading.Event(), threading.Event()

    @cached(ttl=300)
    def value() -> str:
        read = row[0]
        reading.set()
        may_return.wait(60)
        return read

    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(value)
        reading.wait(60)
        row[0] = "new"
        value.invalidate()
        may_return.set()
        assert value() == "new"  # it does not join the call from before
        assert slow.result(60) == "old"

    assert value() == "new"


def test_many_threads_compute_once() -> None:
    runs = []

    @cached(ttl=300)
    def slow(number: int) -> list[int]:
        runs.append(number)
        time.sleep(0.05)
        return [number]

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(slow, [7] * 16))

    assert answers == [[7]] * 16
    assert runs == [7]
    assert len({id(answer) for answer in answers}) == 16


def test_many_tasks_compute_once() -> None:
    runs = []

    @cached(ttl=300)
    async def slow(number: int) -> int:
        runs.append(number)
        await asyncio.sleep(0.05)
        return number

    async def use() -> list[int]:
        return await asyncio.gather(*(slow(7) for _ in range(16)))

    assert asyncio.run(use()) == [7] * 16
    assert runs == [7]


def test_an_error_reaches_all_who_wait_and_is_not_remembered() -> None:
    runs = []

    @cached(ttl=300)
    def failing() -> int:
        runs.append(1)
        time.sleep(0.03)
        raise LookupError

    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(failing) for _ in range(4)]
        assert all(isinstance(future.exception(), LookupError) for future in waiting)
    with pytest.raises(LookupError):
        failing()
    assert len(runs) == 2


def test_a_cancelled_leader_does_not_take_the_others_along() -> None:
    runs = []

    @cached(ttl=300)
    async def slow() -> int:
        runs.append(1)
        await asyncio.sleep(60 if len(runs) == 1 else 0.01)
        return 7

    async def use() -> int:
        leader = asyncio.create_task(slow())
        await asyncio.sleep(0.02)
        follower = asyncio.create_task(slow())
        await asyncio.sleep(0.01)
        leader.cancel()
        return await follower

    assert asyncio.run(use()) == 7
    assert len(runs) == 2


def test_nobody_waits_for_ever(svc_settings: Any) -> None:
    svc_settings(cache={"flight_seconds": 0.05})
    first, release = threading.Event(), threading.Event()

    @cached(ttl=300)
    def stuck() -> int:
        if not first.is_set():
            first.set()
            release.wait(60)
        return 1

    with ThreadPoolExecutor(1) as pool:
        leader = pool.submit(stuck)
        assert first.wait(60)
        assert stuck() == 1
        assert not leader.done()
        release.set()
        assert leader.result(60) == 1


def test_a_method_is_a_function_too() -> None:
    class Shop:
        pk = 3

        @cached(ttl=300, key="shop:{self.pk}:{item}")
        def price(self, item: str) -> str:
            return f"{item}!"

    assert Shop().price("tea") == "tea!"
    assert Shop.price.key(Shop(), "tea") == "shop:3:tea"


def test_a_value_of_another_shape_is_a_miss() -> None:
    @cached(ttl=300, key="shape")
    def before() -> str:
        return "text"

    @cached(ttl=300, key="shape")
    def after() -> int:
        return 7

    assert (before(), after(), after()) == ("text", 7, 7)


def test_nothing_kept_is_pickled_by_us() -> None:
    @cached(ttl=300, key="plain")
    def value() -> list[int]:
        return [1]

    value()

    assert isinstance(caches["shared"].get("plain"), str)


def test_a_dead_server_means_computing(own_redis: Any, caplog: pytest.LogCaptureFixture) -> None:
    next_number, _ = counting()

    @cached(ttl=300, tags=["t"])
    def number() -> int:
        return next_number()

    @cached(ttl=300)
    async def anumber() -> int:
        return next_number()

    assert (number(), number()) == (1, 1)

    own_redis.stop()
    caches["default"]._l1.clear()  # type: ignore[attr-defined]

    assert (number(), number()) == (2, 3)
    assert async_to_sync(anumber)() == 4
    invalidate("t")
    number.invalidate()
    assert "the cache does not answer" in caplog.text


def test_the_server_dies_under_load_and_nobody_gets_an_error(own_redis: Any) -> None:
    @cached(ttl=0.01)
    def value(number: int) -> int:
        return number

    def ask(number: int) -> bool:
        return value(number % 5) == number % 5

    with ThreadPoolExecutor(8) as pool:
        before = list(pool.map(ask, range(200)))
        during = [pool.submit(ask, number) for number in range(400)]
        own_redis.stop()
        after = list(pool.map(ask, range(200)))

    assert all([*before, *after, *(future.result(60) for future in during)])


def test_it_is_used_again_when_the_server_is_back(svc_settings: Any, monkeypatch: Any) -> None:
    svc_settings(cache={"pause_seconds": 0.05})
    backend = type(caches["shared"])
    with monkeypatch.context() as patched:
        patched.setattr(backend, "get_many", lambda *_: (_ for _ in ()).throw(ConnectionError()))
        cache.get_many(["k"])
        assert cache.is_paused
    cache.set("k", 1)
    assert caches["shared"].get("k") is None

    time.sleep(0.06)
    cache.set("k", 1)

    assert caches["shared"].get("k") == 1

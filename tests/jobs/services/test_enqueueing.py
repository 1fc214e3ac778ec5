from __future__ import annotations

from datetime import timedelta
from functools import reduce
from threading import Barrier, Thread
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import connection, connections, transaction
from django.utils import timezone

from svc_infra_django.jobs import aenqueue_many, enqueue_many
from svc_infra_django.jobs.errors import ArgumentsTooLarge, BadArguments, BadTask, UnknownQueue
from svc_infra_django.jobs.models import Job
from svc_infra_django.jobs.services import enqueueing
from svc_infra_django.jobs.worker import drain
from svc_infra_django.observability.context import bound
from tests.jobs import work

pytestmark = pytest.mark.django_db


class Undo(Exception):
    pass


def test_enqueueing_is_one_insert(django_assert_num_queries: Any) -> None:
    work.add.enqueue(1)

    with django_assert_num_queries(1) as queries:
        work.add.enqueue(1)

    assert queries.captured_queries[0]["sql"].startswith("INSERT")


@pytest.mark.django_db(transaction=True)
def test_a_job_lives_and_dies_with_the_transaction_that_made_it() -> None:
    with pytest.raises(Undo), transaction.atomic():
        work.add.enqueue(1)
        raise Undo

    with transaction.atomic():
        work.add.enqueue(1)
        with pytest.raises(Undo), transaction.atomic():
            work.add.enqueue(2)
            raise Undo

    assert [job.args["args"] for job in Job.objects.all()] == [[1]]


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {1, 2},
        "a\x00b",
        "\ud800",
        float("nan"),
        float("inf"),
        b"\xff",
        {"deep": [{"x": "\x00"}]},
        {"\x00": 1},
    ],
    ids=lambda value: type(value).__name__,
)
def test_arguments_that_cannot_be_stored_are_refused_at_once(value: Any) -> None:
    with pytest.raises(BadArguments, match=r"tests\.jobs\.work\.add"):
        work.add.enqueue(value)

    assert not Job.objects.exists()


@pytest.mark.parametrize(
    "value", [None, True, 1.5, 2**70, "ü\\u0000 \U0001f600", [1, [2]], {"a": {"b": None}}]
)
def test_arguments_come_back_as_they_went(value: Any) -> None:
    job = Job.objects.get(pk=work.add.enqueue(value).id)

    assert job.args == {"args": [value], "kwargs": {}}


def test_arguments_that_the_function_does_not_take_are_refused_at_once() -> None:
    for call in (
        lambda: work.add.enqueue(),
        lambda: work.add.enqueue(1, 2, 3),
        lambda: work.add.enqueue(1, c=2),
    ):
        with pytest.raises(BadArguments):
            call()


def test_endless_arguments_are_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)

    with pytest.raises(BadArguments):
        work.add.enqueue(endless)


def test_oversized_arguments_are_refused(svc_settings: Any) -> None:
    svc_settings(jobs={"max_argument_bytes": 1000})

    with pytest.raises(ArgumentsTooLarge, match="1000"):
        work.add.enqueue("x" * 1001)


BAD = {
    "no JSON": object(),
    "a number of too many digits": 10**5000,
    "not a number": float("nan"),
    "NUL": ["\x00"],
    "half a character": {"\ud800": 1},
    "too large": "x" * 300_000,
    "too deep": reduce(lambda inner, _: [inner], range(5000), []),
}


@pytest.mark.parametrize("value", BAD.values(), ids=BAD.keys())
@pytest.mark.parametrize(
    "enter",
    [
        lambda value: work.add.enqueue(value),
        lambda value: async_to_sync(work.add.aenqueue)(a=value),
        lambda value: enqueue_many(work.add, [[1], [value]]),
        lambda value: async_to_sync(aenqueue_many)(work.add, [{"a": 1}, {"a": value}]),
        lambda value: work.only_once.enqueue(value),
    ],
    ids=["enqueue", "aenqueue", "enqueue_many", "aenqueue_many", "a unique one"],
)
def test_by_whatever_door_bad_arguments_come_they_are_refused(enter: Any, value: Any) -> None:
    with pytest.raises((BadArguments, ArgumentsTooLarge)) as refused:
        enter(value)

    assert "tests.jobs.work" in str(refused.value) and len(str(refused.value)) < 300
    assert not Job.objects.exists()


@pytest.mark.parametrize(
    "calls", ["abc", ["abc"], [b"ab"], [1], [None], [{1}], {"a": 1}, [{1: 2}], [{"zz": 1}], [[]]]
)
def test_calls_that_are_no_arguments_are_refused(calls: Any) -> None:
    with pytest.raises(BadArguments, match=r"tests\.jobs\.work\.add"):
        enqueue_many(work.add, calls)

    assert not Job.objects.exists()


@pytest.mark.parametrize("what", [work.note, None, "tests.jobs.work.add"])
def test_what_is_no_task_cannot_be_enqueued(what: Any) -> None:
    with pytest.raises(BadTask, match="no task"):
        enqueue_many(what, [[1]])


def test_an_unknown_queue_is_refused() -> None:
    with pytest.raises(UnknownQueue, match="mial"):
        work.add.using(queue_name="mial").enqueue(1)

    work.add.using(queue_name="mail").enqueue(1)


def test_a_job_carries_the_context_of_its_maker(user: Any) -> None:
    with bound(request_id="request-1234", other="not carried"):
        work.add.using(owner=user, tenant="acme", priority=7).enqueue(1)

    job = Job.objects.get()
    assert job.headers == {"request_id": "request-1234"}
    assert (job.owner, job.tenant, job.priority) == (user, "acme", 7)


def test_a_job_for_later_is_scheduled_and_one_for_the_past_is_ready() -> None:
    now = timezone.now()
    work.add.using(run_after=now + timedelta(hours=1)).enqueue(1)
    work.add.using(run_after=now - timedelta(hours=1)).enqueue(2)

    assert sorted(Job.objects.values_list("state", flat=True)) == [Job.State.READY, Job.State.SCHEDULED]


def test_many_jobs_are_written_in_a_statement_a_thousand(django_assert_max_num_queries: Any) -> None:
    # Django splits for SQLite by its limit of bound values.
    with django_assert_max_num_queries(4 if connection.vendor == "postgresql" else 70):
        ids = enqueue_many(work.add, [{"a": number} for number in range(1500)])

    assert len(set(ids)) == 1500
    assert [job.args["kwargs"]["a"] for job in Job.objects.order_by("pk")] == list(range(1500))


def test_of_many_jobs_none_is_written_if_one_is_bad() -> None:
    with pytest.raises(BadArguments):
        enqueue_many(work.add, [[1], [object()]])

    assert not Job.objects.exists()


def test_many_jobs_of_large_arguments_are_written_in_smaller_statements(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(enqueueing, "MOST_BYTES", 1000)

    ids = enqueue_many(work.add, [[f"{number} {'x' * 400}"] for number in range(7)])

    assert [job.args["args"][0].split()[0] for job in Job.objects.order_by("pk")] == [*"0123456"]
    assert len(set(ids)) == 7


def test_nothing_is_many_too() -> None:
    assert enqueue_many(work.add, []) == []


def test_a_unique_job_that_waits_is_given_back() -> None:
    first = work.only_once.enqueue("a")

    assert work.only_once.enqueue("a").id == first.id
    assert work.only_once.enqueue(key="a").id == first.id
    assert work.only_once.enqueue("b").id != first.id
    drain()
    assert work.only_once.enqueue("a").id != first.id


def test_a_key_may_be_of_some_arguments_only() -> None:
    first = work.once_waiting.enqueue("a", note="1")

    assert work.once_waiting.enqueue("a", note="2").id == first.id
    drain()
    assert Job.objects.get().unique_key is None


def test_many_unique_jobs_give_back_the_new_ones_only() -> None:
    work.only_once.enqueue("a")

    assert len(enqueue_many(work.only_once, [["a"], ["b"], ["b"], ["c"]])) == 2


@pytest.mark.django_db(transaction=True)
def test_threads_that_race_for_a_unique_job_make_one() -> None:
    found: list[str] = []

    def race() -> None:
        try:
            found.append(work.only_once.enqueue("a").id)
        finally:
            connections.close_all()

    threads = [Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 8 and len(set(found)) == 1
    assert Job.objects.count() == 1


@pytest.mark.postgresql  # with SQLite there is one lock for all
@pytest.mark.django_db(transaction=True)
def test_many_that_enqueue_the_same_keys_in_opposite_order_do_not_wait_for_each_other() -> None:
    keys = [[str(number)] for number in range(1000)]
    barrier, made = Barrier(4), list[str]()

    def enqueue_in(order: int) -> None:
        try:
            barrier.wait(60)
            made.extend(enqueue_many(work.only_once, keys[::order]))
        finally:
            connections.close_all()

    threads = [Thread(target=enqueue_in, args=[order]) for order in (1, -1, 1, -1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(made) == len(set(made)) == Job.objects.count() == 1000


async def enqueue_async() -> list[str]:
    first = await work.add.aenqueue(1)
    return [first.id, *await aenqueue_many(work.add, [[2]])]


@pytest.mark.django_db(transaction=True)
def test_the_async_ends_do_the_same() -> None:
    assert len(async_to_sync(enqueue_async)()) == 2
    assert Job.objects.count() == 2

"""What a lane claims, when it lets the next message follow, and what it leaves to others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from threading import Event, Thread
from typing import Any
from uuid import UUID

import pytest

from svc_infra_django.contrib.celery import lanes
from svc_infra_django.contrib.celery.lanes import Lane
from svc_infra_django.identifiers import uuid7
from svc_infra_django.jobs.holding import Running
from svc_infra_django.jobs.models import Job
from svc_infra_django.jobs.turn import Outcome
from tests.jobs.conftest import wait_until

SHORT = 0.0001


class Table:
    """Stands for the database: it has every job that is asked for, and writes down what becomes of them."""

    def __init__(self) -> None:
        self.claims: list[list[UUID]] = []
        self.written: list[Outcome] = []
        self.crashed: set[UUID] = set()
        self.failures: list[Exception] = []

    def take_turn(self, outcomes: Sequence[Outcome], ids: Sequence[UUID]) -> list[Running]:
        if self.failures:
            raise self.failures.pop()
        self.written += outcomes
        if ids:
            self.claims.append(list(ids))
        return [Running(Job(pk=pk, epoch=1, crashes=pk in self.crashed)) for pk in ids]

    def ended(self, state: Job.State = Job.State.SUCCEEDED) -> list[UUID]:
        return [outcome.job.pk for outcome in self.written if outcome.state == state]


class Body:
    """What the jobs do: nothing, or wait until they may go on."""

    def __init__(self) -> None:
        self.ran: list[UUID] = []
        self.slow: dict[UUID, Event] = {}
        self.seconds = SHORT

    def run(self, running: Running) -> Outcome:
        self.ran.append(running.job.pk)
        if running.job.pk in self.slow:
            self.slow[running.job.pk].wait(60)
        return Outcome(running.job, Job.State.SUCCEEDED, seconds=self.seconds)


@pytest.fixture
def table() -> Table:
    return Table()


@pytest.fixture
def body() -> Body:
    return Body()


@pytest.fixture
def lane(table: Table, body: Body) -> Iterator[Lane]:
    lane = Lane(table.take_turn, body.run)
    yield lane
    for event in body.slow.values():
        event.set()
    lane.end(seconds=60)


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> list[UUID]:
    """The jobs that are to be published again."""
    found: list[UUID] = []
    monkeypatch.setattr(lanes, "put_off", found.extend)
    return found


def keys(count: int) -> list[UUID]:
    return [uuid7() for _ in range(count)]


def begin(call: Callable[..., Any], *args: Any) -> Thread:
    thread = Thread(target=call, args=args, daemon=True)
    thread.start()
    return thread


def learn_that_jobs_are_short(lane: Lane) -> None:
    for _ in range(100):
        lane.take(keys(1))


def test_messages_of_short_jobs_share_their_claims(lane: Lane, table: Table, body: Body) -> None:
    ids = keys(300)
    for pk in ids:
        lane.take([pk])

    wait_until(lambda: table.ended() == ids)

    assert body.ran == ids
    assert len(table.claims) < 200


def test_the_message_of_a_job_that_may_take_long_waits_for_it(lane: Lane, body: Body) -> None:
    (pk,) = keys(1)
    body.slow[pk] = Event()
    message = begin(lane.take, [pk])
    wait_until(lambda: body.ran == [pk])
    assert message.is_alive()

    body.slow[pk].set()

    message.join(60)
    assert not message.is_alive()


def test_what_waits_behind_a_long_job_is_left_to_others(
    lane: Lane, table: Table, body: Body, published: list[UUID]
) -> None:
    learn_that_jobs_are_short(lane)
    first, long, behind, later = keys(4)
    body.slow[long] = Event()
    lane.take([first, long, behind])
    wait_until(lambda: lane.relieve() or behind in table.ended(Job.State.READY))
    assert first in table.ended() and long not in table.ended()

    message = begin(lane.take, [later])
    wait_until(lambda: lane.relieve() or published == [later])

    assert message.is_alive(), "Celery gives this process nothing more meanwhile"
    assert not {behind, later} & set(body.ran)


def test_a_job_that_killed_a_worker_runs_with_no_other_in_its_hands(
    lane: Lane, table: Table, body: Body
) -> None:
    learn_that_jobs_are_short(lane)
    healthy, *sick = keys(3)
    table.crashed |= set(sick)
    body.slow[sick[0]] = Event()
    lane.take([*sick, healthy])

    wait_until(lambda: sick[0] in body.ran)

    assert healthy in table.ended()
    assert table.ended(Job.State.READY) == [sick[1]]


def test_what_is_taken_is_run_before_the_end(lane: Lane, table: Table) -> None:
    learn_that_jobs_are_short(lane)
    ids = keys(5)
    lane.take(ids)

    lane.end(seconds=60)

    assert table.ended()[-5:] == ids


def test_at_the_end_nothing_is_taken_and_nobody_waits(lane: Lane, table: Table, body: Body) -> None:
    (slow,) = keys(1)
    body.slow[slow] = Event()
    waiting = begin(lane.take, [slow])
    wait_until(lambda: body.ran == [slow])

    lane.end(seconds=0)
    lane.take(keys(1))
    assert waiting.is_alive()
    lane.let_go()

    waiting.join(60)
    assert not waiting.is_alive()
    assert table.claims == [[slow]]


def test_a_lane_goes_on_after_what_should_never_happen(lane: Lane, table: Table) -> None:
    table.failures.append(RuntimeError("never"))
    lane.take(keys(1))
    (pk,) = keys(1)

    lane.take([pk])

    wait_until(lambda: table.ended() == [pk])

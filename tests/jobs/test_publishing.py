"""Queues of another engine, with a broker that does as it is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import transaction
from django.utils import timezone

from svc_infra_django.identifiers import uuid7
from svc_infra_django.jobs import enqueue_many, publishing, turn
from svc_infra_django.jobs.engines import publishers
from svc_infra_django.jobs.models import Job
from svc_infra_django.jobs.rescue import rescue
from svc_infra_django.jobs.services.operating import pause, resume
from svc_infra_django.jobs.tending import stage
from svc_infra_django.jobs.worker import JobWorker, drain
from tests.jobs import work

pytestmark = pytest.mark.django_db(transaction=True)


class Broker:
    """Notes what is published; raises instead while it is away."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.is_away = False

    def __call__(self, queue: str, ids: Sequence[UUID]) -> None:
        if self.is_away:
            raise ConnectionError("away")
        self.told += [str(pk) for pk in ids]


@pytest.fixture
def broker(svc_settings: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    svc_settings(jobs={"engines": {"default": "celery"}})
    broker = Broker()
    monkeypatch.setitem(publishers, "celery", broker)
    yield broker


def let_time_pass(**duration: float) -> None:
    for job in Job.objects.filter(publish_at__isnull=False):
        job.publish_at -= timedelta(**duration)  # type: ignore[operator]
        job.save(update_fields=["publish_at"])


def test_ids_are_published_after_the_commit(broker: Broker) -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        work.add.enqueue(0)
        raise ZeroDivisionError
    with transaction.atomic():
        ids = [work.add.enqueue(1).id, *enqueue_many(work.add, [[2], [3]])]
        assert broker.told == []

    assert broker.told == ids
    assert publishing.republish() == 0


def test_jobs_of_the_database_and_jobs_for_later_are_not_published(broker: Broker, ledger: str) -> None:
    work.mail.enqueue(ledger, "x")
    later = work.add.using(run_after=timezone.now() + timedelta(hours=48)).enqueue(1)
    publishing.republish()
    assert broker.told == []

    stage(now=timezone.now() + timedelta(hours=49))
    publishing.republish()

    assert broker.told == [later.id]


def test_a_broker_that_is_away_costs_the_caller_nothing_and_is_told_when_it_is_back(broker: Broker) -> None:
    broker.is_away = True
    job = work.add.enqueue(1)
    publishing.republish()
    assert broker.told == []

    broker.is_away = False
    publishing.republish()

    assert broker.told == [job.id]


def test_what_the_broker_lost_is_published_again_and_ever_more_slowly(broker: Broker) -> None:
    job = work.add.enqueue(1)
    broker.told.clear()

    let_time_pass(seconds=31)
    assert publishing.republish() == 1
    assert broker.told == [job.id]
    let_time_pass(seconds=31)
    assert publishing.republish() == 1
    let_time_pass(seconds=31)
    assert publishing.republish() == 0, "the second time it waits twice as long"
    let_time_pass(seconds=31)
    assert publishing.republish() == 1


def test_what_was_started_is_not_published_again(broker: Broker) -> None:
    job = work.add.enqueue(1)
    assert len(turn.claim_these([UUID(job.id)], worker=uuid7())) == 1

    let_time_pass(hours=1)

    assert publishing.republish() == 0
    assert turn.claim_these([UUID(job.id)], worker=uuid7()) == []


def test_a_job_that_is_ready_once_more_is_published_at_once(broker: Broker) -> None:
    job = work.add.enqueue(1)
    broker.told.clear()
    turn.claim_these([UUID(job.id)], worker=uuid7())

    rescue(lease=timedelta(seconds=30), max_crashes=3)

    assert publishing.republish() == 1
    assert broker.told == [job.id]


def test_a_paused_queue_is_published_when_it_is_resumed(broker: Broker) -> None:
    job = work.add.enqueue(1)
    pause("default")
    assert turn.claim_these([UUID(job.id)], worker=uuid7()) == []
    let_time_pass(hours=1)
    assert publishing.republish() == 0

    broker.told.clear()
    resume("default")
    publishing.republish()

    assert broker.told == [job.id]


def test_a_queue_changes_hands_with_its_jobs_in_every_state(
    broker: Broker, svc_settings: Callable[..., None]
) -> None:
    svc_settings(jobs={"engines": {}})
    ready, running = work.add.enqueue(1).id, work.add.using(priority=1).enqueue(2).id
    (claimed,) = turn.take_turn([], worker=uuid7(), queues=["default"], room=1)
    later = work.add.using(run_after=timezone.now() + timedelta(hours=1)).enqueue(3).id
    *open_, blocked = enqueue_many(work.two_a_tenant, [["a"]] * 3)
    assert (str(claimed.pk), broker.told) == (running, [])

    svc_settings(jobs={"engines": {"*": "celery"}})
    rescue(lease=timedelta(seconds=30), max_crashes=3)
    stage(now=timezone.now() + timedelta(hours=2))
    publishing.republish()
    assert sorted(broker.told) == sorted([ready, running, later, *open_])
    assert "default" not in JobWorker()._open_queues()
    (held,) = turn.claim_these([UUID(open_[0])], worker=uuid7())
    turn.claim_these([], worker=uuid7(), outcomes=[turn.Outcome(held, Job.State.SUCCEEDED)])
    publishing.republish()
    assert blocked in broker.told

    svc_settings(jobs={"engines": {}})
    assert "default" in JobWorker()._open_queues()
    assert drain() == 5
    assert set(Job.objects.values_list("state", flat=True)) == {Job.State.SUCCEEDED}


@pytest.mark.parametrize("engine", [Any, "rabbit"])
def test_an_unknown_engine_is_refused(svc_settings: Callable[..., None], engine: Any) -> None:
    from pydantic import ValidationError

    from svc_infra_django.jobs.conf import JobsSettings

    with pytest.raises(ValidationError):
        JobsSettings(engines={"default": engine})

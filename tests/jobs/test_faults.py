"""Workers that are killed at any moment, and a ledger that tells what really happened.

The jobs write their starts and ends down outside of every transaction, and the atomic ones make a row inside
theirs. Whatever was killed, these hold in the end:

- every job that was accepted is finished;
- what an atomic job does to the database was done exactly once;
- a plain job ran at least once, and as often as it says;
- no job began more often than it may;
- what was finished is written once, and stays.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from django.contrib.auth.models import Group
from django.db import transaction

from svc_infra_django.jobs import enqueue_many
from svc_infra_django.jobs.models import Job
from tests.jobs import work
from tests.jobs.conftest import (
    Process,
    accepted,
    held_by,
    is_writable,
    let_go,
    presume_dead,
    the_laws_hold,
    wait_until,
)

pytestmark = pytest.mark.django_db(transaction=True)

Start = Callable[..., Process]
PATIENT = {"max_crashes": 50}


class Undo(Exception):
    pass


def test_the_ledger_is_right_whatever_was_killed(
    rewritten: Callable[[], int], worker: Start, ledger: str
) -> None:
    chance = random.Random(20261123)  # noqa: S311 - the same moments in every run
    ids = accepted(ledger)
    with pytest.raises(Undo), transaction.atomic():
        enqueue_many(work.keep_books, [[ledger, "rolled back", 0.0]] * 5)
        raise Undo

    alive = [worker("--concurrency", "3", **PATIENT).ready() for _ in range(2)]
    alive.sort(key=lambda process: process.pid == held_by(ledger))
    for number in range(4):
        time.sleep(chance.uniform(0.05, 0.4))
        victim = alive.pop() if number == 0 else alive.pop(chance.randrange(len(alive)))
        victim.kill()
        let_go(ledger)
        alive.append(worker("--concurrency", "3", **PATIENT))
    final = Job.objects.filter(state__in=Job.FINAL)
    wait_until(lambda: final.count() == len(ids))

    the_laws_hold(ids, ledger)
    assert rewritten() == 0


@pytest.mark.parametrize(("task", "runs"), [(work.die_after_the_body, 2), (work.die_before_the_commit, 2)])
def test_a_worker_that_dies_between_the_body_and_its_acknowledgement(
    worker: Start, ledger: str, task: work.JobTask, runs: int
) -> None:
    task.enqueue(ledger)

    victim = worker(**PATIENT)
    victim.wait()
    presume_dead(victim.pid)
    wait_until(is_writable)
    worker(**PATIENT)

    wait_until(lambda: Job.objects.get().state == Job.State.SUCCEEDED)
    job = Job.objects.get()
    assert (job.attempt, job.crashes) == (2, 1)
    assert len(work.read(ledger)) == runs
    assert Group.objects.count() == (1 if task.atomic else 2)


def test_a_claim_that_no_worker_lived_to_begin_is_made_again(
    worker: Start, ledger: str, tmp_path: Path
) -> None:
    work.record_pid.enqueue(ledger)
    armed = tmp_path / "armed"
    armed.touch()

    victim = worker(around={"dies_after_claim": str(armed)}, **PATIENT)
    victim.wait()
    presume_dead(victim.pid)
    job = Job.objects.get()
    assert (job.state, job.attempt) == (Job.State.RUNNING, 1)
    worker(**PATIENT)

    wait_until(lambda: Job.objects.get().state == Job.State.SUCCEEDED)
    assert [line.split()[1] for line in work.read(ledger)] == ["2"]
    assert Job.objects.get().crashes == 1

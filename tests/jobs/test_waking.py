from __future__ import annotations

from queue import SimpleQueue
from threading import Event, Thread

import pytest
from django.db import connections

from svc_infra_django.jobs import waking
from svc_infra_django.jobs.worker import JobWorker
from tests.jobs import work


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_other_processes_are_told_of_new_jobs(monkeypatch: pytest.MonkeyPatch, ledger: str) -> None:
    monkeypatch.setattr(waking, "_notified", {})
    stop, told = Event(), SimpleQueue[str]()
    thread = Thread(target=lambda: [told.put(queue) for queue in waking.notifications(stop)])
    thread.start()
    assert told.get(timeout=90) == "", "it listens"

    work.mail.enqueue(ledger, "hello")

    assert told.get(timeout=90) == "mail"
    stop.set()
    thread.join()


@pytest.mark.sqlite
@pytest.mark.django_db(transaction=True)
def test_a_commit_of_another_process_ends_the_pause_of_a_worker() -> None:
    worker, waits, woken = JobWorker(), Event(), list[bool]()

    def wait() -> None:
        worker._commits = waking.commits()
        waits.set()
        woken.append(worker._wait(600))
        connections.close_all()

    thread = Thread(target=wait)
    thread.start()
    assert waits.wait(90)
    work.add.enqueue(1)

    thread.join(90)
    assert woken == [True]

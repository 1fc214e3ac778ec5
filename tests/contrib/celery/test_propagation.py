from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from celery.result import AsyncResult

from svc_infra_django.observability.context import bound, current, isolated

ROOT = Path(__file__).parents[3]
TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def tasks():
    from . import app

    return app


def test_a_task_called_at_once_keeps_the_context_it_is_in(tasks) -> None:
    with isolated(request_id="request-0001"), bound(order="7"):
        context = tasks.seen.apply().get()
        after = current()

    assert (context["request_id"], context["order"]) == ("request-0001", "7")
    assert context["task"] == "tests.contrib.celery.app.seen"
    assert after == {"request_id": "request-0001", "order": "7"}


@pytest.fixture(scope="module", params=["prefork", "threads"])
def worker(request) -> Iterator[None]:
    """A Celery worker of its own process on the Redis of the tests, and on a queue that is nobody else's."""
    from . import app

    queue = f"tests-{uuid4().hex}"
    app.app.conf.task_default_queue = queue
    command = [
        sys.executable, "-m", "celery", "-A", "tests.contrib.celery.app", "worker",
        "--pool", request.param, "--concurrency", "1", "--queues", queue,
        "--without-mingle", "--without-gossip", "--without-heartbeat", "--loglevel", "WARNING",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "TESTS_CELERY_QUEUE": queue})
    yield
    process.terminate()
    assert process.wait(120) == 0
    app.app.close()


@pytest.mark.redis
@pytest.mark.sqlite  # once is enough: no database is asked
@pytest.mark.usefixtures("worker")
class TestWorker:
    def test_a_plain_task_runs_with_the_id_of_the_request(self, tasks) -> None:
        with isolated(request_id="request-0001", trace_id=TRACE, trace_flags="01", secret="not carried"):
            sent = tasks.seen.delay()

        assert sent.get(timeout=90) == {
            "request_id": "request-0001",
            "trace_id": TRACE,
            "trace_flags": "01",
            "task": "tests.contrib.celery.app.seen",
            "task_id": sent.id,
        }

    def test_so_does_the_task_that_a_task_sends(self, tasks) -> None:
        with isolated(request_id="request-0002"):
            sent = tasks.passes_on.delay()

        inner = AsyncResult(sent.get(timeout=90), app=tasks.app)
        assert inner.get(timeout=90)["request_id"] == "request-0002"

    def test_so_does_a_second_try(self, tasks) -> None:
        with isolated(request_id="request-0003"):
            sent = tasks.at_the_second_try.delay()

        assert sent.get(timeout=90)["request_id"] == "request-0003"

    def test_nothing_of_a_task_is_left_for_the_next(self, tasks) -> None:
        with isolated(request_id="request-0004"):
            untidy = tasks.untidy.delay()
        with isolated():
            next_one = tasks.seen.delay()

        with pytest.raises(ValueError, match="and then it failed"):
            untidy.get(timeout=90)
        context = next_one.get(timeout=90)
        assert set(context) == {"trace_id", "trace_flags", "task", "task_id"}
        assert context["trace_id"] != TRACE

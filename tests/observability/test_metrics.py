from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

import svc_infra_django.observability
from svc_infra_django.observability.metrics import Metrics


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> Metrics:
    return Metrics(registry)


def test_the_public_name_counts_whoever_imported_what_first() -> None:
    from svc_infra_django.observability import metrics

    assert svc_infra_django.observability.metrics is metrics
    assert metrics.increment == metrics.metrics.increment
    assert {"increment", "gauge", "adjust", "observe", "timer"} <= set(vars(metrics))


def test_counters(metrics, registry) -> None:
    metrics.increment("orders.created")
    metrics.increment("orders.created", 2)
    metrics.increment("orders.refused", reason="stock")

    assert registry.get_sample_value("orders_created_total") == 3
    assert registry.get_sample_value("orders_refused_total", {"reason": "stock"}) == 1


def test_gauges_are_set_or_moved(metrics, registry) -> None:
    metrics.gauge("queue.depth", 7, queue="default")
    metrics.gauge("queue.depth", 5, queue="default")
    metrics.adjust("workers.busy", 3)
    metrics.adjust("workers.busy", -1)

    assert registry.get_sample_value("queue_depth", {"queue": "default"}) == 5
    assert registry.get_sample_value("workers_busy") == 2


def test_timers_are_blocks_decorators_and_decorators_of_coroutines(metrics, registry) -> None:
    @metrics.timer("order.create")
    def create(number: int) -> int:
        return number

    @metrics.timer("order.create")
    async def acreate(number: int) -> int:
        await asyncio.sleep(0.02)
        return number

    with metrics.timer("order.create"):
        pass
    assert create(1) == 1
    assert asyncio.run(acreate(2)) == 2

    assert registry.get_sample_value("order_create_seconds_count") == 3
    assert registry.get_sample_value("order_create_seconds_sum") >= 0.02


def test_a_failure_is_timed_too(metrics, registry) -> None:
    with pytest.raises(ValueError), metrics.timer("order.create", kind="new"):
        raise ValueError

    assert registry.get_sample_value("order_create_seconds_count", {"kind": "new"}) == 1


def test_a_decorated_function_may_call_itself(metrics, registry) -> None:
    @metrics.timer("fold")
    def fold(depth: int) -> int:
        return depth and fold(depth - 1)

    fold(3)

    assert registry.get_sample_value("fold_seconds_count") == 4


@pytest.mark.parametrize(
    "misuse",
    [
        lambda metrics: metrics.increment("orders", other="x"),
        lambda metrics: metrics.increment("orders"),
        lambda metrics: metrics.gauge("orders", 1, kind="a"),
        lambda metrics: metrics.observe("orders", 1, kind="a"),
        lambda metrics: metrics.adjust("depth", 1),
        lambda metrics: metrics.increment("orders", -1, kind="a"),
    ],
)
def test_misuse_is_told_at_once(metrics, misuse) -> None:
    metrics.increment("orders", kind="a")
    metrics.gauge("depth", 1)

    with pytest.raises(ValueError):
        misuse(metrics)


def test_the_order_of_labels_does_not_matter(metrics, registry) -> None:
    metrics.increment("orders", kind="a", size="b")
    metrics.increment("orders", size="b", kind="a")

    assert registry.get_sample_value("orders_total", {"kind": "a", "size": "b"}) == 2


def test_label_sets_over_the_limit_are_counted_together(metrics, registry, svc_settings) -> None:
    svc_settings(observability={"metrics_label_limit": 10})

    for number in range(100):
        metrics.increment("visits", who=f"user-{number}")
    metrics.increment("visits", who="user-3")

    series = [
        sample for family in registry.collect() for sample in family.samples if sample.name == "visits_total"
    ]
    assert len(series) == 11
    assert registry.get_sample_value("visits_total", {"who": "other"}) == 90
    assert registry.get_sample_value("visits_total", {"who": "user-3"}) == 2
    assert len(metrics._children) == 10


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), max_size=30))
def test_counts_add_up(steps: list[tuple[str, int]]) -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)

    for kind, amount in steps:
        metrics.increment("steps", amount, kind=kind)

    for kind in "abc":
        total = sum(amount for other, amount in steps if other == kind)
        assert (registry.get_sample_value("steps_total", {"kind": kind}) or 0) == total


def test_threads_that_meet_a_metric_at_once_agree(metrics, registry) -> None:
    barrier = threading.Barrier(8)
    faults: list[Exception] = []

    def count() -> None:
        barrier.wait()
        try:
            for number in range(50):
                metrics.increment("race", kind=str(number))
        except Exception as error:  # the test must see it, not the thread
            faults.append(error)

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert faults == []
    assert all(registry.get_sample_value("race_total", {"kind": str(number)}) == 8 for number in range(50))


WORK = """
import os, sys
from django.conf import settings
settings.configure(SECRET_KEY="x" * 50)
from svc_infra_django.observability import metrics
metrics.increment("orders", 2, kind="a")
metrics.adjust("busy", 1)
metrics.gauge("depth", int(sys.argv[1]))
with metrics.timer("step"):
    pass
if sys.argv[2] == "show":
    from django.test import RequestFactory
    from svc_infra_django.observability.views import metrics as view
    print(view(RequestFactory().get("/metrics")).content.decode())
else:
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_several_processes_are_one_service(tmp_path: Path) -> None:
    environ = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    first = subprocess.Popen(
        [sys.executable, "-c", WORK, "7", "wait"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ,
    )  # fmt: skip
    with first:
        assert first.stdout.readline() == "ready\n"
        shown = subprocess.run(
            [sys.executable, "-c", WORK, "5", "show"], capture_output=True, text=True, env=environ, check=True
        ).stdout
        first.stdin.close()

    assert 'orders_total{kind="a"} 4.0' in shown
    assert "busy 2.0" in shown
    assert "depth 5.0" in shown
    assert "step_seconds_count 2.0" in shown


def test_a_label_that_cannot_be_written_does_not_spoil_the_export(metrics, registry) -> None:
    metrics.increment("orders.seen", customer="a\ud800")

    assert b'orders_seen_total{customer="a?"} 1.0' in generate_latest(registry)

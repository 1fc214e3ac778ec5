"""`metrics.increment`, `metrics.timer`, `metrics.gauge`: a thin door to prometheus_client."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from time import perf_counter
from typing import Any, TypeVar

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from .conf import settings

MetricT = TypeVar("MetricT", Counter, Gauge, Histogram)

OTHER = "other"


class Metrics:
    """Counters, gauges and timers by dotted name; label names are fixed by the first use.

    Raises ValueError if a name comes back with other labels, or as another kind of metric.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._registry = registry
        self._metrics: dict[str, Counter | Gauge | Histogram] = {}
        self._children: dict[tuple[str, tuple[str, ...]], Any] = {}
        self._sizes: dict[str, int] = {}
        self._summed: set[str] = set()
        self._lock = Lock()

    def increment(self, name: str, amount: float = 1, **labels: object) -> None:
        """Add `amount` to a counter: `orders.created` is exported as `orders_created_total`."""
        self._child(Counter, name, labels).inc(amount)

    def gauge(self, name: str, value: float, **labels: object) -> None:
        """Set a gauge to `value`."""
        self._child(Gauge, name, labels).set(value)

    def adjust(self, name: str, amount: float, **labels: object) -> None:
        """Move a gauge by `amount`, up or down; the exported value is the sum of all processes."""
        self._summed.add(name)
        self._child(Gauge, name, labels).inc(amount)

    def observe(self, name: str, seconds: float, **labels: object) -> None:
        """Record a duration in seconds: `order.create` is exported as `order_create_seconds`."""
        self._child(Histogram, name, labels).observe(seconds)

    @contextmanager
    def timer(self, name: str, **labels: object) -> Iterator[None]:
        """Record how long the block (or the decorated function) takes, also if it raises."""
        started = perf_counter()
        try:
            yield
        finally:
            self.observe(name, perf_counter() - started, **labels)

    def _child(self, kind: type[MetricT], name: str, labels: dict[str, object]) -> MetricT:
        values = tuple(str(value) for value in labels.values())
        # The names are part of the key: the same values under other labels are another mistake to catch.
        key = (name, (*labels, *values))
        child = self._children.get(key)
        if child is None:
            child = self._new_child(kind, name, tuple(labels), values, key)
        if not isinstance(child, kind):
            raise ValueError(f"The metric {name!r} is a {type(child).__name__.lower()} already.")
        return child

    def _new_child(
        self, kind: type[MetricT], name: str, labels: tuple[str, ...], values: tuple[str, ...], key: Any
    ) -> Any:
        with self._lock:
            metric = self._metrics.get(name)
            if metric is None:
                metric = self._metrics[name] = self._declare(kind, name, labels)
            if set(metric._labelnames) != set(labels):
                raise ValueError(f"The metric {name!r} has the labels {metric._labelnames}, not {labels}.")
            if self._sizes.get(name, 0) >= settings.metrics_label_limit:
                return metric.labels(**dict.fromkeys(labels, OTHER)) if labels else metric
            self._sizes[name] = self._sizes.get(name, 0) + 1
            child = metric.labels(**dict(zip(labels, values, strict=True))) if labels else metric
            self._children[key] = child
            return child

    def _declare(
        self, kind: type[MetricT], name: str, labels: tuple[str, ...]
    ) -> Counter | Gauge | Histogram:
        exported = name.replace(".", "_").replace("-", "_")
        if kind is Gauge:
            # With several processes the newest value is the truth; summing a depth would multiply it.
            mode: Any = "livesum" if name in self._summed else "livemostrecent"
            return Gauge(exported, name, labels, registry=self._registry, multiprocess_mode=mode)
        if kind is Histogram:
            return Histogram(f"{exported}_seconds", name, labels, registry=self._registry)
        return Counter(exported, name, labels, registry=self._registry)


metrics = Metrics()

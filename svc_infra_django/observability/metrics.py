"""`metrics.increment`, `metrics.timer`, `metrics.gauge`: a thin door to prometheus_client.

The functions of this module are those of `metrics`, the one `Metrics` of the process; use either.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ContextDecorator
from functools import wraps
from inspect import iscoroutinefunction
from threading import Lock
from time import perf_counter
from types import TracebackType
from typing import Any, Literal, TypeVar, cast

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from .conf import settings

CallableT = TypeVar("CallableT", bound=Callable[..., Any])

OTHER = "other"

Kind = Literal["counter", "gauge", "adjusted gauge", "timer"]


class Metrics:
    """Counters, gauges and timers by dotted name; label names are fixed by the first use.

    Raises ValueError if a name comes back with other labels, or as another kind of metric.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._registry = registry
        self._families: dict[str, _Family] = {}
        self._children: dict[tuple[str, str, tuple[str, ...]], Any] = {}
        self._lock = Lock()

    def increment(self, name: str, amount: float = 1, **labels: object) -> None:
        """Add `amount` to a counter: `orders.created` is exported as `orders_created_total`."""
        self._child("counter", name, labels).inc(amount)

    def gauge(self, name: str, value: float, **labels: object) -> None:
        """Set a gauge to `value`. Of several processes the one that wrote last is right."""
        self._child("gauge", name, labels).set(value)

    def adjust(self, name: str, amount: float, **labels: object) -> None:
        """Move a gauge by `amount`, up or down. The values of several processes are added."""
        self._child("adjusted gauge", name, labels).inc(amount)

    def observe(self, name: str, seconds: float, **labels: object) -> None:
        """Record a duration in seconds: `order.create` is exported as `order_create_seconds`."""
        self._child("timer", name, labels).observe(seconds)

    def timer(self, name: str, **labels: object) -> Timer:
        """Record how long a block, a function or a coroutine function takes, also if it raises."""
        return Timer(self, name, labels)

    def series(self, kind: Kind, name: str, /, **labels: object) -> Any:
        """prometheus_client's own object behind a name and its labels, for who needs it at every request."""
        return self._child(kind, name, labels)

    def _child(self, kind: Kind, name: str, labels: dict[str, object]) -> Any:
        # The names are part of the key: the same values under other labels are another mistake to catch.
        key = (kind, name, (*labels, *map(str, labels.values())))
        child = self._children.get(key)
        return self._new_child(kind, name, labels, key) if child is None else child

    def _new_child(
        self, kind: Kind, name: str, labels: dict[str, object], key: tuple[str, str, tuple[str, ...]]
    ) -> Any:
        with self._lock:
            family = self._families.get(name)
            if family is None:
                family = self._families[name] = _Family(kind, name, tuple(labels), self._registry)
            if family.kind != kind:
                raise ValueError(f"The metric {name!r} is a {family.kind} already, not a {kind}.")
            if set(family.labels) != set(labels):
                raise ValueError(f"The metric {name!r} has the labels {family.labels}, not {tuple(labels)}.")
            if not labels:
                child = family.metric
            elif family.size < settings.metrics_label_limit:
                family.size += 1
                child = family.metric.labels(**{label: _exportable(value) for label, value in labels.items()})
            else:
                # Not kept: what is over the limit would fill the memory of this process instead.
                return family.metric.labels(**dict.fromkeys(labels, OTHER))
            self._children[key] = child
            return child


def _exportable(value: object) -> str:
    # One lone surrogate in a label would make the export of all metrics fail.
    return str(value).encode(errors="replace").decode()


class Timer(ContextDecorator):
    """What `Metrics.timer` returns: a context manager and a decorator, sync and async."""

    def __init__(self, metrics: Metrics, name: str, labels: dict[str, object]) -> None:
        self._metrics, self._name, self._labels = metrics, name, labels

    def __enter__(self) -> None:
        self._started = perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._metrics.observe(self._name, perf_counter() - self._started, **self._labels)

    def __call__(self, function: CallableT) -> CallableT:
        if iscoroutinefunction(function):

            @wraps(function)
            async def timed(*args: Any, **kwargs: Any) -> Any:
                with self._recreate_cm():
                    return await function(*args, **kwargs)

            return cast(CallableT, timed)
        return super().__call__(function)

    def _recreate_cm(self) -> Timer:
        return Timer(self._metrics, self._name, self._labels)


class _Family:
    """A metric of prometheus_client and how many label sets it has."""

    def __init__(self, kind: Kind, name: str, labels: tuple[str, ...], registry: CollectorRegistry) -> None:
        self.kind, self.labels, self.size = kind, labels, 0
        exported = name.replace(".", "_").replace("-", "_")
        self.metric: Any
        match kind:
            case "counter":
                self.metric = Counter(exported, name, labels, registry=registry)
            case "timer":
                self.metric = Histogram(f"{exported}_seconds", name, labels, registry=registry)
            case "gauge":
                # Adding up what several processes say of one queue's depth would multiply it.
                self.metric = Gauge(
                    exported, name, labels, registry=registry, multiprocess_mode="livemostrecent"
                )
            case _:
                self.metric = Gauge(exported, name, labels, registry=registry, multiprocess_mode="livesum")


metrics = Metrics()

increment = metrics.increment
gauge = metrics.gauge
adjust = metrics.adjust
observe = metrics.observe
timer = metrics.timer

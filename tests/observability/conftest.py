from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import LazySettings
from prometheus_client import REGISTRY

from svc_infra_django.observability import health
from svc_infra_django.observability.logging import ContextFilter


class Lines(logging.Handler):
    """Keeps every record with the context that it would be written with."""

    def __init__(self) -> None:
        super().__init__()
        self.addFilter(ContextFilter())
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def of(self, logger: str) -> list[Any]:
        return [record for record in self.records if record.name == logger]

    @property
    def access(self) -> list[Any]:
        return self.of("svc_infra_django.access")


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler, root = Lines(), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield handler
    root.removeHandler(handler)
    root.setLevel(level)


@pytest.fixture
def site(settings: LazySettings) -> None:
    settings.ROOT_URLCONF = "tests.observability.site"
    settings.MIDDLEWARE = [
        "svc_infra_django.observability.middleware.RequestContextMiddleware",
        "django.middleware.common.CommonMiddleware",
    ]


@pytest.fixture(autouse=True)
def fresh_health() -> Iterator[None]:
    health.forget()
    yield
    health.forget()


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def series(name: str) -> list[dict[str, str]]:
    """The label sets of a metric that this process exports."""
    return [
        sample.labels for family in REGISTRY.collect() for sample in family.samples if sample.name == name
    ]

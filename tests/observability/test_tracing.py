from __future__ import annotations

import pytest
from django.test import Client
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from svc_infra_django.observability import span, tracing
from svc_infra_django.observability.tracing import active_trace

TRACE_ID = 0x0AF7651916CD43DD8448EB211C80319C


def test_a_span_that_nobody_would_hear_of_is_not_begun() -> None:
    with span("order.place", order_id=7) as current:
        assert current is None


def test_a_span_is_that_of_the_provider(monkeypatch) -> None:
    provider = trace.NoOpTracerProvider()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)

    with span("order.place", order_id=7) as current:
        assert isinstance(current, trace.Span)
        assert not current.is_recording()


def test_a_span_without_opentelemetry_is_nothing(monkeypatch) -> None:
    monkeypatch.setattr(tracing, "trace", None)

    with span("order.place") as current:
        assert current is None
    assert active_trace() is None


def test_an_error_goes_through_a_span() -> None:
    with pytest.raises(ValueError), span("order.place"):
        raise ValueError


@pytest.mark.usefixtures("site")
def test_logs_of_a_request_name_the_trace_that_opentelemetry_has_open() -> None:
    context = SpanContext(TRACE_ID, 0xB7AD6B7169203331, is_remote=False, trace_flags=TraceFlags(1))

    with trace.use_span(NonRecordingSpan(context)):
        seen = Client().get("/context").json()

    assert seen["trace_id"] == f"{TRACE_ID:032x}"
    assert seen["trace_flags"] == "01"


def test_outside_of_spans_there_is_no_trace() -> None:
    assert active_trace() is None

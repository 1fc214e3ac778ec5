"""Spans: OpenTelemetry's when it is installed, nothing at all when it is not."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

try:
    from opentelemetry import trace
except ImportError:  # the `otel` extra is not installed
    trace = None  # type: ignore[assignment]


def span(name: str, **attributes: Any) -> AbstractContextManager[Any]:
    """Run the block in a span named `name`; yields the span, or None if nobody set OpenTelemetry up."""
    if trace is None or isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        # Without a provider nobody would hear of it, and one for each job is not cheap.
        return nullcontext()
    return trace.get_tracer("svc_infra_django").start_as_current_span(name, attributes=attributes)


def active_trace() -> dict[str, str] | None:
    """Trace id and flags of the span that OpenTelemetry has open here, so that logs and spans agree."""
    if trace is None:
        return None
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return {"trace_id": f"{context.trace_id:032x}", "trace_flags": f"{context.trace_flags:02x}"}

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.contextvars import bind_contextvars

from svc_infra_django.observability.context import (
    accepted_request_id,
    bound,
    carried,
    carrying,
    current,
    isolated,
    new_trace,
    parsed_traceparent,
    request_id,
    traceparent,
)

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"


@given(st.text())
def test_an_accepted_request_id_is_harmless(offered: str) -> None:
    accepted = accepted_request_id(offered)

    assert accepted in (None, offered)
    if accepted is not None:
        assert 8 <= len(accepted) <= 128
        assert accepted.isascii() and not re.search(r"[^\w.:-]", accepted)


@pytest.mark.parametrize("offered", ["12345678", "a" * 128, "A.b_c:d-9"])
def test_ordinary_request_ids_are_accepted(offered: str) -> None:
    assert accepted_request_id(offered) == offered


@pytest.mark.parametrize("offered", [None, "", "1234567", "a" * 129, "12345678\n", "1234 5678", "\uff11" * 8])
def test_others_are_not(offered: str | None) -> None:
    assert accepted_request_id(offered) is None


def test_a_traceparent_of_our_own_is_understood() -> None:
    with bound(**new_trace()):
        header = traceparent()

        assert parsed_traceparent(header) == {name: current()[name] for name in ("trace_id", "trace_flags")}
        assert traceparent() != header  # every call is a span of its own


def test_without_a_trace_there_is_no_header() -> None:
    with isolated():
        assert traceparent() == ""


@pytest.mark.parametrize(
    "header",
    [
        f"00-{TRACE}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be",
    ],
)
def test_known_and_later_versions_are_read(header: str) -> None:
    assert parsed_traceparent(header) == {"trace_id": TRACE, "trace_flags": "01"}


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "00",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01\n",
        f"cc-{TRACE}-{SPAN}-01.more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}",
        f"0-{TRACE}-{SPAN}-01",
    ],
)
def test_a_malformed_traceparent_is_none(header: str | None) -> None:
    assert parsed_traceparent(header) is None


def test_bound_values_end_with_the_block_and_uncover_the_outer_ones() -> None:
    with isolated(), bound(order="1"):
        with bound(order="2", step="pay"):
            assert current() == {"order": "2", "step": "pay"}
        assert current() == {"order": "1"}


def test_an_isolated_block_starts_empty_and_leaves_nothing() -> None:
    with isolated(outer="kept"):
        with isolated(request_id="inner"):
            bind_contextvars(forgotten="yes")
            assert current() == {"request_id": "inner", "forgotten": "yes"}
        assert current() == {"outer": "kept"}


def test_what_is_carried_is_bound_again_elsewhere() -> None:
    with isolated(request_id="request-0001", **new_trace(), user="not carried"):
        headers = carried()

    with isolated(), carrying(headers, job_id="j1"):
        assert request_id() == "request-0001"
        assert current() == {**headers, "job_id": "j1"}
    assert set(headers) == {"request_id", "trace_id", "trace_flags"}


def test_carrying_nothing_or_something_else_is_harmless() -> None:
    with isolated(), carrying({"request_id": "", "user": "smuggled"}):
        assert current() == {}
        assert request_id() == ""
        assert carried() == {}

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from svc_infra_django.api import Moment, Schema, Text


class Named(Schema):
    name: Annotated[str, Text(min_length=2, max_length=4)]


class Direct(Schema):
    name: Text(max_length=4)  # type: ignore[valid-type]  # a type made by a function
    other: Text() | None = None  # type: ignore[valid-type]  # as above


class Timed(Schema):
    at: Moment


class Resolved(Schema):
    upper: str

    @staticmethod
    def resolve_upper(thing: object) -> str:
        return str(thing["name"] if isinstance(thing, dict) else thing.name).upper()  # type: ignore[attr-defined]


@pytest.mark.parametrize("schema", [Named, Direct])
@pytest.mark.parametrize("text", ["a\x00b", "\ud800b", "too long", 7, None])
def test_text_refuses_what_no_database_keeps(schema: type[Schema], text: object) -> None:
    with pytest.raises(ValidationError):
        schema.model_validate({"name": text})


@given(st.text(min_size=2, max_size=4).filter(lambda text: "\x00" not in text))
def test_text_leaves_everything_else_alone(text: str) -> None:
    assert Named.model_validate({"name": text}).name == text


def test_text_is_described_as_a_string() -> None:
    assert Named.model_json_schema()["properties"]["name"] == {
        "maxLength": 4,
        "minLength": 2,
        "title": "Name",
        "type": "string",
    }


def test_a_field_that_is_not_declared_is_refused() -> None:
    with pytest.raises(ValidationError, match="extra_forbidden"):
        Named.model_validate({"name": "ab", "other": 1})


@pytest.mark.parametrize("value", [None, 1, "text", [], [("name", "ab")], b"x"])
def test_what_is_no_object_is_refused(value: object) -> None:
    with pytest.raises(ValidationError):
        Named.model_validate(value)


def test_it_reads_from_objects_and_resolvers() -> None:
    assert Named.model_validate(SimpleNamespace(name="ab")).name == "ab"
    assert Resolved.model_validate(SimpleNamespace(name="ab")).upper == "AB"


@pytest.mark.parametrize(
    "moment",
    [
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "1899-12-31T23:59:59Z",
        "9000-01-01T00:00:00Z",
        "2030-01-01T00:00:00",
        10**30,
        -(10**10),
        "soon",
        True,
    ],
)
def test_a_moment_that_cannot_be_kept_is_refused(moment: object) -> None:
    with pytest.raises(ValidationError):
        Timed.model_validate({"at": moment})


@given(st.datetimes(datetime(1900, 1, 2), datetime(8999, 12, 30)), st.integers(-1439, 1439))
def test_every_other_moment_is_kept_in_any_zone(moment: datetime, minutes: int) -> None:
    local = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))

    kept = Timed.model_validate({"at": local.isoformat()}).at

    assert kept == local
    assert kept.astimezone(UTC) + timedelta(days=366 * 900) > kept

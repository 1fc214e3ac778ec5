from __future__ import annotations

from types import SimpleNamespace
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from svc_infra_django.api import Schema, Text


class Named(Schema):
    name: Annotated[str, Text(min_length=2, max_length=4)]


class Direct(Schema):
    name: Text(max_length=4)  # type: ignore[valid-type]  # a type made by a function
    other: Text() | None = None  # type: ignore[valid-type]  # as above


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

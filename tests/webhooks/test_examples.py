from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Literal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from svc_infra_django.events import catalog
from svc_infra_django.webhooks.examples import example_of


class Size(Enum):
    SMALL = "s"


class Line(BaseModel):
    sku: str = Field(min_length=3, max_length=10)
    quantity: int = Field(gt=5, le=20)


class Order(BaseModel):
    id: UUID
    at: datetime
    email: str = Field(json_schema_extra={"format": "email"})
    total: Decimal
    lines: list[Line] = Field(min_length=2)
    size: Size
    kind: Literal["gift", "own"]
    note: str | None
    parent: Order | None = None
    weight: float = Field(ge=0.5, lt=0.75)
    tags: dict[str, str]
    pair: tuple[int, str]
    paid: bool


def test_an_example_of_a_payload_fits_it() -> None:
    example = example_of(Order.model_json_schema())

    assert Order.model_validate(example)
    assert example == example_of(Order.model_json_schema())


@pytest.mark.parametrize("name", sorted(catalog))
def test_an_example_of_each_event_of_the_suite_fits_it(name: str) -> None:
    payload = catalog[name].payload

    assert payload.model_validate(example_of(payload.model_json_schema()))


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({}, None),
        ({"type": "object"}, {}),
        ({"examples": [{"id": 7}], "type": "object"}, {"id": 7}),
        ({"properties": {"a": {"type": ["null", "integer"]}}}, {"a": 1}),
        ({"type": "object", "properties": {"a": {"const": 3}, "b": {"default": "x"}}}, {"a": 3, "b": "x"}),
        (
            {"allOf": [{"properties": {"a": {"type": "integer"}}}, {"properties": {"b": {"enum": [2]}}}]},
            {"a": 1, "b": 2},
        ),
        ({"type": "integer", "minimum": 7, "multipleOf": 5}, 10),
        ({"$ref": "#/$defs/nowhere"}, None),
        ({"$ref": "#"}, None),
    ],
)
def test_what_a_schema_says_is_followed(schema: Any, expected: Any) -> None:
    assert example_of(schema) == expected


words = st.sampled_from(
    ["type", "properties", "items", "anyOf", "$ref", "enum", "examples", "minItems", "format"]
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(words, anything, max_size=4))
def test_a_schema_that_is_none_makes_no_error(schema: Any) -> None:
    example_of(schema)

"""Shapes that every API of the suite shares."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar, cast

import ninja
from ninja.schema import DjangoGetter
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationInfo,
    model_validator,
)
from pydantic_core import core_schema

SURROGATE = re.compile("[\ud800-\udfff]")

# Nearer to the years 1 and 9999 a moment cannot be turned into another time zone, nor reckoned with.
EARLIEST, LATEST = datetime(1900, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)

ItemT = TypeVar("ItemT")
SchemaT = TypeVar("SchemaT", bound="Schema")


class Schema(ninja.Schema):
    """Base of request bodies: a field that is not declared is refused, and text stays as it was sent.

    Also reads from objects, as Ninja's own Schema does, so it serves for answers as well.
    """

    model_config = ConfigDict(extra="forbid", from_attributes=True)

    # Ninja's validator runs twice for schemas that forbid extra fields; a JSON object needs no getter.
    @model_validator(mode="wrap")
    @classmethod
    def _run_root_validator(
        cls, values: Any, handler: ModelWrapValidatorHandler[SchemaT], info: ValidationInfo
    ) -> Any:
        is_plain = isinstance(values, (dict, list, str, bytes, int, float, BaseModel, type(None)))
        if is_plain and not cls._ninja_resolvers:
            return handler(values)
        if isinstance(values, dict):
            handler(values)
        return handler(DjangoGetter(values, cast(Any, cls), info.context))


class Page(ninja.Schema, Generic[ItemT]):
    """Some rows, and where the next ones are."""

    items: list[ItemT]
    next_cursor: str | None = Field(
        None, description="Give it as `cursor` to get the next page; null on the last."
    )


class ProblemField(ninja.Schema):
    """One field that is wrong."""

    pointer: str = Field(description="JSON Pointer (RFC 6901) into the request, such as `/body/url`.")
    code: str
    message: str


class Problem(ninja.Schema):
    """What went wrong (RFC 9457)."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    code: str = Field(description="Stable and machine-readable.")
    request_id: str
    errors: list[ProblemField] = []


def Text(*, min_length: int = 0, max_length: int | None = None, pattern: str | None = None) -> Any:
    """A string for schemas: no NUL, no lone surrogates, untouched otherwise. Lengths are in characters.

    `name: Annotated[str, Text(max_length=80)]`, or where no type checker looks, `name: Text(max_length=80)`.
    """

    def schema(cls: type[str], source: Any, handler: Any) -> core_schema.CoreSchema:
        text = core_schema.str_schema(min_length=min_length, max_length=max_length, pattern=pattern)
        return core_schema.no_info_after_validator_function(storable, text)

    # A class stands for itself as a type and is metadata too; its values are plain strings.
    return type("Text", (str,), {"__get_pydantic_core_schema__": classmethod(schema)})


def storable(text: str) -> str:
    """The text itself. Raises ValueError if a database could not keep it."""
    if "\x00" in text or SURROGATE.search(text):
        raise ValueError("must not contain NUL characters or lone surrogates")
    return text


def _within_reach(moment: datetime) -> datetime:
    if not EARLIEST <= moment < LATEST:
        raise ValueError("must lie between the years 1900 and 9000")
    return moment


Moment = Annotated[AwareDatetime, AfterValidator(_within_reach)]
"""A date and time with its zone, for schemas: one that databases keep and that can be reckoned with."""

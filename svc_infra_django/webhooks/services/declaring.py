"""Declaring: event types as records with a schema, from the code's catalogue and by hand."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import jsonschema_rs
import orjson
from django.db import transaction

from ...errors import FieldProblem
from ...events import catalog
from ..errors import BadEventType, BadSchema
from ..models import EVENT_TYPE_LENGTH, EventType, EventTypeVersion
from .subscribing import checked

NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
MAX_SCHEMA_BYTES = 65_536
MAX_PROBLEMS = 20
KNOWN_SCHEMAS = 1_024


@transaction.atomic
def sync_event_types() -> int:
    """Write every outward event of the catalogue as a record; what is no longer declared is archived.

    Records that were written in the admin stay as they are unless code now declares their name, and the
    examples and the retry schedule always do. Returns how many are declared.
    """
    outward = [event for event in catalog.values() if event.outward]
    before = EventType.objects.in_bulk([event.name for event in outward])
    declared = []
    for event in outward:
        schema = event.payload.model_json_schema()
        known = before.get(event.name)
        version = 1 if known is None else known.version + (known.schema != schema)
        declared.append(
            EventType(
                name=event.name,
                description=event.summary,
                schema=schema,
                version=version,
                source=EventType.Source.CODE,
                is_archived=False,
            )
        )
    EventType.objects.bulk_create(
        declared,
        update_conflicts=True,
        unique_fields=["name"],
        update_fields=["description", "schema", "version", "source", "is_archived"],
    )
    EventTypeVersion.objects.bulk_create(
        [EventTypeVersion(event_type=each, version=each.version, schema=each.schema) for each in declared],
        ignore_conflicts=True,
    )
    gone = EventType.objects.filter(source=EventType.Source.CODE).exclude(
        name__in=[each.name for each in declared]
    )
    gone.update(is_archived=True)
    return len(declared)


@transaction.atomic
def describe(
    name: str,
    *,
    description: str = "",
    schema: Mapping[str, Any] | None = None,
    examples: Sequence[Any] = (),
    retry_schedule: Sequence[float] | None = None,
) -> EventType:
    """Write an event type that code does not declare; another schema than before is a new version.

    What `publish` is given from then on must fit the schema. Raises BadEventType, BadSchema, and BadEndpoint
    for a schedule that none could have.
    """
    check_name(name)
    schedule = checked("retry_schedule", retry_schedule)
    known = EventType.objects.select_for_update().filter(name=name).first()
    event_type = known or EventType(name=name)
    if event_type.source == EventType.Source.CODE or name in catalog:
        raise BadEventType("The code declares this event type.")
    was = None if known is None else known.schema
    event_type.schema = dict(schema or {})
    event_type.description, event_type.examples = description, list(examples)
    event_type.retry_schedule = schedule
    save_described(event_type, was=was)
    return event_type


def save_described(event_type: EventType, *, was: Mapping[str, Any] | None) -> None:
    """Save a record that was changed by hand; `was` is its schema before, None if it is new.

    Raises BadSchema.
    """
    check_schema(event_type.schema)
    for number, example in enumerate(event_type.examples):
        if problems := violations(orjson.dumps(event_type.schema).decode(), example):
            places = ", ".join(problem.pointer for problem in problems)
            raise BadSchema(f"Example {number + 1} does not fit: {places}.")
    event_type.version += was is not None and was != event_type.schema
    with transaction.atomic():
        event_type.save()
        EventTypeVersion.objects.bulk_create(
            [EventTypeVersion(event_type=event_type, version=event_type.version, schema=event_type.schema)],
            ignore_conflicts=True,
        )


def check_name(event_type: Any, *, pointer: str = "/body/event_type") -> None:
    """Raises BadEventType, which points to where the name stood, unless an event type may be called so."""
    if (
        not isinstance(event_type, str)
        or len(event_type) > EVENT_TYPE_LENGTH
        or not NAME.fullmatch(event_type)
    ):
        message = BadEventType().message
        raise BadEventType(message, errors=[FieldProblem(pointer, "invalid", message)])


def check_schema(schema: Any) -> None:
    """Raises BadSchema unless this is a JSON Schema that needs nothing from elsewhere."""
    try:
        text = orjson.dumps(schema).decode()
    except (TypeError, ValueError):
        raise BadSchema() from None
    if not isinstance(schema, Mapping) or len(text) > MAX_SCHEMA_BYTES:
        raise BadSchema()
    try:
        _validator(text)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError):
        raise BadSchema() from None


def violations(schema: str, data: Any) -> list[FieldProblem]:
    """Where `data`, as JSON reads it, does not fit the JSON text of a schema. Values are never repeated."""
    return [
        FieldProblem(data_pointer(error.instance_path), "schema", error.message)
        for error, _ in zip(_validator(schema).iter_errors(data), range(MAX_PROBLEMS), strict=False)
    ]


def openapi_document(*, title: str, version: str) -> dict[str, Any]:
    """An OpenAPI 3.1 document whose `webhooks` are the event types that are not archived."""
    types = list(EventType.objects.filter(is_archived=False))
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version},
        "webhooks": {each.name: {"post": _operation(each)} for each in types},
        "components": {"schemas": {each.name: _component(each) for each in types}},
    }


def _operation(event_type: EventType) -> dict[str, Any]:
    body = {
        "type": "object",
        "required": ["type", "timestamp", "data"],
        "properties": {
            "type": {"const": event_type.name},
            "timestamp": {"type": "string", "format": "date-time"},
            "data": {"$ref": f"#/components/schemas/{event_type.name}"},
        },
    }
    media: dict[str, Any] = {"schema": body}
    if event_type.examples:
        media["examples"] = {
            f"example{number}": {
                "value": {"type": event_type.name, "timestamp": "2026-01-01T00:00:00Z", "data": example}
            }
            for number, example in enumerate(event_type.examples, start=1)
        }
    headers = ("webhook-id", "webhook-timestamp", "webhook-signature")
    return {
        "operationId": event_type.name,
        "summary": event_type.description,
        "parameters": [
            {"name": name, "in": "header", "required": True, "schema": {"type": "string"}} for name in headers
        ],
        "requestBody": {"required": True, "content": {"application/json": media}},
        "responses": {
            "2XX": {"description": "Received."},
            "410": {"description": "Send nothing more to this endpoint."},
            "default": {"description": "Not received; it is sent again later."},
        },
    }


def _component(event_type: EventType) -> Any:
    # Inside a larger document `#` is that document, so references move with the schema.
    return _rebased(event_type.schema, f"#/components/schemas/{event_type.name}")


def _rebased(schema: Any, base: str) -> Any:
    if isinstance(schema, list):
        return [_rebased(each, base) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: base + value[1:]
        if key == "$ref" and isinstance(value, str) and value.startswith("#")
        else _rebased(value, base)
        for key, value in schema.items()
    }


@lru_cache(maxsize=KNOWN_SCHEMAS)
def _validator(schema: str) -> jsonschema_rs.Draft202012Validator:
    # Offline, or `$ref` would fetch from the network and read files. Patterns in linear time. Masked, so
    # that no message repeats a value.
    return jsonschema_rs.Draft202012Validator(
        orjson.loads(schema), offline=True, pattern_options=jsonschema_rs.RegexOptions(), mask="it"
    )


def data_pointer(path: Sequence[str | int]) -> str:
    """The JSON Pointer (RFC 6901) of a place in the data of a message."""
    return "/body/data" + "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from django.core.management import call_command
from pydantic import BaseModel

from svc_infra_django.events import EventType, catalog
from svc_infra_django.webhooks.errors import BadEndpoint, BadEventType, BadSchema
from svc_infra_django.webhooks.models import EventType as EventTypeRow
from svc_infra_django.webhooks.models import EventTypeVersion
from svc_infra_django.webhooks.services.declaring import (
    describe,
    openapi_document,
    sync_event_types,
    violations,
)

SCHEMA = {"type": "object", "required": ["id"], "properties": {"id": {"type": "integer"}}}


class Coat(BaseModel):
    colour: str


class Painted(BaseModel):
    """A fence was painted."""

    coats: list[Coat]


@pytest.fixture
def painted() -> Any:
    yield EventType("fence.painted", Painted, outward=True)
    catalog.pop("fence.painted", None)


def test_declared_types_become_records_and_old_ones_are_archived(db: None, painted: Any) -> None:
    EventTypeRow.objects.create(name="code.gone", source="code")
    EventTypeRow.objects.create(name="by.hand")

    sync_event_types()

    row = EventTypeRow.objects.get(name="fence.painted")
    assert (row.description, row.source, row.version) == ("A fence was painted.", "code", 1)
    assert row.schema["required"] == ["coats"]
    assert EventTypeRow.objects.get(name="code.gone").is_archived
    assert not EventTypeRow.objects.get(name="by.hand").is_archived


def test_a_payload_that_changes_is_a_new_version_and_the_old_one_is_kept(db: None, painted: Any) -> None:
    sync_event_types()
    sync_event_types()
    EventTypeRow.objects.filter(name="fence.painted").update(retry_schedule=[9], examples=[{"coats": []}])
    del catalog["fence.painted"]

    class Repainted(Painted):
        by: str

    EventType("fence.painted", Repainted, outward=True)
    sync_event_types()

    row = EventTypeRow.objects.get(name="fence.painted")
    assert (row.version, row.retry_schedule, row.examples) == (2, [9], [{"coats": []}])
    kept = {each.version: each.schema["required"] for each in row.versions.all()}
    assert kept == {1: ["coats"], 2: ["coats", "by"]}


def test_a_type_described_by_hand_has_versions_too(db: None) -> None:
    describe("lorry.left", schema=SCHEMA, examples=[{"id": 1}])
    describe("lorry.left", schema=SCHEMA, description="It left.")
    changed = describe("lorry.left", schema={**SCHEMA, "additionalProperties": False})

    assert changed.version == 2
    assert EventTypeVersion.objects.filter(event_type="lorry.left").count() == 2


def test_what_code_declares_is_not_described_by_hand(db: None, painted: Any) -> None:
    with pytest.raises(BadEventType):
        describe("fence.painted", schema=SCHEMA)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"pattern": "("},
        {"pattern": "(?=a)b"},
        {"$ref": "http://127.0.0.1:9/schema"},
        {"$ref": "file:///etc/passwd"},
        {"$ref": "#/$defs/nowhere"},
        {"description": "x" * 70_000},
    ],
)
def test_a_schema_that_is_none_or_needs_something_from_elsewhere_is_refused(db: None, schema: Any) -> None:
    with pytest.raises(BadSchema):
        describe("lorry.left", schema=schema)

    assert not EventTypeRow.objects.filter(name="lorry.left").exists()


@pytest.mark.parametrize("schedule", [["soon"], [-1], [float("nan")], "5", [10**9]])
def test_a_schedule_that_no_delivery_could_keep_is_refused(db: None, schedule: Any) -> None:
    with pytest.raises(BadEndpoint):
        describe("lorry.left", retry_schedule=schedule)

    assert not EventTypeRow.objects.filter(name="lorry.left").exists()


def test_an_example_must_fit(db: None) -> None:
    with pytest.raises(BadSchema, match="Example 2 does not fit: /body/data/id"):
        describe("lorry.left", schema=SCHEMA, examples=[{"id": 1}, {"id": "x"}])


def test_a_pattern_costs_linear_time() -> None:
    assert violations('{"pattern": "^(a+)+$"}', "a" * 50_000 + "!")


def test_no_problem_repeats_a_value_and_there_are_not_endlessly_many() -> None:
    schema = '{"items": {"maximum": 3}}'

    problems = violations(schema, [987654321] * 500)

    assert len(problems) == 20
    assert problems[7].pointer == "/body/data/7"
    assert "987654321" not in str(problems)


def test_pointers_are_escaped() -> None:
    (problem,) = violations('{"properties": {"a/b~c": {"type": "null"}}}', {"a/b~c": 1})

    assert problem.pointer == "/body/data/a~1b~0c"


def test_the_types_are_exported_as_openapi_webhooks(db: None, painted: Any, tmp_path: Path) -> None:
    sync_event_types()
    describe("lorry.left", schema=SCHEMA, examples=[{"id": 1}], description="A lorry left.")
    EventTypeRow.objects.create(name="old.one", is_archived=True)

    call_command("export_webhooks", output=tmp_path / "webhooks.json")
    out = StringIO()
    call_command("export_webhooks", stdout=out)

    document = json.loads((tmp_path / "webhooks.json").read_text())
    assert document == json.loads(out.getvalue())
    assert document["openapi"] == "3.1.0"
    assert "old.one" not in document["webhooks"]
    operation = document["webhooks"]["lorry.left"]["post"]
    assert operation["summary"] == "A lorry left."
    media = operation["requestBody"]["content"]["application/json"]
    assert media["examples"]["example1"]["value"]["data"] == {"id": 1}
    coats = document["components"]["schemas"]["fence.painted"]["properties"]["coats"]
    assert coats["items"] == {"$ref": "#/components/schemas/fence.painted/$defs/Coat"}


def test_every_reference_of_the_export_leads_somewhere(db: None, painted: Any) -> None:
    sync_event_types()
    document = openapi_document(title="Ours", version="3")
    body = document["webhooks"]["fence.painted"]["post"]["requestBody"]["content"]["application/json"][
        "schema"
    ]
    whole = {**body, "components": document["components"]}
    sent = {
        "type": "fence.painted",
        "timestamp": "2026-01-01T00:00:00Z",
        "data": {"coats": [{"colour": "red"}]},
    }

    assert jsonschema_rs.Draft202012Validator(whole, offline=True).is_valid(sent)
    sent["data"]["coats"][0]["colour"] = 3  # type: ignore[index]
    assert not jsonschema_rs.Draft202012Validator(whole, offline=True).is_valid(sent)

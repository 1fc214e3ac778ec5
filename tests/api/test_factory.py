from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import StrEnum
from io import StringIO
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any
from uuid import UUID

import jsonschema_rs
import ninja
import pytest
from django.core.management import CommandError, call_command
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy
from ninja.renderers import JSONRenderer

from svc_infra_django.api.authentication import Authentication
from svc_infra_django.api.factory import QuickRenderer
from tests.api.apis import api

pytestmark = [pytest.mark.urls("tests.api.apis"), pytest.mark.django_db]


class Kind(StrEnum):
    PLAIN = "plain"


class Place(ninja.Schema):
    street: str


@pytest.fixture
def document(client: Any) -> Any:
    return client.get("/things/openapi.json").json()


def test_the_document_names_every_way_to_sign_in(document: Any) -> None:
    schemes = document["components"]["securitySchemes"]

    assert schemes["session"]["type"] == "apiKey"
    for operation in operations(document):
        assert operation["operationId"].startswith("apis_")
        assert set().union(*operation.get("security", [{}])) <= set(schemes)


def test_public_operations_need_nothing_and_others_something(document: Any) -> None:
    assert "security" not in document["paths"]["/things/groups"]["get"]
    assert {"session": []} in document["paths"]["/things/me"]["get"]["security"]


def test_every_operation_declares_its_problems(document: Any) -> None:
    for operation in operations(document):
        for statuses in ("4XX", "5XX"):
            content = operation["responses"][statuses]["content"]
            assert content == {
                "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
            }


def test_an_operation_may_declare_an_error_body_of_its_own(document: Any) -> None:
    responses = document["paths"]["/things/own-error"]["get"]["responses"]

    assert list(responses["400"]["content"]) == ["application/json"]
    assert list(responses["404"]["content"]) == ["application/problem+json"]


def test_every_schema_is_valid_and_every_reference_leads_somewhere(document: Any) -> None:
    for schema in document["components"]["schemas"].values():
        jsonschema_rs.meta.validate({**schema, "$schema": "https://json-schema.org/draft/2020-12/schema"})
    for reference in references(document):
        target = document
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]


def test_operation_ids_are_unique(document: Any) -> None:
    ids = [operation["operationId"] for operation in operations(document)]

    assert len(ids) == len(set(ids))


def test_a_real_problem_fits_the_declared_schema(client: Any, document: Any) -> None:
    body = client.get("/things/groups?limit=0").json()
    schema = {**document["components"]["schemas"]["Problem"], "components": document["components"]}

    jsonschema_rs.validate(schema, body)


def test_a_guard_is_told_in_the_description(document: Any) -> None:
    assert "auth.add_group" in document["paths"]["/things/guarded"]["get"]["description"]


def test_strict_bodies_are_declared_strict(document: Any) -> None:
    assert document["components"]["schemas"]["Thing"]["additionalProperties"] is False


def test_the_documentation_page_takes_nothing_from_elsewhere(client: Any) -> None:
    page = client.get("/things/docs").content.decode()

    assert "/static/ninja/swagger-ui-bundle.js" in page
    assert "https://" not in page


def test_the_document_is_exported(tmp_path: Path, settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.api.apis"
    output = StringIO()

    call_command("export_openapi", stdout=output)
    call_command("export_openapi", api="tests.api.apis.api", output=tmp_path / "openapi.json")

    assert json.loads(output.getvalue())["info"]["title"] == "Things"
    assert json.loads((tmp_path / "openapi.json").read_text()) == json.loads(output.getvalue())


@pytest.mark.parametrize("path", ["tests.nowhere.api", "tests.api.apis.router"])
def test_exporting_what_is_no_api_says_so(path: str) -> None:
    with pytest.raises(CommandError, match=path):
        call_command("export_openapi", api=path)


def test_installed_apps_are_mounted() -> None:
    from tests.urls import api as suite

    mounted = {prefix for prefix, _ in suite._routers}

    assert mounted - {""}
    assert api.urls_namespace != suite.urls_namespace


def operations(document: Any) -> list[Any]:
    return [operation for path in document["paths"].values() for operation in path.values()]


def references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [found for inner in node.values() for found in references(inner)]
    if isinstance(node, list):
        return [found for inner in node for found in references(inner)]
    return []


def test_no_two_schemas_of_the_suite_share_a_name() -> None:
    # In the document they would be one, and one of the two would be described wrongly.
    names: dict[str, set[str]] = {}
    heap: list[type] = [ninja.Schema]
    while heap:
        schema = heap.pop()
        heap += schema.__subclasses__()
        if schema.__module__.startswith("svc_infra_django.") and schema.__module__.endswith(".schemas"):
            names.setdefault(schema.__name__, set()).add(schema.__module__)

    assert {name: modules for name, modules in names.items() if len(modules) > 1} == {}


@pytest.mark.parametrize(
    "value",
    [
        {"id": 7, "name": "sēven", "none": None, "many": [1.5, True, ("a", "b")]},
        datetime(2026, 1, 2, 3, 4, 5, 678901, UTC),
        datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2))),
        {"on": date(2026, 1, 2), "at": time(3, 4, 5, 678901), "for": timedelta(days=1, seconds=2)},
        {"id": UUID(int=7), "price": Decimal("1.10"), "from": IPv4Address("192.0.2.1")},
        {"lazy": gettext_lazy("Users"), "safe": SafeString("<b>"), "state": Kind.PLAIN},
        {"size": 2**70, 1: "a key that is no text", "half": "\ud800"},
        {"thing": Place(street="Main")},
        [[[[[[]]]]]],
    ],
    ids=range(9),
)
def test_what_is_answered_reads_as_ninja_writes_it(rf: Any, value: Any) -> None:
    ours, theirs = (
        renderer.render(rf.get("/"), value, response_status=200)
        for renderer in (QuickRenderer(), JSONRenderer())
    )

    assert json.loads(ours) == json.loads(theirs)


def test_what_has_no_form_in_json_is_still_refused(rf: Any) -> None:
    with pytest.raises(TypeError):
        QuickRenderer().render(rf.get("/"), {"what": object()}, response_status=200)


def test_an_operation_behind_authentication_alone_is_not_searched_for_coroutines() -> None:
    views = [view for router in api._get_bound_routers() for view in router.path_operations.values()]
    operations = [operation for view in views for operation in view.operations]
    spared = {operation for operation in operations if "_run_authentication" in vars(operation)}

    assert spared
    assert all([*map(type, each.auth_callbacks)] == [Authentication] for each in spared)
    assert not any(each.is_async for each in spared)

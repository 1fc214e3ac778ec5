from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest

pytestmark = [pytest.mark.urls("tests.api.apis")]

JSON = {"content_type": "application/json"}
WAYS = ["/things/things", "/things/athings"]

once = pytest.mark.sqlite  # what is refused comes to no database


@once
@pytest.mark.parametrize("path", WAYS)
@pytest.mark.parametrize(
    ("data", "status", "pointer"),
    [
        (b"", 422, "/body"),
        (b"null", 422, "/body"),
        (b"[]", 422, "/body"),
        (b'"text"', 422, "/body"),
        (b"7", 422, "/body"),
        (b"{}", 422, "/body/name"),
        (b'{"name": 1}', 422, "/body/name"),
        (b'{"name": "a", "count": "many"}', 422, "/body/count"),
        (b'{"name": "a", "surprise": 1}', 422, "/body/surprise"),
        (b'{"name": "a", "addresses": [{"street": ""}]}', 422, "/body/addresses/0/street"),
        (b'{"name": "a", "addresses": [{"street": "x", "s/t": 1}]}', 422, "/body/addresses/0/s~1t"),
        (b'{"name": "a\\u0000b"}', 422, "/body/name"),
        (b'{"name": "a", "x\\u0000": 1}', 422, "/body"),
        (b'{"name": "a", "addresses": [{"street": "\\u0000"}]}', 422, "/body/addresses/0/street"),
        (b'{"name": ' + b"[" * 1000 + rb'"\u0000"' + b"]" * 1000 + b"}", 422, "/body/name" + "/0" * 1000),
        (b'{"name": "\\ud800"}', 400, None),
        (b'{"name": "\xed\xa0\x80"}', 400, None),
        (b'{"name": "\xff"}', 400, None),
        (b'{"name": NaN}', 400, None),
        (b'{"name": ', 400, None),
        (b"\xef\xbb\xbf{}", 400, None),
        (b"[" * 100_000 + b"]" * 100_000, 400, None),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, 400, None),
    ],
)
def test_a_bad_body_is_refused_where_it_is_bad(
    call: Any, user: Any, path: str, data: bytes, status: int, pointer: str | None
) -> None:
    response = call("post", path, data=data, user=user, **JSON)

    assert response.status_code == status, response.content
    assert response["Content-Type"] == "application/problem+json"
    if pointer:
        assert pointer in [error["pointer"] for error in response.json()["errors"]]


@pytest.mark.parametrize("path", WAYS)
@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]
)
def test_a_body_of_another_type_is_refused(call: Any, user: Any, path: str, content_type: str) -> None:
    response = call("post", path, data=b'{"name": "a"}', content_type=content_type, user=user)

    assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "application/vnd.api+json"])
def test_json_under_its_other_names_is_read(call: Any, user: Any, content_type: str) -> None:
    response = call("post", "/things/things", data=b'{"name": " a "}', content_type=content_type, user=user)

    assert (response.status_code, response.json()["name"]) == (201, " a ")


def test_an_escaped_backslash_is_no_nul(call: Any, user: Any) -> None:
    response = call("post", "/things/things", data=rb'{"name": "\\u0000"}', user=user, **JSON)

    assert (response.status_code, response.json()["name"]) == (201, "\\u0000")


def test_a_body_beyond_django_s_limit_is_too_large(call: Any, user: Any) -> None:
    body = json.dumps({"name": "x" * 3_000_000}).encode()

    assert call("post", "/things/things", data=body, user=user, **JSON).status_code == 413


def test_ten_thousand_mistakes_are_not_listed_one_by_one(call: Any, user: Any) -> None:
    body = json.dumps({f"unknown{number}": 1 for number in range(10_000)}).encode()

    response = call("post", "/things/things", data=body, user=user, **JSON)

    assert response.status_code == 422
    assert len(response.json()["errors"]) == 50


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/things/public/a%00b", 422),
        ("/things/public/ab?q=a%00b", 422),
        ("/things/public/ab?q=%ED%A0%80", 200),
        ("/things/public/%FF", 200),
        (f"/things/public/{'x' * 1_000_000}", 414),
        (f"/things/public/x?q={'x' * 1_000_000}", 414),
        ("/things/numbered/7", 404),
        ("/things/filtered?tags=1&tags=x", 422),
    ],
)
def test_bad_paths_and_queries_are_refused(call: Any, path: str, status: int) -> None:
    response = call("get", path)

    assert response.status_code == status
    if status >= 400:
        assert response["Content-Type"] == "application/problem+json"


def test_the_pointer_into_a_list_in_the_query_counts(call: Any) -> None:
    errors = call("get", "/things/filtered?tags=1&tags=x").json()["errors"]

    assert [error["pointer"] for error in errors] == ["/query/tags/1"]


def test_pointers_name_the_parameter_when_a_body_has_several(call: Any) -> None:
    response = call("post", "/things/both", data=b'{"thing": {}}', **JSON)

    assert {error["pointer"] for error in response.json()["errors"]} == {"/body/thing/name", "/body/address"}


def test_a_form_with_a_nul_is_refused(call: Any) -> None:
    response = call(
        "post", "/things/form", data=b"name=a%00", content_type="application/x-www-form-urlencoded"
    )

    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"] == "/form/name"


@once
def test_many_deep_mistakes_cost_no_more_than_are_shown(call: Any, user: Any) -> None:
    data = b"[" * 900 + b",".join([rb'"\u0000"'] * 200_000) + b"]" * 900
    tracemalloc.start()

    response = call("post", "/things/things", data=data, user=user, **JSON)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert (response.status_code, len(response.json()["errors"])) == (422, 50)
    assert peak < 100_000_000

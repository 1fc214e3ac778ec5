"""An example of what a JSON Schema describes: plain data from plain data, the same each time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DEEPEST = 8
MOST_ITEMS = 100
LONGEST_TEXT = 10_000

TEXTS = {
    "uuid": "01890a5d-ac96-774b-bcce-b302099a8057",
    "date-time": "2026-01-31T12:00:00Z",
    "date": "2026-01-31",
    "time": "12:00:00",
    "duration": "PT1H",
    "email": "ada@example.com",
    "uri": "https://example.com/",
    "ipv4": "203.0.113.7",
    "ipv6": "2001:db8::7",
}


def example_of(schema: Mapping[str, Any]) -> Any:
    """Data that fits the schema as far as types, formats and bounds say; `examples` and `default` win.

    A text that must match a pattern is a guess. What refers to itself is cut off, and of what is no schema
    there is no example: None.
    """
    try:
        return _example(schema, schema, 0)
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError):
        return None


def _example(schema: Any, root: Mapping[str, Any], depth: int) -> Any:
    if not isinstance(schema, Mapping) or depth > DEEPEST:
        return None
    if isinstance(examples := schema.get("examples"), list) and examples:
        return examples[0]
    for word in ("const", "default", "example"):
        if word in schema:
            return schema[word]
    if choices := schema.get("enum"):
        return choices[0]
    if "$ref" in schema:
        return _example(_referred(str(schema["$ref"]), root), root, depth + 1)
    for word in ("anyOf", "oneOf", "allOf"):
        if parts := schema.get(word):
            return _one_of(parts, root, depth + 1, is_sum=word == "allOf")
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), "null")
    match kind:
        case "object":
            return _object(schema, root, depth)
        case "array":
            return _array(schema, root, depth)
        case "string":
            return _text(schema)
        case "integer" | "number":
            return _number(schema)
        case "boolean":
            return True
    return _object(schema, root, depth) if "properties" in schema else None


def _one_of(parts: Any, root: Mapping[str, Any], depth: int, *, is_sum: bool) -> Any:
    found = [_example(part, root, depth) for part in parts]
    if is_sum and all(isinstance(one, dict) for one in found):
        return {name: value for one in found for name, value in one.items()}
    return next((one for one in found if one is not None), None)


def _object(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> dict[str, Any]:
    properties = schema.get("properties", {})
    return {name: _example(inner, root, depth + 1) for name, inner in properties.items()}


def _array(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> list[Any]:
    if places := schema.get("prefixItems"):
        return [_example(place, root, depth + 1) for place in places]
    if depth >= DEEPEST - 1:
        return []
    count = min(max(int(schema.get("minItems", 1)), 1), MOST_ITEMS)
    return [_example(schema.get("items", {}), root, depth + 1)] * count


def _text(schema: Mapping[str, Any]) -> str:
    text = TEXTS.get(str(schema.get("format")), "text")
    longest = min(int(schema.get("maxLength", LONGEST_TEXT)), LONGEST_TEXT)
    return text.ljust(min(int(schema.get("minLength", 0)), longest), "x")[:longest]


def _number(schema: Mapping[str, Any]) -> Any:
    low = schema.get("minimum", schema.get("exclusiveMinimum", 0) + ("exclusiveMinimum" in schema))
    number = max(low, 1)
    if step := schema.get("multipleOf"):
        number = step * -(-number // step)
    if "exclusiveMaximum" in schema and number >= schema["exclusiveMaximum"]:
        return float(low + schema["exclusiveMaximum"]) / 2
    return number if "maximum" not in schema else min(number, schema["maximum"])


def _referred(reference: str, root: Mapping[str, Any]) -> Any:
    found: Any = root
    for part in reference.removeprefix("#/").split("/"):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found

"""The page of rules and the tests that prove them name the same numbers."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "security-rules.md"
PROOF = re.compile(r"^(?:async )?def test_rules?_((?:\d+_)(?:and_\d+_)*)", re.MULTILINE)


def written() -> list[int]:
    return [int(number) for number in re.findall(r"^\| (\d+) \| .+\. \|$", PAGE.read_text(), re.MULTILINE)]


def proved() -> set[int]:
    tests = (path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    named = (match for text in tests for match in PROOF.findall(text))
    return {int(number) for name in named for number in re.findall(r"\d+", name)}


def test_the_rules_are_numbered_without_a_gap() -> None:
    assert written() == list(range(1, 66))


def test_every_rule_has_a_test_of_its_own_and_every_test_its_rule() -> None:
    assert proved() == set(written())

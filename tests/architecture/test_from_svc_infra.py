"""The table of svc-infra's parts: every name of a row that works now can be imported."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "from-svc-infra.md"
NAME = re.compile(r"`((?:svc_infra_django|django|django_redis|ninja)(?:\.\w+)+)`")

ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| seed |")
]
NAMES = sorted({name for row in ROWS if row[-1] == "yes" for cell in row[1:3] for name in NAME.findall(cell)})


def test_every_row_says_where_and_whether() -> None:
    assert len(ROWS) > 120
    assert [row for row in ROWS if len(row) != 4 or not (row[0] and row[1])] == []
    assert {row[3] for row in ROWS} == {"yes", "not yet"}


@pytest.mark.parametrize("name", NAMES)
def test_the_name_is_there(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    try:
        import_module(name)
    except ModuleNotFoundError:
        assert hasattr(import_module(module), attribute)

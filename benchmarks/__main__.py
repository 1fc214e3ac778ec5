"""Measures this suite against its peers: `python -m benchmarks [NAME]`, or `make bench`.

`NAME:words` measures the cases with these words in their title or in their peer's name.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from . import harness

HERE = Path(__file__).parent
NAMES = sorted(folder.name for folder in HERE.iterdir() if (folder / "compare.py").exists())


def main(chosen: list[str]) -> int:
    if unknown := {word.partition(":")[0] for word in chosen} - set(NAMES):
        print(
            f"There is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}.",
            file=sys.stderr,
        )
        return 2
    for word in chosen or NAMES:
        name, _, harness.chosen = word.partition(":")
        cases = import_module(f"benchmarks.{name}.compare").compare()
        harness.report(name, cases, HERE / "results" / f"{name}.json")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Measures this suite against its peers: `python -m benchmarks [NAME]`, or `make bench`."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from .harness import report

HERE = Path(__file__).parent
NAMES = sorted(folder.name for folder in HERE.iterdir() if (folder / "compare.py").exists())


def main(chosen: list[str]) -> int:
    if unknown := set(chosen) - set(NAMES):
        print(
            f"There is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}.",
            file=sys.stderr,
        )
        return 2
    for name in chosen or NAMES:
        report(name, import_module(f"benchmarks.{name}.compare").compare(), HERE / "results" / f"{name}.json")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

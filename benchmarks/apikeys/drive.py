"""Makes keys, sends requests with one of them, and says what one costs: µs of CPU.

Runs in the peers' environments too, so it knows nothing but Django and the standard library.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.requests.drive import in_process, over_granian

SECRET_KEY = "a-key-for-measuring-only-" * 3


def database() -> dict[str, Any]:
    """SQLite in the folder that `main` made."""
    return {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": str(Path(os.environ.get("BENCH_FOLDER", tempfile.gettempdir())) / "bench.sqlite3"),
            "CONN_MAX_AGE": None,
        }
    }


def main(module: str, make: Callable[[int], dict[str, str]]) -> None:
    """`python -m <module> path way keys`; `make(keys)` makes that many and a header with one of them."""
    path, way, keys = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BENCH_FOLDER"] = folder
        from django.conf import settings

        settings.DATABASES["default"]["NAME"] = f"{folder}/bench.sqlite3"
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        headers = make(int(keys))
        if path == "/api/open":
            headers = {}
        print({"wsgi": in_process, "granian": over_granian}[way](module, path, headers))

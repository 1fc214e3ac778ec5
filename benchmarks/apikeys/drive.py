"""Makes keys, sends requests with one of them, and says what one costs: µs of CPU.

Runs in the peers' environments too, so it knows nothing but Django and the standard library.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable

from benchmarks.requests.drive import SECRET_KEY, WAYS, database, made_database, share

__all__ = ["SECRET_KEY", "database", "main"]


def main(module: str, make: Callable[[int], dict[str, str]]) -> None:
    """`python -m <module> path way keys`; `make(keys)` makes that many and a header with one of them."""
    path, way, keys = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BENCH_FOLDER"] = folder
        from django.conf import settings
        from django.core.management import call_command

        with made_database(settings.DATABASES["default"], folder):
            call_command("migrate", verbosity=0)
            headers = make(int(keys))
            print(share(module, way, headers) if path == "share" else WAYS[way](module, path, headers))

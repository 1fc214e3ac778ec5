"""The two passes of `make test`, both with Redis: all on SQLite, then on PostgreSQL what asks a server."""

from __future__ import annotations

import os
import subprocess
import sys


def main(arguments: list[str]) -> int:
    workers = os.environ.get("TEST_WORKERS", "3")
    command = [sys.executable, "-m", "pytest", "-q", "-n", workers, "--dist", "worksteal", *arguments]
    on_postgresql = dict(os.environ)
    on_sqlite = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    failures = 0
    for what, environment in (
        ("every test on SQLite", on_sqlite),
        ("every test that asks a server, on PostgreSQL", on_postgresql),
    ):
        print(f"\n──── {what} ────", flush=True)
        failures += subprocess.run(command, env=environment, check=False).returncode != 0
    return min(failures, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

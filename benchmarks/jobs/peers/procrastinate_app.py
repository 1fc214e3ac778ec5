"""procrastinate: jobs claimed one by one, by a function in the database."""

from __future__ import annotations

import os
import sys
from urllib.parse import urlsplit

import procrastinate

from benchmarks.jobs import drive

NAME = "bench_jobs_procrastinate"
CONNECT = urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{NAME}").geturl()

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=CONNECT))


@app.task(name="noop")
async def noop(number: int) -> None:
    drive.note(number)


def synchronous() -> procrastinate.App:
    return app.with_connector(procrastinate.SyncPsycopgConnector(conninfo=CONNECT))


def worker(concurrency: int) -> list[str]:
    return [
        sys.executable, "-m", "procrastinate", "--app=benchmarks.jobs.peers.procrastinate_app.app", "worker",
        "--concurrency", str(concurrency),
    ]  # fmt: skip


def many(numbers: range) -> None:
    with synchronous().open() as opened:
        opened.tasks["noop"].batch_defer(*({"number": number} for number in numbers))


def one(number: int) -> None:
    noop.defer(number=number)


def fresh() -> None:
    drive.fresh_postgresql(NAME)
    with synchronous().open() as opened:
        opened.schema_manager.apply_schema()


if __name__ == "__main__":
    # The program that is started as a module is not the module its worker imports.
    from benchmarks.jobs.peers import procrastinate_app

    with (
        procrastinate_app.app.replace_connector(
            procrastinate.SyncPsycopgConnector(conninfo=CONNECT)
        ) as opened,
        opened.open(),
    ):
        drive.main(
            worker=worker, enqueue_many=many, enqueue=procrastinate_app.one, fresh=procrastinate_app.fresh
        )

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


def worker(concurrency: int) -> list[str]:
    return [
        sys.executable, "-m", "procrastinate", "--app=benchmarks.jobs.peers.procrastinate_app.app", "worker",
        "--concurrency", str(concurrency),
    ]  # fmt: skip


class Producer:
    """An app that only enqueues, over a connection that wants the database to be there first."""

    def fresh(self) -> None:
        drive.fresh_postgresql(NAME)
        self.app = procrastinate.App(connector=procrastinate.SyncPsycopgConnector(conninfo=CONNECT)).open()
        self.app.schema_manager.apply_schema()

    def many(self, numbers: range) -> None:
        self.app.configure_task("noop", allow_unknown=True).batch_defer(
            *({"number": number} for number in numbers)
        )

    def one(self, number: int) -> None:
        self.app.configure_task("noop", allow_unknown=True).defer(number=number)


if __name__ == "__main__":
    producer = Producer()
    drive.main(worker=worker, enqueue_many=producer.many, enqueue=producer.one, fresh=producer.fresh)
    producer.app.close()

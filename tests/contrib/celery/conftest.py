from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType

import kombu
import kombu.pools
import pytest
import redis
from django.db import connection
from django.utils import timezone

from svc_infra_django.jobs.engines import publishers
from svc_infra_django.jobs.models import Job, Worker
from tests import servers
from tests.jobs import work
from tests.jobs.conftest import FAST, GIB, cutter, database, ledger, pooled, rewritten, stop_still, wait_until  # noqa: F401 - fixtures
from tests.webhooks.conftest import receiver  # noqa: F401 - a fixture

ROOT = Path(__file__).parents[3]
SETTINGS = FAST | {"engines": {"default": "celery"}, "publish_grace_seconds": 0.5, "sweep_seconds": 0.1}
SETTINGS |= {"lease_seconds": 60.0, "overrun_seconds": 2.0, "grace_seconds": 1.0}


class Broker:
    """A Redis of our own, or on request a RabbitMQ, which comes back empty on the same port."""

    def __init__(self) -> None:
        self.port = servers.free_port()
        self._serve = servers.rabbitmq if os.environ.get("TESTS_BROKER") == "rabbitmq" else servers.redis
        self._running = ExitStack()
        self.start()

    def start(self) -> None:
        self.url = self._running.enter_context(self._serve(self.port))

    def stop(self) -> None:
        self._running.close()

    def empty(self) -> None:
        if self.url.startswith("redis"):
            with redis.Redis.from_url(self.url) as client:
                client.flushall()
        else:
            with kombu.Connection(self.url) as client:
                kombu.Queue("default", channel=client.default_channel).declare()
                client.default_channel.queue_purge("default")


class CeleryWorker:
    def __init__(
        self,
        broker: Broker,
        log: Path,
        *args: str,
        settings: Mapping[str, object] = MappingProxyType({}),
        **environment: str,
    ) -> None:
        self.log, self._args = log, args
        self.armed = log.with_name("armed")
        """With this file there, a child dies after its next claim."""
        self._known = set[int]()
        self._environment = os.environ | {
            "DJANGO_SETTINGS_MODULE": "tests.jobs.worker_settings",
            "JOBS_TEST_DATABASE": str(connection.settings_dict["NAME"]),
            "JOBS_TEST_BROKER": broker.url,
            "CELERY_SKIP_CHECKS": "1",
            "JOBS_TEST_DEATH": str(self.armed),
            "JOBS_TEST_MEMORY": str(4 * GIB),
            **environment,
        }
        self._process = self._begin(**settings)

    def _begin(self, **settings: object) -> subprocess.Popen[bytes]:
        self._environment["JOBS_TEST_SETTINGS"] = json.dumps(SETTINGS | settings)
        command = [
            sys.executable, "-m", "celery", "-A", "tests.contrib.celery.jobs_app", "worker",
            "--concurrency", "2", "--queues", "default", "--without-mingle", "--without-gossip",
            "--without-heartbeat", "--loglevel", "WARNING", *self._args,
        ]  # fmt: skip
        with self.log.open("ab") as output:
            return subprocess.Popen(
                command, cwd=ROOT, env=self._environment, stdout=output, stderr=output, start_new_session=True
            )

    @property
    def pid(self) -> int:
        """Of its main process."""
        return self._process.pid

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def keep_alive(self, **settings: object) -> None:
        """What a process manager does: Celery ends when Redis goes away at a bad moment."""
        if not self.is_alive():
            self._process = self._begin(**settings)

    def signal(self, number: signal.Signals) -> None:
        """To the main process and all its children."""
        os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """All its processes at once, and their leases are over."""
        self.signal(signal.SIGKILL)
        self._process.wait()
        self.presume_dead()

    def kill_main(self) -> None:
        """Its main process alone."""
        self._process.kill()
        self._process.wait()

    def note_processes(self) -> None:
        """Those that have a row now will have one again when it was deleted under them."""
        self._known |= set(Worker.objects.values_list("pid", flat=True))

    def is_registered(self) -> bool:
        """Whether none of its processes would be taken for dead because it has no row."""
        alive = {int(process.name) for process in self.left()}
        return self._known & alive <= set(Worker.objects.values_list("pid", flat=True))

    def presume_dead(self) -> None:
        self.note_processes()
        Worker.objects.update(heartbeat_at=timezone.now() - timedelta(days=1))

    def stop(self, *numbers: signal.Signals) -> None:
        for number in numbers:
            self._process.send_signal(number)
            time.sleep(0.2)
        self._process.wait(90)

    def memory(self) -> int:
        """What all its processes have in memory, in pages."""
        pages = 0
        for process in self.left():
            with suppress(FileNotFoundError, ProcessLookupError):
                pages += int((process / "statm").read_text().split()[1])
        return pages

    def left(self) -> list[Path]:
        """Those of its processes that live, as directories of /proc."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(FileNotFoundError, ProcessLookupError):
                state, _, group = (process / "stat").read_text().rpartition(")")[2].split()[:3]
                if int(group) == self._process.pid and state != "Z":
                    found.append(process)
        return found

    def freeze(self) -> None:
        """Stop all its processes; SIGCONT lets them go on."""
        wait_until(lambda: stop_still(self._process.pid), what="a moment to freeze in")

    def has_open(self, path: str) -> bool:
        """Whether the main process holds a file whose name begins like this."""
        files = Path(f"/proc/{self._process.pid}/fd").iterdir()
        return any(str(file.readlink()).startswith(path) for file in files)

    def end(self) -> None:
        self.signal(signal.SIGCONT)
        self._process.terminate()
        try:
            assert self._process.wait(120) == 0, self.log.read_text()
        finally:
            self._process.kill()
            self._process.wait()


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    broker = Broker()
    yield broker
    broker.stop()


@pytest.fixture
def engine(broker: Broker, celery: CeleryWorker, svc_settings: Callable[..., None]) -> Iterator[None]:
    """This process publishes to the broker too."""
    from .jobs_app import app, run_jobs

    svc_settings(jobs=SETTINGS)
    app.conf.broker_url = broker.url
    run_jobs(app)
    broker.empty()
    # The tables were emptied after the last test: a process without its row would be taken for dead.
    celery.keep_alive()
    wait_until(celery.is_registered)
    yield
    celery.note_processes()
    # Nothing of this test may reach the next one.
    Job.objects.filter(state__in=Job.WAITING).update(state=Job.State.CANCELLED, finished_at=timezone.now())
    wait_until(lambda: not Job.objects.running().exists())
    publishers.clear()
    kombu.pools.reset()
    app.close()
    if connection.vendor == "postgresql":
        # The tables are emptied under Celery's feet: in a deadlock the other one gives way, and tries again.
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT set_config('deadlock_timeout', '60s', false)"
                " WHERE current_setting('is_superuser') = 'on'"
            )


def all_ran_once(ids: list[str], path: str) -> None:
    """The ledger's laws: all that was accepted has ended well, and each started as often as it is written."""
    ran = [line.split() for line in work.read(path)]
    assert sorted(job for job, _, _ in ran) == sorted(ids)
    assert {attempt for _, attempt, _ in ran} == {"1"}

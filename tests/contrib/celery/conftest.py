from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path

import kombu
import redis
from django.db import connection
from django.utils import timezone

from svc_infra_django.jobs.models import Worker
from tests import servers
from tests.jobs.conftest import FAST, database, ledger, rewritten, stop_still, wait_until  # noqa: F401 - fixtures
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
    processes = 0
    """How many of its processes have a row of their own, and will have one again."""

    def __init__(self, broker: Broker, log: Path) -> None:
        self.log = log
        self._environment = os.environ | {
            "DJANGO_SETTINGS_MODULE": "tests.jobs.worker_settings",
            "JOBS_TEST_DATABASE": str(connection.settings_dict["NAME"]),
            "JOBS_TEST_SETTINGS": json.dumps(SETTINGS),
            "JOBS_TEST_BROKER": broker.url,
            "CELERY_SKIP_CHECKS": "1",
        }
        self._process = self._begin()

    def _begin(self) -> subprocess.Popen[bytes]:
        command = [
            sys.executable, "-m", "celery", "-A", "tests.contrib.celery.jobs_app", "worker",
            "--concurrency", "2", "--queues", "default", "--without-mingle", "--without-gossip",
            "--without-heartbeat", "--loglevel", "WARNING",
        ]  # fmt: skip
        with self.log.open("ab") as output:
            return subprocess.Popen(
                command, cwd=ROOT, env=self._environment, stdout=output, stderr=output, start_new_session=True
            )

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def keep_alive(self) -> None:
        """What a process manager does: Celery ends when Redis goes away at a bad moment."""
        if not self.is_alive():
            self._process = self._begin()

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

    def presume_dead(self) -> None:
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

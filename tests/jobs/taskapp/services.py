"""A service that fails the first time it is started."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Event
from typing import ClassVar

from svc_infra_django.jobs import WorkerService


class Shaky(WorkerService):
    name = "shaky"
    starts: ClassVar[int] = 0

    def run(self, stop: Event) -> None:
        with Path(os.environ["JOBS_TEST_SERVICE"]).open("a", buffering=1) as file:
            file.write("start\n")
            Shaky.starts += 1
            if Shaky.starts == 1:
                raise RuntimeError("not today")
            stop.wait()
            file.write("stopped\n")

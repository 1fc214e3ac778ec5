"""The web server of the demo: granian with Django's WSGI handler in blocking threads.

`python -m example_project.demo.web HOST PORT PARENT_PID`. WSGI, because Django's ASGI handler costs
several times its CPU a request and nothing in the suite needs it.
"""

from __future__ import annotations

import sys
from multiprocessing import parent_process
from typing import Any

from granian.constants import Interfaces
from granian.log import LogLevels
from granian.server import Server

from .leash import end_with

BLOCKING_THREADS = 8
KILL_TIMEOUT_SECONDS = 5


def main(host: str, port: int, parent: int) -> None:
    end_with(parent)
    Server(
        "example_project.wsgi:application",
        address=host,
        port=port,
        interface=Interfaces.WSGI,
        blocking_threads=BLOCKING_THREADS,
        workers_kill_timeout=KILL_TIMEOUT_SECONDS,
        log_level=LogLevels.error,
    ).serve(target_loader=load_application, wrap_loader=False)


def load_application() -> Any:
    """Runs in granian's worker process, which must not outlive granian either."""
    granian = parent_process()
    if granian is not None and granian.pid is not None:
        end_with(granian.pid)
    from example_project.wsgi import application

    return application


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

"""One worker in this process, told by signals when to stop."""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import sys
from collections.abc import Sequence
from queue import SimpleQueue
from threading import Thread
from time import sleep
from typing import Protocol
from uuid import UUID

from ..conf import settings
from ..worker import JobWorker

YOUNG_OBJECTS = 10_000
"""So many objects are made before the collector looks which of them are garbage. By Python's own figure it
would look several times at each batch of jobs, all of which are in use."""

SWITCH_SECONDS = 0.001
"""The longest that a thread which wants to run waits for one that computes: the claimer and the heartbeat
wait for the threads of the jobs. By Python's own figure, five milliseconds, hundreds of short jobs are over
before the claimer has its turn, and while the database works for it nothing is left to run."""


class Stoppable(Protocol):
    def stop(self) -> None: ...


def serve(
    identity: UUID,
    *,
    queues: Sequence[str],
    concurrency: int | None,
    parent: int | None,
    stops: Sequence[signal.Signals],
    is_replaceable: bool = False,
) -> None:
    """Run one worker in this process until one of the signals `stops` comes, or its parent is gone."""
    worker = JobWorker(
        identity=identity,
        queues=queues,
        concurrency=concurrency,
        is_replaceable=is_replaceable,
        on_ready=_settle_in,
    )
    # A handler runs between any two instructions of this thread, maybe one that holds a lock which stop()
    # wants; putting into a SimpleQueue is safe there.
    signals: SimpleQueue[int] = SimpleQueue()
    for number in stops:
        signal.signal(number, lambda number, frame: signals.put(number))
    Thread(target=_obey, args=(worker, signals), daemon=True).start()
    if is_replaceable:
        Thread(target=_end_if_held_up, args=(settings.lease_seconds,), daemon=True).start()
    if parent is not None:
        Thread(target=watch_parent, args=(worker, parent), daemon=True).start()
    worker.run()
    if worker.has_stragglers:
        # Threads that would not stop: their jobs are handed back, so nothing waits for them.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _settle_in() -> None:
    # What is here by now stays: the collector need not look through all of Django again and again.
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)
    sys.setswitchinterval(SWITCH_SECONDS)
    print(f"worker ready (pid {os.getpid()})", flush=True)


def _obey(worker: JobWorker, signals: SimpleQueue[int]) -> None:
    while signals.get():
        worker.stop()


def _end_if_held_up(seconds: float) -> None:
    """End the process once its interpreter has been held for so long by a call that never gives it back.

    Others have its jobs by then, and a parent that was killed cannot end it. The watch that is wound up here
    again and again runs without the interpreter; it says on stderr where each thread stood.
    """
    while True:
        faulthandler.dump_traceback_later(seconds, exit=True, file=2)
        sleep(seconds / 10)


def watch_parent(worker: Stoppable, parent: int) -> None:
    while os.getppid() == parent:
        sleep(0.5)
    worker.stop()

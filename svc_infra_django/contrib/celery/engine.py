"""Jobs of chosen queues run in Celery's workers, while their rows stay the truth.

The broker carries ids and nothing else. A message is acknowledged as soon as it is received, and then its
jobs are claimed in the table: whatever the broker loses is published again from there, and what it delivers
twice is found claimed. There is no result backend, and a job for later is not with the broker before it is
due.

The app is made before Django is set up, so what needs the models is imported when it is used.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from time import monotonic
from typing import Any
from uuid import UUID

from celery import Celery, signals
from celery.app.trace import trace_ok_t
from celery.concurrency import get_implementation
from kombu.pools import producers

from ...jobs.engines import publishers
from .duties import Duties, closing, main

NAME = "svc_infra_django.jobs.run"
IDS_A_MESSAGE = 50
CONNECT_SECONDS = 0.2
SOCKET_SECONDS = 1.0
BREAK_SECONDS = 2.0
NO_GREENLETS = (
    "The jobs of svc_infra_django do not run in a pool of greenlets (gevent, eventlet): timeouts and signs "
    "of life need threads. Use --pool prefork, threads or solo."
)


def run_jobs(app: Celery) -> None:
    """Let `app` run the jobs of the queues that `SVC_INFRA["jobs"]["engines"]` gives to "celery".

    Call it once in the module that makes the app, which the programs that enqueue have to import as well.
    """

    task = app.task(name=NAME, ignore_result=True, acks_late=False, typing=False)(run_published)
    publishers["celery"] = Publisher(app, task)
    duties = Duties(sys._getframe(1).f_globals.get("__name__", "__main__"))
    signals.worker_init.connect(_begin, weak=False, dispatch_uid=f"{__name__}.init")
    signals.worker_ready.connect(lambda **_: duties.begin(), weak=False, dispatch_uid=f"{__name__}.begin")
    signals.worker_shutdown.connect(lambda **_: duties.end(), weak=False, dispatch_uid=f"{__name__}.end")
    signals.worker_shutting_down.connect(_close, weak=False, dispatch_uid=f"{__name__}.close")
    signals.worker_process_init.connect(
        partial(_trace_lightly, task), weak=False, dispatch_uid=f"{__name__}.trace"
    )
    for ending in (signals.worker_shutdown, signals.worker_process_shutdown):
        ending.connect(_sign_off, weak=False, dispatch_uid=f"{__name__}.sign_off")


def run_published(ids: Sequence[str]) -> None:
    """The one Celery task of the jobs: run those of `ids` that are still to be run."""
    from .hands import here

    here().run([UUID(pk) for pk in ids])


def _begin(sender: Any, **_: Any) -> None:
    """Nothing is forked yet. Raises SystemExit: what else a receiver raises is written to the log only."""
    if get_implementation(sender.pool_cls).is_green:
        raise SystemExit(NO_GREENLETS)
    main.is_here()


def _trace_lightly(task: Any, **_: Any) -> None:
    """Let this child process run the task and nothing around it.

    Celery's tracer takes longer than a short job: it keeps a context, a result and events that nobody has of
    this task, and has Django's connections closed before and after it.
    """
    task.__trace__ = _trace


def _trace(task_id: str, args: Sequence[Any], kwargs: Any, request: Any = None) -> trace_ok_t:
    run_published(*args)
    return trace_ok_t(None, None, 0.0, None)


def _close(**_: Any) -> None:
    closing[0] = 1


def _sign_off(exitcode: int = 0, **_: Any) -> None:
    """Ended by a signal, a process of Celery's waits for nothing."""
    from ...jobs.conf import settings
    from .hands import sign_off

    sign_off(seconds=0.0 if exitcode < 0 else settings.grace_seconds)


class BrokerUnavailable(ConnectionError):
    """The broker failed a moment ago, and is not asked again yet."""


class Publisher:
    """Publishes ids, and does not let a broker that is away slow the requests that enqueue."""

    def __init__(self, app: Celery, task: Any) -> None:
        self._app, self._task = app, task
        self._closed_until = 0.0
        self._connection: Any = None
        self._pid = 0

    def __call__(self, queue: str, ids: Sequence[UUID]) -> None:
        """Raises BrokerUnavailable, or what the broker's library raises."""
        if monotonic() < self._closed_until:
            raise BrokerUnavailable("The broker failed a moment ago.")
        try:
            with producers[self._connected()].acquire(block=True, timeout=SOCKET_SECONDS) as producer:
                for chunk in _chunks(ids, IDS_A_MESSAGE):
                    self._task.apply_async(
                        ([str(pk) for pk in chunk],), queue=queue, producer=producer, retry=False
                    )
        except Exception:
            self._closed_until = monotonic() + BREAK_SECONDS
            self._connection = None
            raise

    def _connected(self) -> Any:
        if self._connection is None or self._pid != os.getpid():
            options = {"socket_connect_timeout": CONNECT_SECONDS, "socket_timeout": SOCKET_SECONDS}
            self._pid = os.getpid()
            self._connection = self._app.connection_for_write(
                connect_timeout=CONNECT_SECONDS, transport_options=options
            )
        return self._connection


def _chunks(ids: Sequence[UUID], size: int) -> Iterator[list[UUID]]:
    left = iter(ids)
    while chunk := list(islice(left, size)):
        yield chunk

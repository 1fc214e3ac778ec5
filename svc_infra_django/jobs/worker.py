"""A worker process: one claimer, many runners, and the threads that watch over them."""

from __future__ import annotations

import asyncio
import os
import socket
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextvars import Context
from datetime import datetime, timedelta
from functools import partial
from random import uniform
from threading import Event, Lock, Thread
from time import monotonic
from typing import ClassVar
from uuid import UUID

from asgiref.sync import SyncToAsync, ThreadSensitiveContext, sync_to_async
from django.db import DataError, IntegrityError, connections
from django.db import Error as DatabaseFailure
from django.db.models.functions import Now
from django.utils import timezone

from ..app_config import declared
from ..identifiers import uuid7
from ..observability.logging import get_logger
from ..observability.metrics import metrics
from . import tending, turn, waking
from .compat import AnyTask
from .conf import settings
from .decorators import discover, queue_names, task_at
from .engines import DATABASE
from .errors import UnknownTask
from .holding import (
    BUSY_POLL_SECONDS,
    HELD_SECONDS,
    Prefetch,
    Running,
    ThreadPool,
    UnknownTasks,
    close_connections,
    count,
    write_apart,
)
from .limits import sweep
from .models import Job, Queue, Worker
from .publishing import PUBLISHED_AT_ONCE, engine_of, republish
from .rescue import RESCUED_AT_ONCE, rescue
from .runner import arun, broken, is_async, run, timed_out
from .scheduler import fire_due, keep_schedules, sync_schedules
from .throughput import tally
from .turn import Outcome

logger = get_logger("svc_infra_django.jobs")

CAREFUL_SECONDS = 1.0
DEPTH_SECONDS = 15.0
QUEUES_SECONDS = 2.0
KEEP_SCHEDULES_SECONDS = 600.0
LAST_WRITE_SECONDS = 10.0
LAST_WORDS_SECONDS = 2.0
LAST_JOIN_SECONDS = 5.0
IDLE_QUESTION_SECONDS = 0.05


class WorkerService(ABC):
    """Something that every worker process runs in a thread of its own, beside its jobs.

    Declare the class in `worker_services` of the app's config. If `run` raises or returns early, it is
    started again after a pause that grows up to thirty seconds.
    """

    name: ClassVar[str]

    @abstractmethod
    def run(self, stop: Event) -> None:
        """Work until `stop` is set, then return soon: a stopping worker waits a few seconds at most."""


def drain(now: datetime | None = None) -> int:
    """Run every job that is due at `now` (by default, now) in this thread; returns how many attempts ran.

    For tests. Jobs made by jobs run too; a retry runs only if `now` is late enough for it. What a job
    raises is its outcome and is not raised here.
    """
    discover()
    moment = now or timezone.now()
    me = Worker.objects.using(turn.database()).create(
        name="drain", host=socket.gethostname(), pid=os.getpid(), concurrency=1
    )
    ran, unknown = 0, set[str]()
    outcomes: list[Outcome] = []
    try:
        while True:
            while tending.stage(now=moment):
                pass
            queues = turn.ready_queues()
            jobs = turn.take_turn(
                outcomes, worker=me.pk, queues=queues, room=1, excluding=sorted(unknown), now=moment
            )
            if not jobs and not outcomes:
                if sweep():
                    continue
                return ran
            outcomes = []
            for job in jobs:
                try:
                    task = task_at(job.task)
                except UnknownTask:
                    unknown.add(job.task)
                    outcomes.append(Outcome(job, Job.State.READY))
                    continue
                ran += 1
                outcomes.append(run(job, task))
    finally:
        me.delete()


class JobWorker:
    """The worker of this process. `run` returns when `stop` was called and all is put in order."""

    def __init__(
        self,
        *,
        identity: UUID | None = None,
        queues: Sequence[str] = (),
        concurrency: int | None = None,
        is_replaceable: bool = False,
        on_ready: Callable[[], None] = lambda: None,
    ) -> None:
        """`is_replaceable`: somebody starts another process when this one ends."""
        self.id: UUID = identity or uuid7()
        self.queues = tuple(queues)
        self.concurrency = settings.concurrency if concurrency is None else concurrency
        self.is_replaceable = is_replaceable
        self.on_ready = on_ready
        self.stopping = Event()
        self.hurrying = Event()
        self.has_stragglers = False
        self._wake = Event()
        self._ended = Event()
        self._finished: deque[tuple[Running, Outcome | None]] = deque()
        self._unwritten: list[Outcome] = []
        self._given_up: list[Outcome] = []
        self._running: set[Running] = set()
        # Claimed, but without a slot yet; guarded with the count of free slots by the lock.
        self._backlog: deque[tuple[Running, AnyTask]] = deque()
        self._free = self.concurrency
        self._lock = Lock()
        self._head: tuple[Running, AnyTask] | None = None
        self._head_at = float("-inf")
        self._prefetch = Prefetch()
        self._careful_until = float("-inf")
        self._commits = 0
        self._unknown = UnknownTasks()
        self._threads = ThreadPool(self.concurrency)
        self._known_queues: list[str] = []
        self._queues_read_at = float("-inf")
        self._heard_at = monotonic()

    def stop(self) -> None:
        """Begin a graceful stop: claim nothing more, wait for what runs. The second call does not wait."""
        if self.stopping.is_set():
            self.hurrying.set()
        self.stopping.set()
        self._wake.set()

    def run(self) -> None:
        discover()
        self._until_it_works(self._register)
        self._loop = asyncio.new_event_loop()
        waking.listen(self._wake)
        loop = self._start(self._loop.run_forever, "async jobs")
        threads = [
            loop,
            self._start(self._beat, "heartbeat"),
            *(
                self._start(duty, duty.__name__.strip("_"))
                for duty in (self._hear, self._stage, self._tend, self._watch, self._schedule)
            ),
        ]
        services = self._start_services()
        logger.info(
            "worker ready", worker=str(self.id), queues=self.queues or "all", concurrency=self.concurrency
        )
        self.on_ready()
        try:
            self._work()
            self._finish()
        finally:
            waking.unlisten(self._wake)
            self.stopping.set()
            self._ended.set()
            asyncio.run_coroutine_threadsafe(self._end_loop(), self._loop)
            deadline = monotonic() + LAST_JOIN_SECONDS
            if self._given_up:
                # The loop may be what hangs.
                threads.remove(loop)
            for thread in (*services, *threads):
                thread.join(timeout=max(0.0, deadline - monotonic()))
                self.has_stragglers |= thread.is_alive()
            if not self._loop.is_running():
                self._loop.close()
            # Who has them next starts at once, and here some may be running still.
            self._hand_on(self._given_up)
            self._deregister()
            logger.info("worker stopped", worker=str(self.id))

    # The claimer: this thread, and nobody else, takes turns.

    def _work(self) -> None:
        pause, failures = BUSY_POLL_SECONDS, 0
        while not self.stopping.is_set():
            self._wake.clear()
            try:
                if failures:
                    self._recover()
                is_active = self._turn()
                failures = 0
                pause = BUSY_POLL_SECONDS if is_active else min(pause * 2, settings.idle_poll_seconds)
                if not self._finished and self._wait(BUSY_POLL_SECONDS if self._backlog else pause):
                    # What is committed right after the first of many woke us tells nobody.
                    pause = BUSY_POLL_SECONDS
            except (DataError, IntegrityError) as error:
                logger.error("an outcome cannot be written", exc_info=error)
                write_apart(self._unwritten, worker=self.id)
            except DatabaseFailure as error:
                failures += 1
                self._wait_out(error, failures)

    def _wait(self, pause: float) -> bool:
        """Sleep until there may be something to do, but no longer than `pause`; whether it was shorter."""
        if connections[turn.database()].vendor != "sqlite":
            return self._wake.wait(pause)
        # A database in a file cannot tell us. It counts the commits of others, and to ask costs microseconds,
        # but wakes the processor: the longer nothing happened, the less often.
        step = min(IDLE_QUESTION_SECONDS, max(BUSY_POLL_SECONDS, pause / 5))
        deadline = monotonic() + pause
        while (left := deadline - monotonic()) > 0:
            if self._wake.wait(min(left, step)):
                return True
            seen, self._commits = self._commits, waking.commits()
            if seen != self._commits:
                return True
        return False

    def _turn(self) -> bool:
        """Write what finished, start what is ready; whether there was anything to do."""
        self._collect()
        self._begin_what_is_stuck()
        self._give_back_what_waits()
        room = 0 if self._is_closed() else self.concurrency + self._ahead() - len(self._running)
        if not self._unwritten and room <= 0:
            return False
        outcomes = list(self._unwritten)
        claimed = turn.take_turn(
            outcomes,
            worker=self.id,
            queues=self._open_queues() if room > 0 else (),
            room=max(0, room),
            excluding=self._unknown.excluded(),
        )
        del self._unwritten[: len(outcomes)]
        count(outcomes)
        self._launch(claimed)
        return bool(claimed or outcomes)

    def _ahead(self) -> int:
        return 0 if monotonic() < self._careful_until else self._prefetch.size(slots=self.concurrency)

    def _give_back_what_waits(self) -> None:
        """Let others have the jobs that wait here behind slower ones than we reckoned with."""
        head = self._next_waiting()
        if head is not None and monotonic() - head[0].since > HELD_SECONDS:
            self._prefetch.was_wrong()
            self._give_back(lambda running: True)

    def _give_back(self, which: Callable[[Running], bool]) -> None:
        with self._lock:
            waiting = list(self._backlog)
            given = [pair for pair in waiting if which(pair[0])]
            if given:
                self._backlog.clear()
                self._backlog.extend(pair for pair in waiting if not which(pair[0]))
        for running, _ in given:
            self._running.discard(running)
            self._unwritten.append(Outcome(running.job, Job.State.READY))

    def _collect(self) -> None:
        """Take what has ended off the list of what runs: its slot is free for this same turn."""
        while self._finished:
            running, outcome = self._finished.popleft()
            is_ours = running in self._running and not running.is_lost
            self._running.discard(running)
            if outcome is not None and is_ours:
                self._prefetch.took(outcome.seconds)
                self._unwritten.append(outcome)

    def _is_closed(self) -> bool:
        """Claim nothing: we are stopping, or were silent for so long that others may think us dead."""
        return self.stopping.is_set() or monotonic() - self._heard_at > settings.lease_seconds * 2 / 3

    def _open_queues(self) -> list[str]:
        """The queues to ask, in an order that turns, so that a full queue does not starve the next."""
        if monotonic() - self._queues_read_at > QUEUES_SECONDS:
            self._known_queues = list(self.queues or sorted({*turn.ready_queues(), *queue_names()}))
            self._queues_read_at = monotonic()
            self._known_queues = [name for name in self._known_queues if engine_of(name) == DATABASE]
        self._known_queues = [*self._known_queues[1:], *self._known_queues[:1]]
        return self._known_queues

    # Slots: whoever holds one runs a job and takes the next out of the backlog itself.

    def _launch(self, jobs: Iterable[Job]) -> None:
        # Who runs the jobs of a backlog goes on with these.
        at_hand = self.concurrency - self._free if self._next_waiting() else 0
        for job in jobs:
            running = Running(job)
            self._running.add(running)
            try:
                task = task_at(job.task)
            except UnknownTask as error:
                self._end(running, self._unknown.met(job, error))
            else:
                self._backlog.append((running, task))
        self._begin_waiting(at_most=self._prefetch.threads(len(self._backlog)) - at_hand)
        if any(running.job.crashes for running, _ in list(self._backlog)):
            # One of them may kill this process: those that wait here would count as its victims.
            self._careful_until = monotonic() + CAREFUL_SECONDS
            self._give_back(lambda running: running.job.crashes > 0)

    def _begin_waiting(self, *, at_most: int) -> None:
        for _ in range(at_most):
            if (pair := self._take_slot()) is None:
                return
            self._begin(*pair)

    def _begin_what_is_stuck(self) -> None:
        """Use all slots, now that the next job waits behind one that is not as short as we reckoned."""
        head = self._next_waiting()
        if head is not self._head:
            self._head, self._head_at = head, monotonic()
        elif head is not None and monotonic() - self._head_at >= BUSY_POLL_SECONDS:
            self._begin_waiting(at_most=self.concurrency)

    def _next_waiting(self) -> tuple[Running, AnyTask] | None:
        with self._lock:
            return self._backlog[0] if self._backlog else None

    def _take_slot(self) -> tuple[Running, AnyTask] | None:
        """The next job, for a slot that is free."""
        with self._lock:
            if not self._free or not self._backlog:
                return None
            self._free -= 1
            return self._backlog.popleft()

    def _pass_slot_on(self) -> tuple[Running, AnyTask] | None:
        """The next job for the slot of one that ended, or None and the slot is free."""
        with self._lock:
            if self._backlog:
                return self._backlog.popleft()
            self._free += 1
            return None

    def _begin(self, running: Running, task: AnyTask) -> None:
        if is_async(task.func):
            self._loop.call_soon_threadsafe(self._begin_async, running, task)
        else:
            self._threads.submit(partial(self._run_in_thread, running, task))

    def _run_in_thread(self, running: Running, task: AnyTask) -> None:
        following: tuple[Running, AnyTask] | None = (running, task)
        close_connections()
        while following:
            running, task = following
            if is_async(task.func):
                self._begin(running, task)
                return
            self._run_sync(running, task)
            following = self._pass_slot_on() if self._leaves_slot(running) else None

    def _leaves_slot(self, running: Running) -> bool:
        """Whether the slot is this job's to leave; no longer, once the job was given up."""
        with self._lock:
            had_slot, running.has_slot = running.has_slot, False
            return had_slot

    def _run_sync(self, running: Running, task: AnyTask) -> None:
        outcome = None
        try:
            if not running.is_lost:
                running.begin(task)
                outcome = run(running.job, task, is_lost=lambda: running.is_lost, report=running.report)
                close_connections()
        except BaseException as error:  # frontier: a job without an outcome would be running for ever
            outcome = outcome or broken(running.job, error)
        self._end(running, outcome)

    def _begin_async(self, running: Running, task: AnyTask) -> None:
        running.loop = self._loop
        running.task = self._loop.create_task(self._run_async(running, task), context=Context())
        running.task.add_done_callback(partial(self._end_async, running))
        if running.is_lost:
            running.task.cancel()

    def _end_async(self, running: Running, done: asyncio.Task[Outcome]) -> None:
        self._end(running, _result(running.job, done))
        if self._leaves_slot(running) and (following := self._pass_slot_on()):
            self._begin(*following)

    async def _run_async(self, running: Running, task: AnyTask) -> Outcome:
        running.begin(task)
        # The context gives the job's ORM calls a thread of their own; its connection goes with it.
        async with ThreadSensitiveContext() as context:
            try:
                return await arun(running.job, task, is_lost=lambda: running.is_lost, report=running.report)
            finally:
                if context in SyncToAsync.context_to_thread_executor:
                    await asyncio.shield(sync_to_async(connections.close_all)())

    # Jobs that do not stop at their timeout.

    def _give_up_overrun(self) -> None:
        """Let nothing wait for a job that nobody can stop.

        A thread cannot be killed. A process can: the others of its jobs end in peace, and it is replaced.
        Where nobody would replace it, another thread takes the slot, and the body runs on unheard.
        """
        for running in list(self._running):
            if not running.has_overrun() or running.is_given_up:
                continue
            running.is_given_up = self.has_stragglers = True
            logger.error("a job ignores its timeout", job_id=str(running.job.pk), task=running.job.task)
            metrics.increment("jobs.overrun", queue=running.job.queue, task=running.job.task)
            if self.is_replaceable:
                self.stopping.set()
                self._wake.set()
            else:
                self._leave_behind(running)

    def _leave_behind(self, running: Running) -> None:
        self._end(running, self._timed_out(running))
        if self._leaves_slot(running):
            self._threads.grow()
            if following := self._pass_slot_on():
                self._begin(*following)

    def _timed_out(self, running: Running) -> Outcome:
        return timed_out(running.job, task_at(running.job.task), seconds=monotonic() - running.since)

    async def _end_loop(self) -> None:
        """Let cancelled bodies run their `finally`, then stop the loop."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for each in tasks:
            each.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=LAST_WORDS_SECONDS)
        self._loop.stop()

    def _end(self, running: Running, outcome: Outcome | None) -> None:
        self._finished.append((running, outcome))
        if not self._wake.is_set():
            self._wake.set()

    # Failures of the database.

    def _wait_out(self, error: Exception, failures: int) -> None:
        pause = min(5.0, 0.1 * 2 ** min(failures, 6))
        logger.warning("database unavailable", error=repr(error), failures=failures, pause_seconds=pause)
        metrics.increment("jobs.database_errors")
        connections[turn.database()].close()
        self.stopping.wait(uniform(pause / 2, pause))  # noqa: S311 - spreads load, hides nothing

    def _recover(self) -> None:
        """A lost answer may have been a claim: give back what we do not know we have."""
        known = [running.job.pk for running in self._running] + [
            outcome.job.pk for outcome in self._unwritten
        ]
        count = turn.hand_back_strays(worker=self.id, known=known)
        if count:
            logger.warning("claims without an answer were handed back", count=count)

    def _until_it_works(self, act: Callable[[], None]) -> None:
        failures = 0
        while not self.stopping.is_set():
            try:
                return act()
            except DatabaseFailure as error:
                failures += 1
                self._wait_out(error, failures)

    # Life and death.

    def _register(self) -> None:
        Worker.objects.using(turn.database()).update_or_create(
            pk=self.id,
            defaults={
                "name": f"{socket.gethostname()}:{os.getpid()}",
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "queues": list(self.queues),
                "concurrency": self.concurrency,
                "heartbeat_at": Now(),
            },
        )
        names = self.queues or queue_names()
        Queue.objects.using(turn.database()).bulk_create(
            [Queue(name=name) for name in sorted(names)], ignore_conflicts=True
        )
        self._heard_at = monotonic()

    def _deregister(self) -> None:
        # Whoever only did the duties has not used it since, and may have lost it.
        connections[turn.database()].close()
        try:
            tally.write()
            Worker.objects.using(turn.database()).filter(pk=self.id).delete()
        except DatabaseFailure as error:
            logger.warning("worker could not sign off", error=repr(error))

    def _beat(self) -> None:
        """Say that we live, and learn which of our jobs are ours no more."""
        while not self._ended.is_set():
            asked_at = monotonic()
            try:
                me = Worker.objects.using(turn.database()).filter(pk=self.id)
                if not me.update(heartbeat_at=Now(), is_stopping=self.stopping.is_set()):
                    logger.warning("this worker was taken for dead", worker=str(self.id))
                    self._register()
                self._heard_at = asked_at
                self._drop_lost()
            except DatabaseFailure as error:
                logger.warning("heartbeat failed", error=repr(error))
                connections[turn.database()].close()
            self._ended.wait(settings.heartbeat_seconds)

    def _drop_lost(self) -> None:
        running = [each for each in list(self._running) if not each.is_lost]
        mine = turn.still_owned([each.job for each in running]) if running else set()
        for each in running:
            if each.job.pk not in mine:
                each.lose()

    def _finish(self) -> None:
        """Wait for what runs as long as grace allows, then hand the rest back."""
        deadline = monotonic() + settings.grace_seconds
        self._give_back(lambda running: True)
        while self._is_worth_waiting() and monotonic() < deadline and not self.hurrying.is_set():
            self._wake.clear()
            self._give_up_overrun()
            self._write()
            if not self._finished:
                self._wake.wait(0.05)
        self._collect()
        mine = [running for running in self._running if not running.is_lost]
        for running in self._running:
            running.lose()
        self._given_up = [self._timed_out(running) for running in mine if running.is_given_up]
        back = [Outcome(running.job, Job.State.READY) for running in mine if not running.is_given_up]
        if self._running:
            self.has_stragglers = True
            logger.warning("running jobs were left behind", count=len(self._running))
        self._hand_on(back)

    def _hand_on(self, outcomes: Iterable[Outcome]) -> None:
        self._unwritten.extend(outcomes)
        give_up_at = monotonic() + LAST_WRITE_SECONDS
        while self._unwritten and monotonic() < give_up_at:
            self._write()

    def _is_worth_waiting(self) -> bool:
        return any(not running.is_given_up for running in self._running)

    def _write(self) -> None:
        try:
            self._turn()
        except DatabaseFailure as error:
            logger.warning("outcomes could not be written", error=repr(error))
            connections[turn.database()].close()
            self.hurrying.wait(0.2)

    # The other duties, each in a thread with a connection of its own.

    def _hear(self) -> None:
        """Look into the queues as soon as another process tells of them."""
        if not settings.listen or connections[turn.database()].vendor != "postgresql":
            return
        import psycopg  # here, because only PostgreSQL's users should wait for it

        while not self.stopping.is_set():
            try:
                for queue in waking.notifications(self.stopping):
                    if not queue or not self.queues or queue in self.queues:
                        self._wake.set()
            except psycopg.Error as error:
                logger.warning("the connection that listens was lost", error=repr(error))
                self.stopping.wait(uniform(0.5, 1.5))  # noqa: S311 - spreads load, hides nothing

    def _stage(self) -> None:
        """Make scheduled jobs ready the moment they fall due."""
        self._repeat(self._stage_once)

    def _stage_once(self) -> float:
        due_in = tending.next_due_in()
        if due_in is not None and due_in <= 0 and tending.stage():
            self._wake.set()
            republish()
            return 0.0
        return settings.stage_seconds if due_in is None else min(settings.stage_seconds, max(0.005, due_in))

    def _tend(self) -> None:
        """Rescue the jobs of the dead, tell how full the queues are, delete what is old."""
        first_prune = monotonic() + uniform(0, settings.prune_seconds)  # noqa: S311 - spreads load
        next_at = {"rescue": 0.0, "republish": 0.0, "depth": 0.0, "prune": first_prune}

        def once() -> float:
            now = monotonic()
            if now >= next_at["rescue"]:
                lease = timedelta(seconds=settings.lease_seconds)
                rescued = rescue(lease=lease, max_crashes=settings.max_crashes)
                if rescued:
                    self._wake.set()
                if sweep():
                    self._wake.set()
                if rescued < RESCUED_AT_ONCE:
                    next_at["rescue"] = now + settings.rescue_seconds
            if now >= next_at["republish"] and republish() < PUBLISHED_AT_ONCE:
                next_at["republish"] = now + settings.sweep_seconds
            if now >= next_at["depth"]:
                tending.measure_depth()
                next_at["depth"] = now + DEPTH_SECONDS
            if now >= next_at["prune"]:
                tending.prune()
                next_at["prune"] = now + settings.prune_seconds
            return max(0.01, min(next_at.values()) - monotonic())

        self._repeat(once)

    def _watch(self) -> None:
        """Write how far the running jobs are, and learn soon which of them were cancelled."""

        def once() -> float:
            running = list(self._running)
            turn.write_progress((each.job, told) for each in running if (told := each.take_report()))
            self._drop_lost()
            self._give_up_overrun()
            tally.write()
            return settings.watch_seconds

        self._repeat(once)

    def _schedule(self) -> None:
        """Fire the periodic schedules that are due."""
        self._until_it_works(lambda: sync_schedules(now=turn.database_now()))
        kept_at = monotonic()

        def once() -> float:
            nonlocal kept_at
            now = turn.database_now()
            fire_due(now=now)
            if monotonic() - kept_at > KEEP_SCHEDULES_SECONDS:
                keep_schedules(now=now)
                kept_at = monotonic()
            return settings.schedule_seconds

        self._repeat(once)

    def _repeat(self, once: Callable[[], float]) -> None:
        failures = 0
        while not self.stopping.is_set():
            try:
                pause = once()
                failures = 0
            except DatabaseFailure as error:
                failures += 1
                self._wait_out(error, failures)
                continue
            self.stopping.wait(pause)

    # Threads.

    def _start(self, body: Callable[[], object], name: str) -> Thread:
        def guarded() -> None:
            try:
                body()
            except BaseException as error:
                # Without one of these the process would look alive and do half its work.
                logger.error("a thread of the worker died; stopping", thread=name, exc_info=error)
                self.stop()
            finally:
                connections.close_all()

        thread = Thread(target=guarded, name=f"svc-jobs {name}", daemon=True)
        thread.start()
        return thread

    def _start_services(self) -> list[Thread]:
        services = [cls() for _, cls in declared("worker_services")]
        return [self._start(partial(self._serve, service), service.name) for service in services]

    def _serve(self, service: WorkerService) -> None:
        failures = 0
        while not self.stopping.is_set():
            started = monotonic()
            try:
                service.run(self.stopping)
            except Exception as error:  # frontier: a service that fails is started again
                logger.error("worker service failed", service=service.name, exc_info=error)
            failures = failures + 1 if monotonic() - started < 60 else 1
            connections.close_all()
            self.stopping.wait(min(30.0, 0.5 * 2 ** min(failures, 6)))


def _result(job: Job, done: asyncio.Task[Outcome]) -> Outcome | None:
    if done.cancelled():
        return None
    error = done.exception()
    return done.result() if error is None else broken(job, error)

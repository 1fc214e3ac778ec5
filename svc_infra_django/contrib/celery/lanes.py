"""Threads that run what Celery's messages tell of, many short jobs between two commits."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from threading import Condition, Lock, Thread
from time import monotonic
from uuid import UUID

from ...jobs.holding import HELD_SECONDS, Prefetch, Running, logger
from ...jobs.models import Job
from ...jobs.publishing import put_off
from ...jobs.turn import Outcome

TURN_SECONDS = 0.05
"""So far apart are turns at least while messages come, and outcomes wait for the next no longer than this."""


class Lane:
    """A thread that claims the jobs of messages and runs them one after another.

    A thread of our own: Celery closes the database connections of its own before and after each message, and
    to open one takes longer than a short job. Whoever brings a message waits for its jobs, unless they are
    so short that those of the next messages may share a statement and a commit with them.
    """

    def __init__(
        self,
        take_turn: Callable[[Sequence[Outcome], Sequence[UUID]], list[Running]],
        run: Callable[[Running], Outcome | None],
    ) -> None:
        """`take_turn` writes outcomes and claims those of the ids that are ready; `run` runs one of them."""
        self._take_turn, self._run = take_turn, run
        self._told: list[UUID] = []
        self._waiting: deque[Running] = deque()
        self._outcomes: list[Outcome] = []
        self._held = 0
        self._prefetch = Prefetch()
        self._begun_at = self._turned_at = float("-inf")
        self._running: Running | None = None
        self._is_ending = self.is_left_behind = False
        # It guards all of these.
        self._lock = Lock()
        self._has_work, self._has_ended_one = Condition(self._lock), Condition(self._lock)
        self._thread = Thread(target=self._live, name="svc-jobs lane", daemon=True)
        self._thread.start()

    def take(self, ids: Sequence[UUID]) -> None:
        """Take over the jobs of a message, but not at the end. Returns when there is room for another."""
        with self._lock:
            if self._is_ending:
                return
            self._told += ids
            self._held += len(ids)
            if len(self._told) == len(ids) or self._is_full():
                self._has_work.notify()
            self._has_ended_one.wait_for(lambda: not self._is_full())

    def relieve(self) -> None:
        """Let others have what waits here behind longer jobs than we reckoned with."""
        now = monotonic()
        with self._lock:
            is_stuck = self._running is not None and now - self._begun_at > HELD_SECONDS
            is_behind = bool(self._waiting) and now - self._waiting[0].since > HELD_SECONDS
            if not (is_stuck or is_behind) or not (self._told or self._waiting or self._outcomes):
                return
            told, self._told = self._told, []
            self._give_back_what_waits()
            outcomes, self._outcomes = self._outcomes, []
            self._prefetch.was_wrong()
            self._let_go(len(told))
        if told:
            put_off(told)
        self._take_turn(outcomes, ())

    def leave_behind(self) -> Running | None:
        """The job here that ignores its timeout, if there is one. Its thread takes nothing any more."""
        with self._lock:
            if self._running is None or not self._running.has_overrun():
                return None
            self._is_ending = self.is_left_behind = True
            self._let_go(self._held)
            return self._running

    def end(self, *, seconds: float) -> None:
        """Run what was taken, and end; wait for it so long at most."""
        with self._lock:
            self._is_ending = True
            self._has_work.notify()
        self._thread.join(seconds)

    def let_go(self) -> None:
        """Let whoever brought a message go: its jobs are not ours any more."""
        with self._lock:
            self._let_go(self._held)

    def _live(self) -> None:
        while self._wait():
            try:
                self._turn(self._taken_over())
                while (running := self._next()) is not None:
                    self._end(running, self._run(running))
                    if monotonic() - self._turned_at > TURN_SECONDS:
                        break
            except BaseException as error:  # frontier: the lane outlives whatever a job leaves behind
                logger.error("a lane failed outside its jobs", exc_info=error)
                with self._lock:
                    self._running = None
                    self._let_go(self._held - len(self._told) - len(self._waiting))

    def _wait(self) -> bool:
        """Wait for something to do and, after a moment without a commit, for more of it; False at the end."""
        with self._lock:
            self._has_work.wait_for(lambda: self._told or self._waiting or self._outcomes or self._is_ending)
            pause = self._turned_at + TURN_SECONDS - monotonic()
            if pause > 0 and not self._waiting:
                self._has_work.wait_for(lambda: self._is_full() or self._is_ending, timeout=pause)
            return bool(self._told or self._waiting or self._outcomes)

    def _taken_over(self) -> list[UUID]:
        with self._lock:
            told, self._told = self._told, []
            return told

    def _turn(self, told: Sequence[UUID] = ()) -> None:
        with self._lock:
            outcomes, self._outcomes = self._outcomes, []
        taken = self._take_turn(outcomes, told)
        with self._lock:
            self._turned_at = monotonic()
            self._waiting.extend(sorted(taken, key=lambda running: running.job.crashes))
            self._let_go(len(told) - len(taken))

    def _next(self) -> Running | None:
        with self._lock:
            if not self._waiting:
                return None
            running = self._waiting.popleft()
            self._running, self._begun_at = running, monotonic()
            is_dangerous = running.job.crashes > 0
            if is_dangerous:
                self._give_back_what_waits()
        if is_dangerous:
            # It may kill this process: what else is here would count as its victim.
            self._turn()
        return running

    def _end(self, running: Running, outcome: Outcome | None) -> None:
        with self._lock:
            self._running = None
            if outcome is not None:
                self._prefetch.took(outcome.seconds)
                self._outcomes.append(outcome)
            self._let_go(1)

    def _give_back_what_waits(self) -> None:
        self._outcomes += [Outcome(running.job, Job.State.READY) for running in self._waiting]
        self._let_go(len(self._waiting))
        self._waiting.clear()

    def _let_go(self, count: int) -> None:
        self._held -= count
        if not self._is_full():
            self._has_ended_one.notify_all()

    def _is_full(self) -> bool:
        is_long = self._running is not None and monotonic() - self._begun_at > TURN_SECONDS
        return self._held > (0 if is_long else self._prefetch.size())

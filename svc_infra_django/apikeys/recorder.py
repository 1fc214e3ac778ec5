"""Counts in this process when and how often keys are used, and writes it down now and then.

A use costs no write. Every `usage_flush_seconds` one thread writes what came together: a statement
for each minute in which keys were last used, one for the hours, and an audit entry for each key that
was refused. What a process that is killed had not written yet is lost; one that ends writes it first.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from multiprocessing.util import Finalize
from threading import Event, Lock, Thread
from typing import Any
from uuid import UUID

from django.db import connection, connections, router, transaction
from django.db.models import Q

from ..observability.context import isolated
from ..observability.logging import get_logger
from ..observability.metrics import metrics
from .conf import settings
from .models import ApiKey, AuditEntry, UsageHour

BATCH = 200
MINUTE, HOUR = 60, 3600

logger = get_logger("svc_infra_django.apikeys")


@dataclass(slots=True)
class Refusals:
    """Why a key was refused, how often, between when, and from where the last time."""

    times: int = 0
    first_at: float = 0
    last_at: float = 0
    last_address: str = ""


@dataclass(slots=True)
class Notes:
    """What is not written yet, by the id of the key as text and the minute since 1970."""

    used: Counter[tuple[str, int]] = field(default_factory=Counter)
    refused: Counter[tuple[str, int]] = field(default_factory=Counter)
    refusals: dict[tuple[str, str], Refusals] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.used or self.refused)

    def add(self, other: Notes) -> None:
        """Take what `other` noted too."""
        self.used.update(other.used)
        self.refused.update(other.refused)
        for cause, found in other.refusals.items():
            ours = self.refusals.setdefault(cause, Refusals(first_at=found.first_at))
            ours.times += found.times
            ours.first_at = min(ours.first_at, found.first_at)
            if found.last_at >= ours.last_at:
                ours.last_at, ours.last_address = found.last_at, found.last_address


class Recorder:
    """The notes of this process and the thread that writes them down."""

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        # Also in a child after a fork: what its parent noted, the parent writes, and threads do not fork.
        self._lock = Lock()
        self._notes = Notes()
        self._thread: Thread | None = None
        self._stop = Event()
        self._database = ""

    def note_use(self, key: str, at: float) -> None:
        """The key was used."""
        with self._lock:
            self._notes.used[key, int(at // MINUTE)] += 1
        if self._thread is None:
            self._start()

    def note_refusal(self, key: str, at: float, *, reason: str, address: str = "") -> None:
        """The key was sent and refused."""
        metrics.increment("apikeys.refused", reason=reason)
        logger.info("api key refused", key_id=key, reason=reason, client=address)
        one = Notes(refused=Counter([(key, int(at // MINUTE))]))
        one.refusals[key, reason] = Refusals(1, at, at, address)
        with self._lock:
            self._notes.add(one)
        if self._thread is None:
            self._start()

    def flush(self) -> None:
        """Write down what was noted. If that fails it is noted still, and the error goes to the caller."""
        with self._lock:
            taken, self._notes = self._notes, Notes()
        if not taken or self._database not in ("", _database()):
            # A test's database is gone, and what was noted of it belongs into no other.
            return
        try:
            with transaction.atomic():
                write(taken)
        except BaseException:
            with self._lock:
                self._notes.add(taken)
            raise
        metrics.increment("apikeys.accepted", sum(taken.used.values()))

    def stop(self) -> None:
        """End the thread without writing; the next note starts another."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._forget()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._database = _database()
                self._thread = Thread(target=self._run, args=(self._stop,), name="apikeys-usage", daemon=True)
                self._thread.start()
                # Not `atexit`, which the forked workers of a server pass by.
                Finalize(None, self.finish, exitpriority=0)

    def _run(self, stop: Event) -> None:
        with isolated():
            while not stop.wait(settings.usage_flush_seconds):
                self._flush_safely()

    def _flush_safely(self) -> None:
        try:
            self.flush()
        except Exception as error:
            # Kept, and tried again: a database that is away must not end the counting.
            logger.warning("usage of api keys not written", error=type(error).__name__, exc_info=error)
        finally:
            connection.close()

    def finish(self) -> None:
        """At the end of the process."""
        if self._notes:
            self._flush_safely()


recorder = Recorder()
os.register_at_fork(after_in_child=recorder._forget)


def _database() -> str:
    return str(connections[router.db_for_write(UsageHour)].settings_dict["NAME"])


def write(notes: Notes) -> None:
    """Add `notes` to what the tables say."""
    _write_last_used(notes)
    _write_hours(notes)
    _write_refusals(notes.refusals)


def _write_last_used(notes: Notes) -> None:
    # To the minute: so that many keys share one statement, and a key is written once in a minute at most.
    by_minute: dict[int, list[str]] = {}
    for key, minute in dict(sorted(notes.used)).items():
        by_minute.setdefault(minute, []).append(key)
    for minute, keys in sorted(by_minute.items()):
        at = datetime.fromtimestamp(minute * MINUTE, UTC)
        earlier = Q(last_used_at=None) | Q(last_used_at__lt=at)
        for batch in _batches(sorted(keys)):
            ApiKey.objects.filter(earlier, pk__in=batch).update(last_used_at=at)


def _write_hours(notes: Notes) -> None:
    used, refused = _by_hour(notes.used), _by_hour(notes.refused)
    for batch in _batches(sorted(used.keys() | refused.keys())):
        UsageHour.objects.add(
            UsageHour(
                key_id=UUID(key),
                hour=datetime.fromtimestamp(hour * HOUR, UTC),
                used=used[key, hour],
                refused=refused[key, hour],
            )
            for key, hour in batch
        )


def _by_hour(times: dict[tuple[str, int], int]) -> Counter[tuple[str, int]]:
    hours: Counter[tuple[str, int]] = Counter()
    for (key, minute), number in times.items():
        hours[key, minute * MINUTE // HOUR] += number
    return hours


def _write_refusals(refusals: dict[tuple[str, str], Refusals]) -> None:
    ids = {key for key, _ in refusals}
    keys: dict[UUID, ApiKey] = {}
    for batch in _batches(sorted(ids)):
        keys.update(ApiKey.objects.defer("digest").in_bulk(batch))
    for (key, reason), found in sorted(refusals.items(), key=lambda item: item[1].last_at):
        if UUID(key) in keys:
            AuditEntry.objects.append(
                keys[UUID(key)],
                AuditEntry.Action.REFUSED,
                now=datetime.fromtimestamp(found.last_at, UTC),
                reason=reason,
                times=found.times,
                first_at=datetime.fromtimestamp(found.first_at, UTC).isoformat(),
                last_address=found.last_address,
            )


def _batches(items: Iterable[Any]) -> Iterator[list[Any]]:
    left = iter(items)
    while batch := list(islice(left, BATCH)):
        yield batch

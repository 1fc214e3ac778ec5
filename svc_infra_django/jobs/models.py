"""Jobs, the workers that run them, and the schedules that make them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from ..observability.redaction import REDACTED, redacted
from ..rows import TENANT_LENGTH, id_field
from .conf import settings as jobs_settings
from .cron import interval_of, last_crons, last_intervals, next_cron, next_interval
from .decorators import KEY_LENGTH, ONCE_KEY_LENGTH, argument_names, redacted_names
from .errors import BadSchedule
from .querysets import JobQuerySet, QueueQuerySet, ScheduleQuerySet, WorkerQuerySet

KEEP_RANGE = [MinValueValidator(0.0), MaxValueValidator(24 * 366 * 10)]
KEEP_HELP = "How long such jobs are kept; empty for what the settings say."


class Job(models.Model):
    """One piece of work. Each change of state is a guarded UPDATE; `epoch` fences off stale owners."""

    class State(models.IntegerChoices):
        READY = 0, "ready"
        RUNNING = 1, "running"
        SUCCEEDED = 2, "succeeded"
        FAILED = 3, "failed"
        CANCELLED = 4, "cancelled"
        SCHEDULED = 5, "scheduled"
        BLOCKED = 6, "blocked"

    class UniqueUntil(models.IntegerChoices):
        STARTED = 1, "started"
        FINISHED = 2, "finished"
        WINDOW = 3, "the end of a time"

    FINAL: ClassVar = (State.SUCCEEDED, State.FAILED, State.CANCELLED)
    WAITING: ClassVar = (State.READY, State.SCHEDULED, State.BLOCKED)

    id = id_field()
    # The shared columns of rows.py, but with partial indexes: most jobs belong to nobody, and a full index
    # would be written again at every change of state.
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+", db_index=False
    )
    tenant = models.CharField(max_length=TENANT_LENGTH, blank=True, default="")
    queue = models.CharField(max_length=64)
    task = models.CharField(max_length=255)
    args = models.JSONField(help_text='{"args": [...], "kwargs": {...}}')
    headers = models.JSONField(default=dict, help_text="The context of whoever enqueued the job.")
    backend = models.CharField(max_length=64, default="default", help_text="The alias in TASKS.")
    priority = models.SmallIntegerField(default=0)
    state = models.SmallIntegerField(choices=State.choices, default=State.READY)
    run_at = models.DateTimeField(null=True, help_text="When a scheduled job falls due.")
    created_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True, help_text="Start of the first attempt.")
    attempted_at = models.DateTimeField(null=True, help_text="Start of the last attempt.")
    finished_at = models.DateTimeField(null=True)
    attempt = models.PositiveSmallIntegerField(default=0, help_text="Attempts begun.")
    max_attempts = models.PositiveSmallIntegerField(default=5)
    crashes = models.PositiveSmallIntegerField(default=0, help_text="Attempts that took their worker along.")
    epoch = models.PositiveIntegerField(default=0, help_text="Raised at every change of hands.")
    # Not a foreign key: the row of a worker goes when the worker goes.
    worker_id = models.UUIDField(null=True)
    publish_at = models.DateTimeField(
        null=True, help_text="When a ready job of another engine's queue is to be published, again or at all."
    )
    publishes = models.PositiveSmallIntegerField(default=0, help_text="How often it was swept up.")
    unique_key = models.CharField(max_length=64, null=True)  # noqa: DJ001 - NULL is what lets go of the key
    unique_until = models.SmallIntegerField(choices=UniqueUntil.choices, null=True)
    unique_expires_at = models.DateTimeField(null=True)
    concurrency_key = models.CharField(max_length=KEY_LENGTH, null=True)  # noqa: DJ001 - NULL: no limit
    concurrency_limit = models.PositiveSmallIntegerField(null=True)
    rate_key = models.CharField(max_length=KEY_LENGTH, null=True)  # noqa: DJ001 - NULL: no limit
    rate_seconds = models.FloatField(null=True, help_text="Seconds between two starts.")
    rate_burst = models.PositiveSmallIntegerField(null=True)
    result = models.JSONField(null=True)
    progress = models.JSONField(null=True, help_text='{"n": 3, "total": 10, "note": "..."}')
    error = models.CharField(max_length=255, blank=True, default="", help_text="Path of the last exception.")
    traceback = models.TextField(blank=True, default="")

    objects = JobQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(state__in=range(7)), name="svc_jobs_job_state"),
            models.CheckConstraint(
                condition=Q(priority__gte=-100, priority__lte=100), name="svc_jobs_job_priority"
            ),
            models.CheckConstraint(
                condition=~Q(state=1) | Q(worker_id__isnull=False, attempted_at__isnull=False),
                name="svc_jobs_job_running_has_worker",
            ),
            models.CheckConstraint(
                condition=~Q(state__in=(2, 3, 4)) | Q(finished_at__isnull=False),
                name="svc_jobs_job_final_has_end",
            ),
            models.CheckConstraint(
                condition=~Q(state=5) | Q(run_at__isnull=False), name="svc_jobs_job_scheduled_has_time"
            ),
            models.CheckConstraint(
                condition=~Q(state=6) | Q(concurrency_key__isnull=False, concurrency_limit__gte=1),
                name="svc_jobs_job_blocked_has_limit",
            ),
            models.CheckConstraint(
                condition=Q(rate_key__isnull=True) | Q(rate_seconds__gt=0, rate_burst__gte=1),
                name="svc_jobs_job_rate",
            ),
            models.UniqueConstraint(
                fields=["unique_key"], condition=Q(unique_key__isnull=False), name="svc_jobs_job_unique_key"
            ),
        ]
        # Partial, so that finished rows cost nothing; the worker's SQL repeats the conditions literally.
        indexes = [
            models.Index(
                "queue", models.F("priority").desc(), "id", condition=Q(state=0), name="svc_jobs_job_ready"
            ),
            models.Index("run_at", condition=Q(state=5), name="svc_jobs_job_scheduled"),
            models.Index(
                "concurrency_key",
                models.F("priority").desc(),
                "id",
                condition=Q(state=6),
                name="svc_jobs_job_blocked",
            ),
            models.Index(
                "concurrency_key",
                condition=Q(state__lt=2, concurrency_key__isnull=False),
                name="svc_jobs_job_holding",
            ),
            models.Index(
                "rate_key",
                "run_at",
                condition=Q(state=5, rate_key__isnull=False),
                name="svc_jobs_job_in_line",
            ),
            models.Index("rate_key", condition=Q(state=0, rate_key__isnull=False), name="svc_jobs_job_rated"),
            models.Index("worker_id", condition=Q(state=1), name="svc_jobs_job_running"),
            models.Index(
                "publish_at", condition=Q(state=0, publish_at__isnull=False), name="svc_jobs_job_publish"
            ),
            models.Index("id", condition=Q(state=3), name="svc_jobs_job_failed"),
            models.Index("owner", condition=Q(owner__isnull=False), name="svc_jobs_job_owner"),
            models.Index("tenant", condition=~Q(tenant=""), name="svc_jobs_job_tenant"),
        ]

    def __str__(self) -> str:
        return f"{self.task} {self.pk}"

    @staticmethod
    def ready_again() -> dict[str, Any]:
        """What is written of a job that waits for a worker once more; another engine is to be told of it."""
        return {
            "state": Job.State.READY,
            "worker_id": None,
            "publish_at": Now() if jobs_settings.engines else None,
            "publishes": 0,
        }

    @property
    def is_final(self) -> bool:
        return self.state in self.FINAL

    def shown_arguments(self) -> dict[str, Any]:
        """The arguments for people to see: those that are named like secrets are redacted."""
        return _shown_arguments(self.task, self.args)

    @property
    def shown_progress(self) -> dict[str, Any] | None:
        """What the attempt that runs last said of its progress, not what an earlier one said."""
        is_of_now = self.progress and self.progress["attempt"] == self.attempt
        return self.progress if is_of_now and self.state == self.State.RUNNING else None

    @property
    def progress_percent(self) -> int | None:
        """How far the attempt that runs has come; None if it does not say."""
        found = self.shown_progress
        if not found or not found["total"]:
            return None
        return max(0, min(100, int(100 * found["n"] / found["total"])))

    def shown_result(self) -> Any:
        """The return value for people to see, redacted likewise."""
        return _without(_shown("", self.result), redacted_names(self.task))


class JobAttempt(models.Model):
    """An attempt that did not end well. Success writes none, so it costs one row a job and no more."""

    class Outcome(models.TextChoices):
        RETRIED = "retried"
        FAILED = "failed"
        DISCARDED = "discarded"
        CRASHED = "crashed"
        CANCELLED = "cancelled"

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="attempts")
    attempt = models.PositiveSmallIntegerField()
    worker_id = models.UUIDField(null=True)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField()
    outcome = models.CharField(max_length=16, choices=Outcome.choices)
    error = models.CharField(max_length=255, blank=True, default="")
    traceback = models.TextField(blank=True, default="")

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"attempt {self.attempt} of {self.job_id}: {self.outcome}"


class Pace(models.Model):
    """When the next job of a rate's key may start. One row for a key, locked by whoever starts one."""

    key = models.CharField(max_length=KEY_LENGTH, primary_key=True)
    free_at = models.DateTimeField(help_text="When the whole burst is free again.")
    line_at = models.DateTimeField(help_text="The end of the line of those that have to wait.")

    def __str__(self) -> str:
        return self.key


class Effect(models.Model):
    """Something that a job does once, whatever becomes of the job: `context.once(key)`."""

    id = id_field()
    task = models.CharField(max_length=255)
    key = models.CharField(max_length=ONCE_KEY_LENGTH)
    job_id = models.UUIDField(help_text="The job that did it.")
    done_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [models.UniqueConstraint(fields=["task", "key"], name="svc_jobs_effect_once")]

    def __str__(self) -> str:
        return f"{self.task}: {self.key}"


class Worker(models.Model):
    """A worker process that is alive, or was a lease ago."""

    id = id_field()
    name = models.CharField(max_length=255)
    host = models.CharField(max_length=255)
    pid = models.PositiveIntegerField()
    queues = models.JSONField(default=list, help_text="Empty for all.")
    concurrency = models.PositiveIntegerField()
    started_at = models.DateTimeField(db_default=Now())
    heartbeat_at = models.DateTimeField(db_default=Now())
    is_stopping = models.BooleanField(default=False)

    objects = WorkerQuerySet.as_manager()

    def __str__(self) -> str:
        return self.name


class Queue(models.Model):
    """A named line of jobs. A queue without a row is a queue that was never paused."""

    name = models.CharField(max_length=64, primary_key=True)
    paused_at = models.DateTimeField(null=True, blank=True)
    keep_succeeded_hours = models.FloatField(
        null=True, blank=True, validators=KEEP_RANGE, help_text=KEEP_HELP
    )
    keep_cancelled_hours = models.FloatField(
        null=True, blank=True, validators=KEEP_RANGE, help_text=KEEP_HELP
    )
    keep_failed_hours = models.FloatField(null=True, blank=True, validators=KEEP_RANGE, help_text=KEEP_HELP)

    objects = QueueQuerySet.as_manager()

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def is_paused(self) -> bool:
        return self.paused_at is not None


class Throughput(models.Model):
    """How many attempts of a queue ended in one minute."""

    minute = models.DateTimeField()
    queue = models.CharField(max_length=64)
    succeeded = models.PositiveIntegerField(default=0)
    failed = models.PositiveIntegerField(default=0)
    cancelled = models.PositiveIntegerField(default=0)
    retried = models.PositiveIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["minute", "queue"], name="svc_jobs_throughput_minute"),
        ]

    def __str__(self) -> str:
        return f"{self.queue} at {self.minute:%Y-%m-%d %H:%M}"


class Schedule(models.Model):
    """What makes a job again and again. `next_fire_at` moves in the transaction that inserts the job."""

    class Source(models.TextChoices):
        CODE = "code", "@periodic in the code"
        ADMIN = "admin", "written here"

    class CatchUp(models.TextChoices):
        SKIP = "skip", "drop them"
        ONCE = "once", "make up for all by one job"
        ALL = "all", "make a job for each"

    id = id_field()
    key = models.CharField(max_length=255, unique=True)
    task = models.CharField(max_length=255)
    args = models.JSONField(default=dict, blank=True, help_text='{"args": [...], "kwargs": {...}}')
    queue = models.CharField(max_length=64, blank=True, default="", help_text="Empty for the task's own.")
    cron = models.CharField(
        max_length=255, blank=True, default="", help_text="Five fields, as in crontab(5)."
    )
    every_seconds = models.FloatField(null=True, blank=True)
    tz = models.CharField("time zone", max_length=64, default="UTC")
    catch_up = models.CharField(
        max_length=4, choices=CatchUp.choices, default=CatchUp.ONCE, help_text="What becomes of missed times."
    )
    window_seconds = models.FloatField(
        null=True, blank=True, help_text="Times that are longer past are not made up for; empty for no end."
    )
    max_catch_up = models.PositiveSmallIntegerField(
        default=24, help_text="At most so many missed times at once, the latest."
    )
    enabled = models.BooleanField(default=True)
    source = models.CharField(max_length=8, choices=Source.choices, default=Source.ADMIN, editable=False)
    next_fire_at = models.DateTimeField(editable=False)
    last_fire_at = models.DateTimeField(null=True, editable=False)
    declared_at = models.DateTimeField(
        null=True, editable=False, help_text="When a worker last had this schedule in its code."
    )
    error = models.CharField(
        max_length=255, blank=True, default="", editable=False, help_text="Why it did not fire when due."
    )

    objects = ScheduleQuerySet.as_manager()

    class Meta:
        ordering = ["key"]
        constraints = [
            models.CheckConstraint(
                condition=Q(cron="", every_seconds__gt=0) | (~Q(cron="") & Q(every_seconds__isnull=True)),
                name="svc_jobs_schedule_cron_or_every",
            ),
            models.CheckConstraint(
                condition=Q(catch_up__in=("skip", "once", "all"), max_catch_up__gte=1),
                name="svc_jobs_schedule_catch_up",
            ),
        ]
        indexes = [models.Index("next_fire_at", condition=Q(enabled=True), name="svc_jobs_schedule_due")]

    def __str__(self) -> str:
        return self.key

    def following(self, *, last: datetime, now: datetime) -> datetime:
        """When to fire after `now`, having fired at `last`. Raises BadSchedule if never."""
        if self.cron:
            return next_cron(self.cron, zone=self.tz, after=now)
        return next_interval(interval_of(self.every_seconds or 0), last=last, now=now)

    def past(self, *, until: datetime, limit: int) -> list[datetime]:
        """Its last `limit` times from the one it waits for to `until`, the oldest first."""
        first = self.next_fire_at
        if first > until:
            return []
        if self.cron:
            return last_crons(self.cron, zone=self.tz, first=first, until=until, limit=limit)
        return last_intervals(interval_of(self.every_seconds or 0), first=first, until=until, limit=limit)

    def upcoming(self, count: int = 5) -> list[datetime]:
        """The next times, from the one it waits for; fewer if there are no more."""
        times = [self.next_fire_at] if self.enabled and self.next_fire_at else []
        while times and len(times) < count:
            try:
                times.append(self.following(last=times[-1], now=times[-1]))
            except BadSchedule:
                break
        return times

    def shown_arguments(self) -> dict[str, Any]:
        """The arguments for people to see, redacted as a job's are."""
        return _shown_arguments(self.task, self.args)

    def arguments(self) -> tuple[list[Any], dict[str, Any]]:
        """Positional and keyword arguments of the job."""
        return self.args.get("args", []), self.args.get("kwargs", {})


def _shown_arguments(task: str, arguments: dict[str, Any]) -> dict[str, Any]:
    args, kwargs = arguments.get("args", []), arguments.get("kwargs", {})
    named = zip(argument_names(task, len(args)), args, strict=True)
    hidden = redacted_names(task)
    return {
        "args": [_without({name: _shown(name, value)}, hidden)[name] for name, value in named],
        "kwargs": _without(_shown("", kwargs), hidden),
    }


def _without(value: Any, hidden: tuple[str, ...]) -> Any:
    """`value` without what stands under the names in `hidden`, however deep."""
    if not hidden or value is None:
        return value
    if "*" in hidden and not isinstance(value, dict):
        return REDACTED
    if isinstance(value, dict):
        return {
            name: REDACTED if "*" in hidden or name in hidden else _without(inner, hidden)
            for name, inner in value.items()
        }
    return [_without(inner, hidden) for inner in value] if isinstance(value, list) else value


def _shown(name: str, value: Any) -> Any:
    return redacted({name: value})[name]

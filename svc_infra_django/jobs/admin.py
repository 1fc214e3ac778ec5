"""Jobs, queues, schedules and workers for staff."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import NON_FIELD_ERRORS
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.http import urlencode
from django.utils.timesince import timesince

from ..admin import KeptJSONField, MachineRowAdmin, ReadableColumns
from ..errors import SvcInfraError, ValidationError
from . import throughput
from .charts import throughput_chart
from .conf import settings
from .cron import timezone_named
from .errors import BadSchedule
from .models import Job, JobAttempt, Queue, Schedule, Worker
from .payloads import plain
from .querysets import RATE_MINUTES
from .services import scheduling
from .services.operating import cancel, discard, duplicate, pause, resume, retry

if TYPE_CHECKING:
    TabularInline = admin.TabularInline[JobAttempt, Job]
    ModelForm = forms.ModelForm[Schedule]
    ScheduleAdminBase = admin.ModelAdmin[Schedule]
else:
    # Generic for the type checker only.
    TabularInline, ModelForm, ScheduleAdminBase = admin.TabularInline, forms.ModelForm, admin.ModelAdmin


REFUSALS_TOLD = 10


class AttemptInline(TabularInline):
    model = JobAttempt
    fields = ("attempt", "outcome", "started_at", "finished_at", "error", "shown_traceback")
    readonly_fields = fields
    extra = 0
    can_delete = False
    verbose_name_plural = "attempts that did not end well"

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @admin.display(description="traceback")
    def shown_traceback(self, attempt: JobAttempt) -> str:
        return _preformatted(attempt.traceback)


class QueueFilter(admin.SimpleListFilter):
    """By queue, from the table of queues: the distinct values of the jobs would be a scan."""

    title = "queue"
    parameter_name = "queue"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in Queue.objects.values_list("name", flat=True)[:100]]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Job]) -> QuerySet[Job]:
        return queryset.filter(queue=self.value()) if self.value() else queryset


@admin.register(Job)
class JobAdmin(MachineRowAdmin):
    list_display = (
        "id",
        "task",
        "queue",
        "shown_state",
        "shown_progress",
        "attempt",
        "created_at",
        "run_at",
        "finished_at",
        "error",
    )
    list_filter = ("state", QueueFilter)
    search_fields = ("id",)
    search_help_text = "The whole id of a job, or the name of a tenant."
    ordering = ("-id",)
    actions = ("retry_jobs", "cancel_jobs", "duplicate_jobs", "discard_jobs")
    inlines = (AttemptInline,)
    fields = (
        ("id", "task", "queue"),
        ("shown_state", "shown_progress"),
        ("attempt", "max_attempts", "crashes"),
        ("owner", "tenant", "priority"),
        ("created_at", "run_at", "started_at", "finished_at"),
        "shown_arguments",
        "shown_result",
        "headers",
        "error",
        "shown_traceback",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Job]:
        return super().get_queryset(request).select_related("owner")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Job], search_term: str
    ) -> tuple[QuerySet[Job], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        try:
            return queryset.filter(pk=UUID(term)), False
        except ValueError:
            return queryset.filter(tenant=term), False

    @admin.display(description="state", ordering="state")
    def shown_state(self, job: Job) -> str:
        return job.get_state_display()

    @admin.display(description="progress")
    def shown_progress(self, job: Job) -> str:
        found = job.shown_progress
        if found is None:
            return "-"
        percent, note = job.progress_percent, found["note"]
        if percent is None:
            return format_html("{} {}", f"{found['n']:g}", note)
        return format_html(
            '<progress max="100" value="{}" aria-label="progress">{}</progress> {} of {} {}',
            percent,
            f"{percent} %",
            f"{found['n']:g}",
            f"{found['total']:g}",
            note,
        )

    @admin.display(description="arguments")
    def shown_arguments(self, job: Job) -> str:
        return _preformatted(json.dumps(job.shown_arguments(), indent=2, ensure_ascii=False))

    @admin.display(description="result")
    def shown_result(self, job: Job) -> str:
        return _preformatted(json.dumps(job.shown_result(), indent=2, ensure_ascii=False))

    @admin.display(description="traceback")
    def shown_traceback(self, job: Job) -> str:
        return _preformatted(job.traceback)

    def has_act_permission(self, request: HttpRequest) -> bool:
        return self.may_act(request)

    @admin.action(description="Retry the failed or cancelled jobs", permissions=["act"])
    def retry_jobs(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        _act(self, request, _by_key(queryset), lambda job: retry(job.pk), "retried")

    @admin.action(description="Cancel the jobs that are not finished", permissions=["act"])
    def cancel_jobs(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        _act(self, request, _by_key(queryset), lambda job: cancel(job.pk), "cancelled")

    @admin.action(description="Make the jobs once more", permissions=["act"])
    def duplicate_jobs(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        _act(self, request, _by_key(queryset), lambda job: duplicate(job.pk), "duplicated")

    @admin.action(description="Discard the jobs that do not run", permissions=["discard"])
    def discard_jobs(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        _act(self, request, _by_key(queryset), lambda job: discard(job.pk), "discarded")

    def has_discard_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("svc_jobs.delete_job")


@admin.register(Queue)
class QueueAdmin(MachineRowAdmin):
    list_display = (
        "name",
        "is_running",
        "ready",
        "oldest",
        "running",
        "scheduled",
        "blocked",
        "failed",
        "rate",
        "paused_at",
    )
    fields = ("name", "paused_at", "keep_succeeded_hours", "keep_cancelled_hours", "keep_failed_hours")
    readonly_fields = ("name", "paused_at")
    actions = ("pause_queues", "resume_queues")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Queue]:
        return Queue.objects.with_depth()

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        rows = throughput.per_minute(now=timezone.now())
        chart = throughput_chart(throughput.bars(rows), title="Attempts that ended in the last hour")
        return super().changelist_view(request, {**(extra_context or {}), "chart": chart})

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        # How long its jobs are kept is for people to say.
        return self.may_act(request)

    def save_model(self, request: HttpRequest, obj: Queue, form: Any, change: bool) -> None:
        # Not the whole row: it may have been paused while the form was open.
        obj.save(update_fields=[name for name in form.fields if name.startswith("keep_")])

    @admin.display(boolean=True, description="running")
    def is_running(self, queue: Queue) -> bool:
        return not queue.is_paused

    @admin.display(description="ready jobs")
    def ready(self, queue: Any) -> int:
        return int(queue.ready)

    @admin.display(description="waits for")
    def oldest(self, queue: Any) -> str:
        since = queue.oldest_ready_at
        return timesince(since) if since and since < timezone.now() else "-"

    @admin.display(description="running jobs")
    def running(self, queue: Any) -> int:
        return int(queue.running)

    @admin.display(description="scheduled")
    def scheduled(self, queue: Any) -> int:
        return int(queue.scheduled)

    @admin.display(description="blocked")
    def blocked(self, queue: Any) -> int:
        return int(queue.blocked)

    @admin.display(description="failed")
    def failed(self, queue: Any) -> str:
        if not queue.failed:
            return "0"
        query = urlencode({"queue": queue.name, "state__exact": Job.State.FAILED.value})
        return format_html(
            '<a href="{}?{}">{}</a>', reverse("admin:svc_jobs_job_changelist"), query, queue.failed
        )

    @admin.display(description="a minute")
    def rate(self, queue: Any) -> str:
        return f"{queue.ended / RATE_MINUTES:.1f}"

    def has_act_permission(self, request: HttpRequest) -> bool:
        return self.may_act(request)

    @admin.action(description="Pause", permissions=["act"])
    def pause_queues(self, request: HttpRequest, queryset: QuerySet[Queue]) -> None:
        _act(self, request, queryset, lambda queue: pause(queue.name), "paused")

    @admin.action(description="Resume", permissions=["act"])
    def resume_queues(self, request: HttpRequest, queryset: QuerySet[Queue]) -> None:
        _act(self, request, queryset, lambda queue: resume(queue.name), "resumed")


@admin.register(Worker)
class WorkerAdmin(MachineRowAdmin):
    list_display = (
        "name",
        "is_alive",
        "shown_queues",
        "concurrency",
        "busy",
        "started_at",
        "heartbeat_at",
        "is_stopping",
    )
    ordering = ("-id",)

    @admin.display(boolean=True, description="alive")
    def is_alive(self, worker: Worker) -> bool:
        return worker.heartbeat_at > timezone.now() - timedelta(seconds=settings.lease_seconds)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Worker]:
        return Worker.objects.with_busy()

    @admin.display(description="running jobs")
    def busy(self, worker: Any) -> int:
        return int(worker.busy)

    @admin.display(description="queues")
    def shown_queues(self, worker: Worker) -> str:
        return ", ".join(worker.queues) or "all"


class ArgumentsField(KeptJSONField):
    """Arguments as jobs may have them."""

    def kept(self, value: Any) -> Any:
        return plain(value, limit=settings.max_argument_bytes)


class ScheduleForm(ModelForm):
    """Refuses what could never fire."""

    class Meta:
        field_classes: ClassVar = {"args": ArgumentsField}

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if not self.errors:
            written = self.instance
            for name in self.fields:
                setattr(written, name, cleaned.get(name))
            written.args = written.args or {}
            try:
                scheduling.check_schedule(written, now=timezone.now())
            except ValidationError as error:
                for problem in error.errors:
                    field = problem.pointer.rpartition("/")[2]
                    self.add_error(field if field in self.fields else NON_FIELD_ERRORS, problem.message)
        return cleaned


@admin.register(Schedule)
class ScheduleAdmin(ReadableColumns, ScheduleAdminBase):
    form = ScheduleForm
    list_display = ("key", "times", "enabled", "next_fire_at", "last_fire_at", "error", "source")
    list_filter = ("enabled", "source")
    search_fields = ("key",)
    show_full_result_count = False
    fields = (
        "key",
        "task",
        "args",
        "queue",
        "cron",
        "every_seconds",
        "tz",
        ("catch_up", "window_seconds", "max_catch_up"),
        "enabled",
        "source",
        "shown_upcoming",
        "last_fire_at",
        "declared_at",
        "error",
    )
    readonly_fields = ("source", "shown_upcoming", "last_fire_at", "declared_at", "error")
    actions = ("enable", "disable", "fire")

    def get_fields(self, request: HttpRequest, obj: Schedule | None = None) -> list[Any]:
        is_shown = obj is not None and not self.has_change_permission(request, obj)
        # To those who may only look, the arguments are shown as those of jobs are.
        return ["shown_arguments" if is_shown and name == "args" else name for name in self.fields]

    @admin.display(description="arguments")
    def shown_arguments(self, schedule: Schedule) -> str:
        return _preformatted(json.dumps(schedule.shown_arguments(), indent=2, ensure_ascii=False))

    def get_readonly_fields(self, request: HttpRequest, obj: Schedule | None = None) -> tuple[str, ...]:
        of_code = obj is not None and obj.source == Schedule.Source.CODE
        return ("key", "task", *self.readonly_fields) if of_code else self.readonly_fields

    def has_delete_permission(self, request: HttpRequest, obj: Schedule | None = None) -> bool:
        # A worker that starts would write it again; disable it instead.
        is_written_here = obj is None or obj.source == Schedule.Source.ADMIN
        return is_written_here and super().has_delete_permission(request, obj)

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        # Deleting in bulk would not ask about each.
        actions = super().get_actions(request)
        actions.pop("delete_selected", None)
        return actions

    def save_model(self, request: HttpRequest, obj: Schedule, form: Any, change: bool) -> None:
        scheduling.write_schedule(obj, now=timezone.now())

    @admin.display(description="times")
    def times(self, schedule: Schedule) -> str:
        if schedule.cron:
            return f"{schedule.cron} ({schedule.tz})"
        return f"every {timedelta(seconds=schedule.every_seconds or 0)}"

    @admin.display(description="next runs")
    def shown_upcoming(self, schedule: Schedule) -> str:
        try:
            return format_html_join("", "{}<br>", [[at] for at in _both_clocks(schedule)]) or "-"
        except BadSchedule:
            return "-"

    @admin.action(description="Enable", permissions=["change"])
    def enable(self, request: HttpRequest, queryset: QuerySet[Schedule]) -> None:
        now = timezone.now()
        _act(self, request, queryset, lambda row: scheduling.set_enabled(row, True, now=now), "enabled")

    @admin.action(description="Disable", permissions=["change"])
    def disable(self, request: HttpRequest, queryset: QuerySet[Schedule]) -> None:
        now = timezone.now()
        _act(self, request, queryset, lambda row: scheduling.set_enabled(row, False, now=now), "disabled")

    @admin.action(description="Fire now", permissions=["change"])
    def fire(self, request: HttpRequest, queryset: QuerySet[Schedule]) -> None:
        now = timezone.now()
        _act(self, request, queryset, lambda row: scheduling.fire_now(row, now=now), "fired")


def _both_clocks(schedule: Schedule) -> Iterator[str]:
    """Its next times by its own clock, and by that of the one who looks where the two differ."""
    for at in schedule.upcoming():
        own = at.astimezone(timezone_named(schedule.tz))
        here = timezone.localtime(at)
        text = f"{own:%a %Y-%m-%d %H:%M:%S} {own.tzname()}"
        differs = own.utcoffset() != here.utcoffset()
        yield f"{text} = {here:%Y-%m-%d %H:%M:%S} {here.tzname()}" if differs else text


def _act(
    page: admin.ModelAdmin[Any],
    request: HttpRequest,
    rows: Iterable[Any],
    act: Callable[[Any], Any],
    done: str,
) -> None:
    """Do it to each row, and keep who did; tell how many it was done to, and why not to the others."""
    count, refusals = 0, 0
    for row in rows:
        try:
            act(row)
        except SvcInfraError as error:
            refusals += 1
            if refusals <= REFUSALS_TOLD:
                page.message_user(request, f"{row}: {error}", messages.WARNING)
        else:
            count += 1
            page.log_change(request, row, f"{done.capitalize()}.")
    if refusals > REFUSALS_TOLD:
        page.message_user(request, f"{refusals - REFUSALS_TOLD} more were refused.", messages.WARNING)
    page.message_user(request, f"{count} {done}.", messages.SUCCESS if count else messages.INFO)


def _by_key(jobs: QuerySet[Job]) -> Iterator[Job]:
    """The chosen jobs without their arguments and tracebacks: all of a long list may have been chosen."""
    yield from list(jobs.select_related(None).order_by("pk").only("pk", "task"))


def _preformatted(text: str) -> str:
    return format_html("<pre>{}</pre>", text) if text else "-"

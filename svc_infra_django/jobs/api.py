"""Jobs for operators: look, retry, cancel, pause."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any
from uuid import UUID

from django.utils import timezone
from ninja import Query, Router, Status

from ..api import ApiRequest, Page, PageQuery, paginated, requires
from .conf import settings
from .database import database
from .errors import JobNotFound
from .models import Job, Queue, Schedule, Worker
from .schemas import (
    JobDetail,
    JobOut,
    MinuteOut,
    QueueChange,
    QueueOut,
    Retried,
    ScheduleChange,
    ScheduleDetail,
    ScheduleIn,
    ScheduleOut,
    StateName,
    WhichFailed,
    WorkerOut,
)
from .services import scheduling
from .services.operating import (
    cancel,
    discard,
    duplicate,
    pause,
    resume,
    retry,
    retry_failed,
    set_retention,
)
from .throughput import per_minute

router = Router(tags=["jobs"])

STATES = {state.label: state for state in Job.State}


@router.get("", response=Page[JobOut])
@requires("svc_jobs.view_job", everywhere=True)
def list_jobs(
    request: ApiRequest,
    page: Query[PageQuery],
    state: StateName | None = None,
    queue: str | None = None,
    task: str | None = None,
) -> dict[str, Any]:
    """All jobs, the newest first."""
    wanted: dict[str, Any] = {"queue": queue, "task": task, "state": STATES[state] if state else None}
    jobs = Job.objects.filter(**{name: value for name, value in wanted.items() if value is not None})
    return paginated(jobs.defer("traceback", "result"), page, order=("-id",))


@router.post("/retry-failed", response=Retried)
@requires("svc_jobs.change_job", everywhere=True)
def retry_failed_jobs(request: ApiRequest, body: WhichFailed) -> dict[str, int]:
    """Run the failed jobs of a queue or of a task again, up to a thousand, the oldest first."""
    retried, refused = retry_failed(queue=body.queue, task=body.task, limit=body.limit)
    return {"retried": retried, "refused": refused}


@router.get("/queues", response=Page[QueueOut])
@requires("svc_jobs.view_queue", everywhere=True)
def list_queues(request: ApiRequest, page: Query[PageQuery]) -> dict[str, Any]:
    """The queues that workers serve, and how full they are."""
    return paginated(Queue.objects.with_depth(), page, order=("name",))


@router.post("/queues/{name}/pause", response=QueueOut)
@requires("svc_jobs.change_queue", everywhere=True)
def pause_queue(request: ApiRequest, name: str) -> Queue:
    """Start no more jobs of the queue; those that run go on."""
    return _with_depth(pause(name))


@router.post("/queues/{name}/resume", response=QueueOut)
@requires("svc_jobs.change_queue", everywhere=True)
def resume_queue(request: ApiRequest, name: str) -> Queue:
    """Start jobs of the queue again."""
    return _with_depth(resume(name))


@router.patch("/queues/{name}", response=QueueOut)
@requires("svc_jobs.change_queue", everywhere=True)
def change_queue(request: ApiRequest, name: str, body: QueueChange) -> Queue:
    """Say how long jobs of the queue are kept."""
    return _with_depth(set_retention(name, **body.model_dump(exclude_unset=True)))


def _with_depth(queue: Queue) -> Queue:
    # From where it was written: a replica may not have it yet.
    return Queue.objects.using(database()).with_depth().get(pk=queue.pk)


@router.get("/throughput", response=list[MinuteOut])
@requires("svc_jobs.view_queue", everywhere=True)
def list_throughput(
    request: ApiRequest,
    minutes: Annotated[int, Query(ge=1, le=1440)] = 60,
    queue: Annotated[str, Query(max_length=64)] = "",
) -> list[dict[str, Any]]:
    """How many attempts ended in each of the last minutes, the empty ones too, the oldest first."""
    return per_minute(now=timezone.now(), minutes=minutes, queue=queue)


@router.get("/workers", response=Page[WorkerOut])
@requires("svc_jobs.view_worker", everywhere=True)
def list_workers(request: ApiRequest, page: Query[PageQuery]) -> dict[str, Any]:
    """The worker processes that were heard of within their lease, and how busy they are."""
    alive = Worker.objects.alive(lease=timedelta(seconds=settings.lease_seconds))
    return paginated(alive.with_busy(), page, order=("-id",))


@router.get("/schedules", response=Page[ScheduleOut])
@requires("svc_jobs.view_schedule", everywhere=True)
def list_schedules(request: ApiRequest, page: Query[PageQuery]) -> dict[str, Any]:
    """What runs by itself, and when it will next."""
    return paginated(Schedule.objects.all(), page, order=("key",))


@router.post("/schedules", response={201: ScheduleDetail})
@requires("svc_jobs.add_schedule", everywhere=True)
def add_schedule(request: ApiRequest, body: ScheduleIn) -> Any:
    """Run a task by itself from now on."""
    made = Schedule(**body.model_dump())
    scheduling.write_schedule(made, now=timezone.now())
    return Status(201, made)


@router.get("/schedules/{uuid:schedule_id}", response=ScheduleDetail)
@requires("svc_jobs.view_schedule", everywhere=True)
def get_schedule(request: ApiRequest, schedule_id: UUID) -> Schedule:
    """One schedule with its next times."""
    return scheduling.schedule_at(schedule_id)


@router.patch("/schedules/{uuid:schedule_id}", response=ScheduleDetail)
@requires("svc_jobs.change_schedule", everywhere=True)
def change_schedule(request: ApiRequest, schedule_id: UUID, body: ScheduleChange) -> Schedule:
    """Change a schedule. One of the code belongs to its editor from then on."""
    schedule = scheduling.schedule_at(schedule_id)
    scheduling.change_schedule(schedule, now=timezone.now(), **body.model_dump(exclude_unset=True))
    return schedule


@router.delete("/schedules/{uuid:schedule_id}", response={204: None})
@requires("svc_jobs.delete_schedule", everywhere=True)
def delete_schedule(request: ApiRequest, schedule_id: UUID) -> Any:
    """Delete a schedule that is not as the code has it."""
    scheduling.remove_schedule(scheduling.schedule_at(schedule_id))
    return Status(204, None)


@router.post("/schedules/{uuid:schedule_id}/fire", response={201: JobOut})
@requires("svc_jobs.change_schedule", everywhere=True)
def fire_schedule(request: ApiRequest, schedule_id: UUID) -> Any:
    """Make the schedule's job at once, beside its times."""
    result = scheduling.fire_now(scheduling.schedule_at(schedule_id), now=timezone.now())
    return Status(201, Job.objects.using(database()).get(pk=result.id))


@router.get("/{uuid:job_id}", response=JobDetail)
@requires("svc_jobs.view_job", everywhere=True)
def get_job(request: ApiRequest, job_id: UUID) -> Job:
    """One job with its traceback and its attempts."""
    job = Job.objects.prefetch_related("attempts").filter(pk=job_id).first()
    if job is None:
        raise JobNotFound("Job", job_id)
    return job


@router.post("/{uuid:job_id}/retry", response=JobOut)
@requires("svc_jobs.change_job", everywhere=True)
def retry_job(request: ApiRequest, job_id: UUID) -> Job:
    """Run a failed or cancelled job again."""
    return retry(job_id)


@router.post("/{uuid:job_id}/cancel", response=JobOut)
@requires("svc_jobs.change_job", everywhere=True)
def cancel_job(request: ApiRequest, job_id: UUID) -> Job:
    """End a job that is not finished."""
    return cancel(job_id)


@router.post("/{uuid:job_id}/duplicate", response={201: JobOut})
@requires("svc_jobs.add_job", everywhere=True)
def duplicate_job(request: ApiRequest, job_id: UUID) -> Any:
    """Make another job of the same task and arguments."""
    return Status(201, duplicate(job_id))


@router.delete("/{uuid:job_id}", response={204: None})
@requires("svc_jobs.delete_job", everywhere=True)
def discard_job(request: ApiRequest, job_id: UUID) -> Any:
    """Delete a job that does not run."""
    discard(job_id)
    return Status(204, None)

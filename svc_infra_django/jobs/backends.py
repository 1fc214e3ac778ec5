"""The database engine behind Django's TASKS setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from .compat import AnyResult, AnyTask, BaseTaskBackend, TaskResultDoesNotExist, task_enqueued
from .database import database
from .decorators import JobTask, task_at
from .models import Job
from .runner import result_of
from .services.enqueueing import enqueue


class DatabaseBackend(BaseTaskBackend):
    """Jobs as rows: durable once the caller's transaction commits, run by `manage.py run_worker`.

    Without QUEUES in its TASKS entry, the queues are those that tasks declare.
    """

    task_class = JobTask
    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        super().__init__(alias, params)
        if "QUEUES" not in params:
            self.queues = set()

    def enqueue(self, task: AnyTask, args: Sequence[Any], kwargs: Mapping[str, Any]) -> AnyResult:
        """Write the job in the caller's transaction. Raises BadArguments, ArgumentsTooLarge, UnknownQueue."""
        self.validate_task(task)
        result = result_of(enqueue(task, args, kwargs), task)
        task_enqueued.send(type(self), task_result=result)
        return result

    def get_result(self, result_id: str) -> AnyResult:
        """The job of this id as it is now. Raises TaskResultDoesNotExist; UnknownTask if its task is gone."""
        try:
            job = Job.objects.using(database()).get(pk=UUID(str(result_id)), backend=self.alias)
        except (Job.DoesNotExist, ValueError):
            raise TaskResultDoesNotExist(result_id) from None
        return result_of(job, task_at(job.task))

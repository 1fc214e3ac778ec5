"""What may be refused about jobs."""

from __future__ import annotations

from ..errors import ConfigurationError, ConflictError, NotFoundError, SvcInfraError, ValidationError
from .compat import InvalidTask


class BadTask(ConfigurationError, InvalidTask):
    """This function cannot be a task."""

    code = "jobs.bad_task"


class UnknownQueue(ConfigurationError, InvalidTask):
    """No task declares this queue and TASKS does not list it."""

    code = "jobs.unknown_queue"


class UnknownTask(ConfigurationError, InvalidTask):
    """There is no task of this name."""

    code = "jobs.unknown_task"


class BadArguments(SvcInfraError, TypeError):
    """These arguments do not fit the task, or cannot be written as JSON."""

    code = "jobs.bad_arguments"


class ArgumentsTooLarge(SvcInfraError, ValueError):
    """The arguments are larger than max_argument_bytes; store the data and pass its key."""

    code = "jobs.arguments_too_large"


class BadResult(SvcInfraError, TypeError):
    """The task returned what cannot be written as JSON, or is larger than max_result_bytes."""

    code = "jobs.bad_result"


class JobTimeout(SvcInfraError, TimeoutError):
    """The job ran longer than its timeout."""

    code = "jobs.timeout"


class JobCrashed(SvcInfraError):
    """The worker died under the job."""

    code = "jobs.crashed"


class JobNotFound(NotFoundError):
    """There is no such job."""

    code = "jobs.not_found"


class QueueNotFound(NotFoundError):
    """There is no such queue."""

    code = "jobs.queue_not_found"


class ScheduleNotFound(NotFoundError):
    """There is no such schedule."""

    code = "jobs.schedule_not_found"


class ScheduleOfTheCode(ConflictError):
    """This schedule is written in the code: a worker that starts would write it again. Disable it instead."""

    code = "jobs.schedule_of_the_code"


class ScheduleNotFireable(ConflictError):
    """No job can be made of this schedule as it stands."""

    code = "jobs.schedule_not_fireable"


class JobNotRetryable(ConflictError):
    """Only a job that failed or was cancelled can be retried."""

    code = "jobs.not_retryable"


class JobNotCancellable(ConflictError):
    """This job is finished already."""

    code = "jobs.not_cancellable"


class JobNotDiscardable(ConflictError):
    """This job is running: cancel it first."""

    code = "jobs.not_discardable"


class BadSchedule(ValidationError):
    """This schedule can never fire as it is written."""

    code = "jobs.bad_schedule"

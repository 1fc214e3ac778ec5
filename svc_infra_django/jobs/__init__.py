"""Work for later: durable jobs in the project's own database, behind Django's Tasks interface."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._exports import lazy

if TYPE_CHECKING:
    from .decorators import TaskContext as TaskContext
    from .decorators import Unique as Unique
    from .decorators import periodic as periodic
    from .decorators import task as task
    from .retries import exponential as exponential
    from .services.enqueueing import aenqueue_many as aenqueue_many
    from .services.enqueueing import enqueue_many as enqueue_many
    from .worker import WorkerService as WorkerService

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "TaskContext": ".decorators",
        "Unique": ".decorators",
        "WorkerService": ".worker",
        "aenqueue_many": ".services.enqueueing",
        "enqueue_many": ".services.enqueueing",
        "exponential": ".retries",
        "periodic": ".decorators",
        "task": ".decorators",
    },
)

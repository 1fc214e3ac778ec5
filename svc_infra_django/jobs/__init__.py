"""Work for later: durable jobs in the project's own database, behind Django's Tasks interface."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._exports import lazy

if TYPE_CHECKING:
    from .decorators import Limit as Limit
    from .decorators import Rate as Rate
    from .decorators import TaskContext as TaskContext
    from .decorators import Unique as Unique
    from .decorators import periodic as periodic
    from .decorators import task as task
    from .retries import exponential as exponential
    from .services.enqueueing import aenqueue_many as aenqueue_many
    from .services.enqueueing import enqueue_many as enqueue_many
    from .services.operating import acancel as acancel
    from .services.operating import apause as apause
    from .services.operating import aresume as aresume
    from .services.operating import aretry as aretry
    from .services.operating import cancel as cancel
    from .services.operating import pause as pause
    from .services.operating import resume as resume
    from .services.operating import retry as retry
    from .worker import WorkerService as WorkerService

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "Limit": ".decorators",
        "Rate": ".decorators",
        "TaskContext": ".decorators",
        "Unique": ".decorators",
        "WorkerService": ".worker",
        "acancel": ".services.operating",
        "aenqueue_many": ".services.enqueueing",
        "apause": ".services.operating",
        "aresume": ".services.operating",
        "aretry": ".services.operating",
        "cancel": ".services.operating",
        "enqueue_many": ".services.enqueueing",
        "exponential": ".retries",
        "pause": ".services.operating",
        "periodic": ".decorators",
        "resume": ".services.operating",
        "retry": ".services.operating",
        "task": ".decorators",
    },
)

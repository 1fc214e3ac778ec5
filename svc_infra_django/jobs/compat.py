"""Django's Tasks interface: `django.tasks` from Django 6.0, its backport `django_tasks` before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import django

if TYPE_CHECKING or django.VERSION >= (6, 0):
    from django.tasks import (
        DEFAULT_TASK_BACKEND_ALIAS,
        DEFAULT_TASK_QUEUE_NAME,
        TaskResult,
        TaskResultStatus,
        task_backends,
    )
    from django.tasks import signals as task_signals
    from django.tasks.backends.base import BaseTaskBackend
    from django.tasks.base import DEFAULT_TASK_PRIORITY, TASK_MAX_PRIORITY, TASK_MIN_PRIORITY, Task, TaskError
    from django.tasks.base import TaskContext as BaseTaskContext
    from django.tasks.exceptions import InvalidTask, TaskResultDoesNotExist
    from django.tasks.signals import task_enqueued, task_finished, task_started
    from django.utils.json import normalize_json
else:
    from django_tasks import (
        DEFAULT_TASK_BACKEND_ALIAS,
        DEFAULT_TASK_QUEUE_NAME,
        TaskResult,
        TaskResultStatus,
        task_backends,
    )
    from django_tasks import signals as task_signals
    from django_tasks.backends.base import BaseTaskBackend
    from django_tasks.base import DEFAULT_TASK_PRIORITY, TASK_MAX_PRIORITY, TASK_MIN_PRIORITY, Task, TaskError
    from django_tasks.base import TaskContext as BaseTaskContext
    from django_tasks.exceptions import InvalidTaskError as InvalidTask
    from django_tasks.exceptions import TaskResultDoesNotExist
    from django_tasks.signals import task_enqueued, task_finished, task_started
    from django_tasks.utils import normalize_json

if TYPE_CHECKING:
    AnyTask: TypeAlias = Task[Any, Any]
    AnyResult: TypeAlias = TaskResult[Any, Any]
    AnyContext: TypeAlias = BaseTaskContext[Any, Any]
else:
    # Only the stubs and the backport know type parameters.
    AnyTask, AnyResult, AnyContext = Task, TaskResult, BaseTaskContext

tasks_logger = task_signals.logger
"""Where Django writes what becomes of tasks."""

TASK_LOGS = frozenset({id(task_signals.log_task_started), id(task_signals.log_task_finished)})
"""How the signals know the receivers that do so."""

__all__ = [
    "DEFAULT_TASK_BACKEND_ALIAS",
    "DEFAULT_TASK_PRIORITY",
    "DEFAULT_TASK_QUEUE_NAME",
    "TASK_LOGS",
    "TASK_MAX_PRIORITY",
    "TASK_MIN_PRIORITY",
    "AnyContext",
    "AnyResult",
    "AnyTask",
    "BaseTaskBackend",
    "BaseTaskContext",
    "InvalidTask",
    "Task",
    "TaskError",
    "TaskResult",
    "TaskResultDoesNotExist",
    "TaskResultStatus",
    "normalize_json",
    "path_of",
    "task_backends",
    "task_enqueued",
    "task_finished",
    "task_started",
    "tasks_logger",
]


def path_of(thing: Any) -> str:
    """The dotted path of a function or class."""
    return f"{thing.__module__}.{thing.__qualname__}"

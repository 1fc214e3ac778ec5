"""The request id and the trace travel in the headers of Celery's messages.

Plain `@shared_task` functions need no change: what is bound where a task is sent is bound again
where it runs, so every log line of the task has the id of the request that it goes back to.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from celery import signals

from ...observability.context import carried, carrying, isolated, new_trace

HEADER = "svc_context"

_running: dict[str, ExitStack] = {}


def propagate_context() -> None:
    """Connect the signals. Call it once in the module that makes the Celery app; again does no harm."""
    signals.before_task_publish.connect(_pack, weak=False, dispatch_uid=f"{__name__}.pack")
    signals.task_prerun.connect(_bind, weak=False, dispatch_uid=f"{__name__}.bind")
    signals.task_postrun.connect(_release, weak=False, dispatch_uid=f"{__name__}.release")


def _pack(headers: dict[str, Any], **_: Any) -> None:
    context = carried()
    if context:
        headers[HEADER] = context


def _bind(task_id: str, task: Any, **_: Any) -> None:
    stack = _running[task_id] = ExitStack()
    if task.request.is_eager:
        # Called as a function where it was sent: the context is there already.
        context: dict[str, str] = {}
    else:
        # A worker's thread or process goes on to the next task, so each starts from nothing.
        stack.enter_context(isolated(**new_trace()))
        context = task.request.get(HEADER) or {}
    stack.enter_context(carrying(context, task=task.name, task_id=task_id))


def _release(task_id: str, **_: Any) -> None:
    stack = _running.pop(task_id, None)
    if stack is not None:
        stack.close()

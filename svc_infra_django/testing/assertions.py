"""What tests say often, with messages that show what came instead."""

from __future__ import annotations

import json
from inspect import BoundArguments, signature
from typing import TYPE_CHECKING, Any

from django.http import HttpResponse

if TYPE_CHECKING:
    from ..jobs.decorators import JobTask
    from ..jobs.models import Job


def enqueued_jobs(task: JobTask, *args: Any, **kwargs: Any) -> list[Job]:
    """The jobs of `task` in whatever state, the oldest first; with arguments, those of these arguments only.

    How they were given, by position, by name or by default, makes no difference.
    """
    from ..jobs.compat import normalize_json
    from ..jobs.models import Job

    jobs = list(Job.objects.filter(task=task.module_path).order_by("pk"))
    if not args and not kwargs:
        return jobs
    # As they are stored: a tuple is a list there.
    wanted = _bound(task, normalize_json(args), normalize_json(kwargs))
    return [job for job in jobs if _bound(task, job.args["args"], job.args["kwargs"]) == wanted]


def assert_enqueued(task: JobTask, *args: Any, **kwargs: Any) -> Job:
    """Exactly one job of `task` was enqueued, of these arguments if there are any; returns it.

    Look at its `queue`, `run_at`, `priority`, `owner` or `tenant` for the rest.
    """
    found = enqueued_jobs(task, *args, **kwargs)
    others = [job.args for job in enqueued_jobs(task)]
    shown = ", ".join(f"*{each['args']} **{each['kwargs']}" for each in others[:10]) or "none"
    assert len(found) == 1, (
        f"expected one such job of {task.module_path}, got {len(found)}; enqueued: {shown}"
    )
    return found[0]


def assert_not_enqueued(task: JobTask, *args: Any, **kwargs: Any) -> None:
    """No job of `task` was enqueued, or none of these arguments if there are any."""
    found = enqueued_jobs(task, *args, **kwargs)
    assert not found, f"expected no such job of {task.module_path}, got {len(found)}"


def _bound(task: JobTask, args: Any, kwargs: Any) -> dict[str, Any]:
    context = [None] if task.takes_context else []
    bound: BoundArguments = signature(task.func).bind(*context, *args, **kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)


def assert_problem(
    response: HttpResponse,
    status: int,
    *,
    code: str | None = None,
    pointer: str | None = None,
    **members: object,
) -> dict[str, Any]:
    """The response is a problem (RFC 9457) of this status; returns its body.

    `code` is the problem's code, `pointer` the JSON Pointer of one of its fields (RFC 6901), and
    `members` are further members of the body, such as `permission="orders.add_order"`.
    """
    shown = response.content.decode(errors="replace")[:1000]
    assert response.status_code == status, f"expected {status}, got {response.status_code}: {shown}"
    kind = response.headers.get("Content-Type", "")
    assert kind.startswith("application/problem+json"), f"not a problem but {kind or 'nothing'}: {shown}"
    body: dict[str, Any] = json.loads(response.content)
    assert body["status"] == status, f"the body says another status: {shown}"
    if code is not None:
        assert body.get("code") == code, f"expected code {code!r}: {shown}"
    if pointer is not None:
        pointers = [error["pointer"] for error in body.get("errors", ())]
        assert pointer in pointers, f"no field {pointer!r} among {pointers}"
    for name, value in members.items():
        assert body.get(name) == value, f"expected {name}={value!r}: {shown}"
    return body

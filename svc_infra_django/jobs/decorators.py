"""`@task` and `@periodic`: a function becomes a job by declaration."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from inspect import Parameter, iscoroutinefunction, signature
from math import isfinite
from typing import Any, Literal, TypeAlias, TypeVar, get_args, overload

from django.utils.module_loading import autodiscover_modules, import_string

from ..rows import TENANT_LENGTH
from .compat import (
    DEFAULT_TASK_BACKEND_ALIAS,
    DEFAULT_TASK_PRIORITY,
    DEFAULT_TASK_QUEUE_NAME,
    AnyContext,
    AnyTask,
    Task,
    path_of,
)
from .cron import LONGEST_SECONDS, interval_of, next_cron, timezone_named
from .errors import BadTask, UnknownTask
from .payloads import storable
from .retries import Backoff, RetryOn, exponential

CatchUp: TypeAlias = Literal["skip", "once", "all"]

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

KEY_LENGTH = 200
PROGRESS_NOTE_LENGTH = 200
ONCE_KEY_LENGTH = 200
MOST_CAUGHT_UP = 1000
"""The missed times that one schedule may make up for at once: their jobs are one transaction."""

RATE = re.compile(r"([0-9]{1,6})/([0-9]{0,4})([smhd])")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

registry: dict[str, JobTask] = {}
"""Every function decorated with `@task`, by its dotted path."""

periods: dict[str, Period] = {}
"""Every `@periodic` declaration by its key, which is the path of its task unless another one is given."""


@dataclass(frozen=True, slots=True)
class Unique:
    """At most one such job at a time: enqueueing another one gives back the first.

    `by` names the arguments that make two jobs the same, all of them when empty. The claim on the key
    ends when the job is `started` or when it is `finished`, or, whatever becomes of the job, after a `window`
    of seconds from its enqueueing.

    With `replace`, the one that waits takes over the arguments, the time and the priority of the later one;
    a job that runs is left alone.
    """

    by: tuple[str, ...] = ()
    until: Literal["started", "finished"] = "finished"
    window: timedelta | float | None = None
    replace: bool = False


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `n` jobs under way at once that have the same values of the arguments in `by`.

    The key is the task's own unless tasks share one by the name in `key`.
    """

    n: int
    by: tuple[str, ...] = ()
    key: str = ""


@dataclass(frozen=True, slots=True)
class Rate:
    """At most so many starts in a time, evenly spread: `Rate("100/m")`, `Rate("5/10s", by=("customer",))`.

    No span of that time, whenever it begins, sees more starts than that. With `burst`, so many of them may
    start together. `by` and `key` are those of `Limit`. Units are s, m, h and d.
    """

    limit: str
    by: tuple[str, ...] = ()
    key: str = ""
    burst: int = 1

    @property
    def seconds(self) -> float:
        """Seconds between two starts. Raises BadTask for what is no rate."""
        match = RATE.fullmatch(str(self.limit))
        if match is None or not int(match[1]):
            raise BadTask(f"{self.limit!r} is no rate: write 100/m or 5/10s.")
        return int(match[2] or 1) * UNITS[match[3]] / int(match[1])


@dataclass(frozen=True, kw_only=True)
class JobTask(AnyTask):
    """Django's Task with the policy that our worker follows."""

    priority: int = DEFAULT_TASK_PRIORITY
    backend: str = DEFAULT_TASK_BACKEND_ALIAS
    queue_name: str = DEFAULT_TASK_QUEUE_NAME
    run_after: datetime | None = None
    takes_context: bool = False

    max_attempts: int = 5
    """How often the body may start, crashes included."""

    backoff: Backoff = field(default=exponential(), hash=False)
    """Seconds to wait after each failed attempt; None from it gives up."""

    retry_on: RetryOn = field(default=None, hash=False)
    """The exceptions worth another attempt; None for every exception."""

    discard_on: tuple[type[BaseException], ...] = ()
    """Exceptions that end the job as cancelled: what it was about is gone."""

    timeout: float | None = None
    """Seconds until a running attempt is stopped: async bodies are cancelled, sync bodies interrupted
    at their next Python instruction (a blocking call ends first)."""

    unique: Unique | None = None
    """Refuse a second job of the same arguments while one is waiting."""

    concurrency: Limit | None = None
    """How many such jobs may be under way at once, in all workers together."""

    rate: Rate | None = None
    """How often such a job may start, in all workers together."""

    redact: tuple[str, ...] = ()
    """Names of arguments that people are not shown, beside those that are named like secrets. Names inside
    of arguments count too; `"*"` stands for all, and for the result."""

    atomic: bool = False
    """Run the body and its acknowledgement in one transaction: its database effects happen exactly once."""

    owner_id: Any = None
    """The user whom jobs made from this task belong to."""

    tenant: str = ""
    """The tenant whom jobs made from this task belong to."""

    headers: Mapping[str, str] = field(default_factory=dict, hash=False)
    """What the job's log lines carry beside the context of the caller."""

    def __post_init__(self) -> None:
        for rule, holds in self._rules():
            if not holds:
                raise BadTask(f"{path_of(self.func)}: {rule}.")
        self._check_limits()
        super().__post_init__()

    def _rules(self) -> Iterator[tuple[str, bool]]:
        """What would fail later: in the database that stores the job, or in the worker that runs it."""
        yield "its path is longer than 255 characters", len(path_of(self.func)) <= 255
        yield "a queue is a name of up to 64 characters, without a comma", is_name(self.queue_name)
        yield "priority must be a number", isinstance(self.priority, int | float) and isfinite(self.priority)
        yield "max_attempts must be between 1 and 32767", _is_count(self.max_attempts)
        can_end = self.timeout is None or _is_span(self.timeout)
        yield "timeout must be more than 0 seconds, up to ten years", can_end
        yield "backoff must be callable", callable(self.backoff)
        yield "retry_on names exceptions, or maps them to callables", _can_be_retried_on(self.retry_on)
        yield "discard_on names exceptions", _are_exceptions(self.discard_on)
        yield "redact names arguments", _are_names(self.redact)
        yield "run_after must be a datetime", isinstance(self.run_after, datetime | None)
        yield "a tenant is a text of up to 128 characters", _is_text(self.tenant, most=TENANT_LENGTH)
        yield "headers are texts by name", all(map(_is_text, (*self.headers, *self.headers.values())))
        is_plain = not (self.atomic and iscoroutinefunction(self.func))
        yield "an atomic task must be a plain function, not `async def`", is_plain

    def _check_limits(self) -> None:
        unique, concurrency, rate = self.unique, self.concurrency, self.rate
        for option, kind in ((unique, Unique), (concurrency, Limit), (rate, Rate)):
            if not isinstance(option, kind | None):
                raise BadTask(f"{path_of(self.func)}: {option!r} is no {kind.__name__}.")
        if concurrency and not _is_count(concurrency.n):
            raise BadTask(f"{path_of(self.func)}: a concurrency limit is between 1 and 32767.")
        if rate and not (_is_count(rate.burst) and 0 < rate.seconds <= 86_400):
            raise BadTask(f"{path_of(self.func)}: a rate is once a day at least, its burst up to 32767.")
        if unique and unique.until not in ("started", "finished"):
            raise BadTask(f"{path_of(self.func)}: a job is unique until it is started or finished.")
        if rate and unique and unique.until == "started" and unique.window is None:
            raise BadTask(f"{path_of(self.func)}: with a rate, a job cannot be unique until it is started.")
        if unique and unique.window is not None and not _is_span(seconds_of(unique.window)):
            raise BadTask(f"{path_of(self.func)}: a window is more than 0 seconds, up to ten years.")
        for limit in (concurrency, rate):
            if limit and not _is_text(limit.key):
                raise BadTask(f"{path_of(self.func)}: {limit.key!r} cannot be stored as a key.")
        known = signature(self.func).parameters
        for rule in (unique, concurrency, rate):
            if rule and not _are_names(rule.by):
                raise BadTask(f"{path_of(self.func)}: by={rule.by!r} is no tuple of arguments' names.")
            for name in rule.by if rule else ():
                if name not in known:
                    raise BadTask(
                        f"{path_of(self.func)} has no argument {name!r} to be unique or limited by."
                    )

    def using(self, **changes: Any) -> JobTask:
        """A copy with another `priority`, `queue_name`, `run_after`, `backend`, `owner` or `tenant`.

        Raises InvalidTask for what cannot be kept or never be run.
        """
        unknown = changes.keys() - {
            "priority", "queue_name", "run_after", "backend", "owner", "tenant", "headers"
        }  # fmt: skip
        if unknown:
            raise TypeError(f"using() does not take {', '.join(sorted(unknown))}.")
        if (owner := changes.pop("owner", None)) is not None:
            changes["owner_id"] = owner.pk
            if owner.pk is None and not owner.is_anonymous:
                raise BadTask(f"{path_of(self.func)}: its owner was not saved yet.")
        return replace(self, **{name: value for name, value in changes.items() if value is not None})

    @property
    def is_async(self) -> bool:
        return iscoroutinefunction(self.func)


@dataclass(frozen=True, kw_only=True)
class TaskContext(AnyContext):  # type: ignore[misc]  # frozen in Django, not in its stubs
    """What a task with `takes_context=True` is given as its first argument, `context`."""

    job_id: str = ""
    attempt_number: int = 0
    is_lost: Callable[[], bool] = field(default=lambda: False, compare=False, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    report: Callable[[dict[str, Any]], None] = field(default=lambda _: None, compare=False, repr=False)
    claim: Callable[[str], AbstractContextManager[bool]] = field(
        default=lambda _: nullcontext(True), compare=False, repr=False
    )

    @property
    def attempt(self) -> int:
        """1 on the first try."""
        return self.attempt_number

    @property
    def idempotency_key(self) -> str:
        """The same in every attempt of this job: give it to the service you call."""
        return self.job_id

    @property
    def fire_at(self) -> datetime | None:
        """The time of the schedule that this job was made for, however late it was; None without one."""
        written = self.headers.get("fire_at")
        return datetime.fromisoformat(written) if written else None

    def progress(self, n: float, total: float | None = None, note: str = "") -> None:
        """Say how far this attempt is, `n` of `total`, for people to see.

        Costs nothing worth mention however often it is called: what is newest is written about once a
        second. Inside an atomic job nobody sees it. Raises ValueError for what is no number.
        """
        if not isfinite(n) or not isfinite(total or 0):
            raise ValueError("progress() takes finite numbers.")
        numbers = {"n": float(n), "total": None if total is None else float(total)}
        self.report({**numbers, "note": storable(note[:PROGRESS_NOTE_LENGTH])})

    def once(self, key: str) -> AbstractContextManager[bool]:
        """Do something once, in whichever attempt or job of this task comes first.

        The block is a transaction. It is given True if nobody did it before, and what it then writes to the
        database is kept together with the key; if it raises, neither is. Whoever comes at the same moment
        waits for its end.

            with context.once(f"charge:{order_id}") as is_first:
                if is_first:
                    Charge.objects.create(order_id=order_id)

        Raises ValueError for a key that is empty or longer than 200 characters.
        """
        if not 0 < len(key) <= ONCE_KEY_LENGTH:
            raise ValueError(f"once() takes a key of 1 to {ONCE_KEY_LENGTH} characters.")
        return self.claim(key)

    @property
    def cancelled(self) -> bool:
        """True once the job was cancelled or taken from this worker: stop, nobody waits for the result."""
        return self.is_lost()


@dataclass(frozen=True, slots=True)
class Period:
    """How often a `@periodic` task runs: a cron expression in a time zone, or an interval.

    See `periodic` for what each of them means.
    """

    task: JobTask
    cron: str = ""
    tz: str = "UTC"
    every: timedelta | None = None
    enabled: bool = True
    catch_up: CatchUp = "once"
    window: timedelta | None = None
    max_catch_up: int = 24


@overload
def task(function: FunctionT, /) -> JobTask: ...


@overload
def task(
    *,
    queue: str = ...,
    queue_name: str = ...,
    priority: int = ...,
    backend: str = ...,
    takes_context: bool = ...,
    max_attempts: int = ...,
    backoff: Backoff = ...,
    retry_on: RetryOn | type[BaseException] = ...,
    discard_on: tuple[type[BaseException], ...] | type[BaseException] = ...,
    timeout: float | timedelta | None = ...,
    unique: Unique | bool | None = ...,
    concurrency: Limit | int | None = ...,
    rate: Rate | str | None = ...,
    redact: tuple[str, ...] | str = ...,
    atomic: bool = ...,
) -> Callable[[FunctionT], JobTask]: ...


def task(
    function: FunctionT | None = None,
    /,
    *,
    queue: str = DEFAULT_TASK_QUEUE_NAME,
    queue_name: str = "",
    priority: int = DEFAULT_TASK_PRIORITY,
    backend: str = DEFAULT_TASK_BACKEND_ALIAS,
    takes_context: bool = False,
    max_attempts: int = 5,
    backoff: Backoff = exponential(),  # noqa: B008 - frozen, so one default may serve all
    retry_on: RetryOn | type[BaseException] = None,
    discard_on: tuple[type[BaseException], ...] | type[BaseException] = (),
    timeout: float | timedelta | None = None,
    unique: Unique | bool | None = None,
    concurrency: Limit | int | None = None,
    rate: Rate | str | None = None,
    redact: tuple[str, ...] | str = (),
    atomic: bool = False,
) -> JobTask | Callable[[FunctionT], JobTask]:
    """Make a module-level function, sync or async, a job that `.enqueue()` puts into the queue.

    See JobTask for each option; `timeout` is in seconds, `queue_name` is Django's name of `queue`, and
    `unique=True` means `Unique()`, `concurrency=2` `Limit(2)` and `rate="100/m"` `Rate("100/m")`. Raises
    InvalidTask if the function or an option cannot work.
    """

    def decorate(function: FunctionT) -> JobTask:
        made = JobTask(
            func=function,
            queue_name=queue_name or queue,
            priority=priority,
            backend=backend,
            takes_context=takes_context,
            max_attempts=max_attempts,
            backoff=backoff,
            retry_on=_as_tuple(retry_on),
            discard_on=_as_tuple(discard_on),
            timeout=timeout.total_seconds() if isinstance(timeout, timedelta) else timeout,
            unique=Unique() if unique is True else unique or None,
            concurrency=Limit(concurrency) if isinstance(concurrency, int) else concurrency,
            rate=Rate(rate) if isinstance(rate, str) else rate,
            redact=_as_tuple(redact),
            atomic=atomic,
        )
        registry[made.module_path] = made
        return made

    return decorate if function is None else decorate(function)


def periodic(
    cron: str = "",
    *,
    every: timedelta | float | None = None,
    tz: str = "UTC",
    key: str = "",
    enabled: bool = True,
    catch_up: CatchUp = "once",
    window: timedelta | float | None = None,
    max_catch_up: int = 24,
) -> Callable[[JobTask], JobTask]:
    """Run the task below by itself: by a five-field `cron` expression in `tz`, or `every` so many seconds.

    The task is enqueued without arguments. `key` names the schedule; without it, it has the path of the
    task. `enabled` is how it starts; staff may switch it.

    `catch_up` says what becomes of the times that are missed while nobody is there to schedule them: `skip`
    drops them, `once` makes up for all of them by one job, `all` makes a job for each, at most
    `max_catch_up` of them, the latest. Times longer past than `window` (seconds) are dropped in any case.

    Raises BadSchedule for times that never come, BadTask for what is no declaration.
    """
    if bool(cron) == (every is not None):
        raise BadTask("@periodic takes either a cron expression or every=.")
    if catch_up not in get_args(CatchUp) or not 1 <= max_catch_up <= MOST_CAUGHT_UP:
        raise BadTask(
            f"@periodic takes catch_up= of {get_args(CatchUp)} and max_catch_up= up to {MOST_CAUGHT_UP}."
        )
    interval = None if every is None else interval_of(seconds_of(every))
    timezone_named(tz)
    if cron:
        next_cron(cron, zone=tz, after=datetime.now().astimezone())

    def declare(made: JobTask) -> JobTask:
        if not isinstance(made, JobTask):
            raise BadTask("@periodic stands above @task.")
        name = key or made.module_path
        if name in periods and periods[name].task.module_path != made.module_path:
            raise BadTask(f"Two schedules have the key {name!r}.")
        try:
            signature(made.func).bind(*([None] if made.takes_context else []))
        except TypeError as error:
            raise BadTask(f"{made.module_path} is enqueued without arguments: {error}.") from None
        periods[name] = Period(
            made,
            cron=cron,
            tz=tz,
            every=interval,
            enabled=enabled,
            catch_up=catch_up,
            window=None if window is None else interval_of(seconds_of(window)),
            max_catch_up=max_catch_up,
        )
        return made

    return declare


def seconds_of(span: timedelta | float) -> float:
    """A span of time, however it is written, in seconds."""
    return span.total_seconds() if isinstance(span, timedelta) else span


def is_name(name: Any) -> bool:
    """Whether a queue can be called so: `--queues` separates names by commas."""
    return _is_text(name, most=64) and name == name.strip() != "" and "," not in name


def _is_text(text: Any, *, most: int | None = None) -> bool:
    return isinstance(text, str) and storable(text) == text and (most is None or len(text) <= most)


def _are_names(names: Any) -> bool:
    return isinstance(names, tuple | list) and all(isinstance(name, str) for name in names)


def _is_count(number: Any) -> bool:
    return isinstance(number, int) and 1 <= number <= 32_767


def _is_span(seconds: Any) -> bool:
    return isinstance(seconds, int | float) and 0 < seconds <= LONGEST_SECONDS


def _are_exceptions(kinds: Any) -> bool:
    return isinstance(kinds, tuple) and all(
        isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds
    )


def _can_be_retried_on(rule: Any) -> bool:
    if isinstance(rule, Mapping):
        return _are_exceptions(tuple(rule)) and all(map(callable, rule.values()))
    return rule is None or _are_exceptions(rule)


def _as_tuple(option: Any) -> Any:
    """One or several of them, as they are written."""
    return (
        (option,) if isinstance(option, type | str) else tuple(option) if isinstance(option, list) else option
    )


def discover() -> None:
    """Import the `tasks` module of every installed app."""
    autodiscover_modules("tasks")


def task_at(path: str) -> AnyTask:
    """The task whose dotted path is `path`. Raises UnknownTask if there is none here."""
    if path in registry:
        return registry[path]
    try:
        found = import_string(path)
    except Exception as error:  # frontier: an import runs whatever code stands there
        raise UnknownTask(f"There is no task {path!r} in this process: {error!r}", task=path) from error
    if not isinstance(found, Task):
        raise UnknownTask(f"There is no task {path!r} in this process.", task=path)
    return found


def queue_names() -> set[str]:
    """The queues that declared tasks use."""
    return {DEFAULT_TASK_QUEUE_NAME} | {made.queue_name for made in registry.values()}


def redacted_names(path: str) -> tuple[str, ...]:
    """The names that the task wants nobody to be shown; all of a task that cannot be asked any more."""
    try:
        return getattr(task_at(path), "redact", ())
    except UnknownTask:
        return ("*",)


def argument_names(path: str, count: int) -> list[str]:
    """Of so many positional arguments of a task, the names: `*rest` names all that it takes.

    Without the context; nameless, and so empty, are those of a task unknown here.
    """
    try:
        found = task_at(path)
    except UnknownTask:
        return [""] * count
    names, rest = [], ""
    for parameter in signature(found.func).parameters.values():
        if parameter.kind is Parameter.VAR_POSITIONAL:
            rest = parameter.name
        elif parameter.kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD):
            names.append(parameter.name)
    names = names[1 if found.takes_context else 0 :][:count]
    return names + [rest] * (count - len(names))

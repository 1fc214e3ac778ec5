"""Tasks for the tests, and a ledger that they write with connections of their own."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

from django.contrib.auth.models import Group
from django.db import connection, transaction

from svc_infra_django.jobs import Limit, Rate, TaskContext, Unique, exponential, periodic, task
from svc_infra_django.jobs.compat import task_finished
from svc_infra_django.jobs.decorators import JobTask as JobTask
from svc_infra_django.observability.context import bound, current


class Gone(Exception):
    """What the job was about is gone."""


class Shaky(Exception):
    """Worth another try."""


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


def note(path: str, line: str) -> None:
    """Append a line to the ledger: one write, so lines of several processes do not mix."""
    with Path(path).open("a") as file:
        file.write(f"{line}\n")


def read(path: Path | str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


@task
def add(a: int, b: int = 1) -> int:
    return a + b


@task
async def aadd(a: int, b: int = 1) -> int:
    await asyncio.sleep(0)
    return a + b


@task
def record(path: str, word: str = "ran") -> None:
    note(path, word)


@task
def tell_of_the_interpreter() -> list[float]:
    return [gc.get_freeze_count(), gc.get_threshold()[0], sys.getswitchinterval()]


@task(takes_context=True)
def note_fire_at(context: TaskContext, path: str) -> None:
    note(path, context.fire_at.isoformat() if context.fire_at else "None")


@task(takes_context=True)
def crawl(context: TaskContext, path: str, steps: int, atomic: bool = False) -> None:
    for step in range(steps):
        context.progress(step, steps, "crawling \x00 \ud800")
        note(path, str(step))
        time.sleep(0.02)
        if context.cancelled:
            note(path, "noticed")
            return


@task(takes_context=True)
async def acrawl(context: TaskContext, path: str) -> None:
    note(path, "start")
    for step in range(500):
        context.progress(step)
        await asyncio.sleep(0.02)


@task(takes_context=True, max_attempts=4, backoff=lambda attempt: 0.0)
def charge_once(
    context: TaskContext, path: str, name: str, fail_in: list[int], fail_after: list[int]
) -> None:
    with context.once(f"charge:{name}") as is_first:
        note(path, f"{context.attempt} {is_first}")
        if is_first:
            Group.objects.create(name=f"{name} {context.attempt}")
        if context.attempt in fail_in:
            raise Shaky
    if context.attempt in fail_after:
        raise Shaky


@task(takes_context=True)
def record_pid(context: TaskContext, path: str) -> None:
    note(path, f"{context.idempotency_key} {context.attempt} {os.getpid()}")


@task(max_attempts=3, backoff=lambda attempt: 0.0)
def fail(path: str = "") -> None:
    if path:
        note(path, "failed")
    raise Shaky("again")


@task(max_attempts=4, backoff=exponential(base=10), retry_on=Shaky, discard_on=Gone)
def raise_named(name: str) -> None:
    raise {"Gone": Gone, "Shaky": Shaky, "Other": RuntimeError, "Unprintable": Unprintable}[name]("told to")


@task(takes_context=True, max_attempts=3, backoff=lambda attempt: 0.0)
def fail_until(context: TaskContext, attempt: int) -> int:
    if context.attempt < attempt:
        raise Shaky
    return context.attempt


@task
def return_odd(kind: str) -> Any:
    return {
        "object": object(),
        "nul": "a\x00b",
        "nan": float("nan"),
        "surrogate": "\ud800",
        "big": "x" * 400_000,
    }[kind]


@task
def linger(path: str, seconds: float) -> None:
    note(path, f"start {os.getpid()}")
    time.sleep(seconds)
    note(path, f"end {os.getpid()}")


@task
async def alinger(path: str, seconds: float) -> None:
    note(path, "start")
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        note(path, "cancelled")
        raise
    note(path, "end")


@task(timeout=0.2, max_attempts=1)
def slow(path: str) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        time.sleep(0.01)
    note(path, "never")


@task(timeout=0.2, max_attempts=1)
async def aslow(path: str) -> None:
    await asyncio.sleep(10)
    note(path, "never")


@task(timeout=0.2, max_attempts=50, backoff=lambda attempt: 0.0)
def ignore_the_timeout(path: str, how: str) -> None:
    if not is_begun(path):
        note(path, f"start {os.getpid()}")
        if how == "sleep":
            time.sleep(600)
        # Never comes to an end, and never gives the interpreter to another thread.
        re.match("(a+)+$", "a" * 64 + "b")
    note(path, f"end {os.getpid()}")


@task(timeout=0.2, max_attempts=50, backoff=lambda attempt: 0.0)
async def aignore_the_timeout(path: str, how: str) -> None:
    if not is_begun(path):
        note(path, f"start {os.getpid()}")
        time.sleep(600)  # noqa: ASYNC251 - as somebody will write it
    note(path, f"end {os.getpid()}")


def is_begun(path: str) -> bool:
    return any(line.startswith("start") for line in read(path))


@task
def wait_for(path: str, flag: str) -> None:
    note(path, f"waits {os.getpid()}")
    while not Path(flag).exists():
        time.sleep(0.02)
    note(path, f"went on {os.getpid()}")


@task(max_attempts=2, backoff=lambda attempt: 0.0)
def wait_for_and_fail_at_first(path: str, flag: str) -> None:
    note(path, f"waits {os.getpid()}")
    while not Path(flag).exists():
        time.sleep(0.02)
    note(path, f"went on {os.getpid()}")
    if read(path)[0] == f"waits {os.getpid()}":
        raise Shaky


@task
def kill_me(path: str) -> None:
    note(path, "start")
    os.kill(os.getpid(), signal.SIGKILL)


@task(atomic=True, max_attempts=3, backoff=lambda attempt: 0.0)
def make_group(name: str, fail: bool = False) -> None:
    Group.objects.create(name=name)
    if fail:
        raise Shaky


@task(takes_context=True, backoff=lambda attempt: 0.0)
def lose_the_connection(context: TaskContext, name: str) -> None:
    with transaction.atomic():
        Group.objects.create(name=name)
        if context.attempt == 1:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")


@task(max_attempts=2, backoff=lambda attempt: 0.0)
def eat_memory(path: str, size: int) -> None:
    note(path, "start")
    bytearray(size)
    note(path, "never")


@task(atomic=True)
def make_group_slowly(path: str, name: str, seconds: float) -> None:
    Group.objects.create(name=name)
    note(path, f"start {os.getpid()}")
    time.sleep(seconds)
    note(path, f"end {os.getpid()}")


@task
async def amake_group(name: str) -> None:
    await Group.objects.acreate(name=name)


@task(unique=True)
def only_once(key: str) -> None: ...


@task(unique=Unique(by=("key",), until="started"))
def once_waiting(key: str, note: str = "") -> None: ...


@task(unique=Unique(by=("key",), window=3600))
def once_an_hour(key: str) -> None: ...


@task(unique=Unique(by=("key",), replace=True), takes_context=True)
def latest(context: TaskContext, key: str, path: str, word: str) -> None:
    note(path, word)


@task(concurrency=Limit(2, by=("tenant",)), max_attempts=2, backoff=lambda attempt: 60.0)
def two_a_tenant(tenant: str, path: str = "", seconds: float = 0.0, fail: bool = False) -> None:
    if path:
        note(path, f"start {time.time()}")
        time.sleep(seconds)
        note(path, f"end {time.time()}")
    if fail:
        raise Shaky


@task(rate="60/m")
def once_a_second(number: int = 0) -> None: ...


@task(rate=Rate("60/m", by=("customer",)))
def once_a_second_each(customer: str) -> None: ...


@task(rate="10/m")
def ten_a_minute() -> None: ...


@task(rate="10/s")
def ten_a_second() -> None: ...


@task(rate=Rate("60/m", key="shared", burst=3))
def three_at_first() -> None: ...


@task(concurrency=1, rate=Rate("60/m", by=("customer",)))
def both_limits(customer: str) -> None: ...


@task(redact=("iban", "note"))
def pay_out(iban: str, amount: int, **details: Any) -> dict[str, Any]:
    return {"iban": iban, "amount": amount}


@task(redact="codes")
def send_codes(to: str, *codes: str, note: str = "") -> None: ...


@task(redact="*")
def hush(*words: str, **more: str) -> str:
    return "private-result"


@task(queue="mail")
def mail(path: str, word: str) -> None:
    note(path, word)


@periodic(every=3600)
@task
def hourly() -> None: ...


@periodic(cron="30 2 * * *", tz="America/New_York")
@task
def nightly() -> None: ...


@task
def sign(token: str, order: dict[str, Any]) -> dict[str, Any]:
    return {"password": "hunter2-result", "order": order["id"]}


@task(takes_context=True)
def wait_for_cancel(context: TaskContext, path: str) -> None:
    note(path, "start")
    while not context.cancelled:
        time.sleep(0.02)
    note(path, "noticed")


@task
def leave_behind() -> dict[str, Any]:
    context = current()
    bound(left="behind").__enter__()
    return context


def delay_told(error: BaseException, attempt: int) -> Any:
    return str(error) if str(error) == "soon" else float(str(error))


@task(retry_on={Shaky: delay_told})
def fail_with_delay(delay: str) -> None:
    raise Shaky(delay)


@task
def tell(path: str) -> None:
    from svc_infra_django.observability.logging import get_logger

    get_logger("project").info("told from inside")
    note(path, "told")


@task(takes_context=True, max_attempts=50, backoff=lambda attempt: 0.0)
def keep_books(context: TaskContext, path: str, kind: str, seconds: float) -> None:
    note(path, f"{context.job_id} start {context.attempt}")
    time.sleep(seconds)
    if kind == "held":
        note(f"{path}.held", str(os.getpid()))
        while not Path(f"{path}.flag").exists():
            time.sleep(0.02)
    if kind == "shaky" and context.attempt == 1:
        raise Shaky
    note(path, f"{context.job_id} end {context.attempt}")


@task(takes_context=True, atomic=True, max_attempts=50)
def keep_books_atomically(context: TaskContext, path: str, number: int, seconds: float) -> None:
    note(path, f"{context.job_id} start {context.attempt}")
    Group.objects.create(name=f"book {number}")
    time.sleep(seconds)
    note(path, f"{context.job_id} end {context.attempt}")


@task(takes_context=True, max_attempts=50, concurrency=2)
def keep_books_by_twos(context: TaskContext, path: str, seconds: float) -> None:
    note(path, f"{context.job_id} start {context.attempt}")
    time.sleep(seconds)
    note(path, f"{context.job_id} end {context.attempt}")


def die(**_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@task(takes_context=True)
def die_after_the_body(context: TaskContext, path: str) -> None:
    note(path, "ran")
    Group.objects.create(name=f"attempt {context.attempt}")
    if context.attempt == 1:
        task_finished.connect(die, weak=False)


@task(takes_context=True, atomic=True)
def die_before_the_commit(context: TaskContext, path: str) -> None:
    note(path, "ran")
    Group.objects.create(name=f"attempt {context.attempt}")
    if context.attempt == 1:
        die()

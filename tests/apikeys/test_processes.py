"""Keys in several processes: how soon a revocation is seen, and how exact limits are."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import suppress
from time import monotonic, sleep
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings as django_settings
from django.db import connection

from svc_infra_django.apikeys import issue_key, revoke_key
from svc_infra_django.apikeys.models import Allowance, ApiKey, UsageHour
from svc_infra_django.cache import cache
from tests.apikeys import forked
from tests.servers import redis

pytestmark = pytest.mark.django_db(transaction=True)

# A start from a process that has imported everything costs milliseconds.
multiprocessing.set_forkserver_preload(["tests.jobs.forked", "tests.apikeys.forked"])
forking = multiprocessing.get_context("forkserver")

BOUND = 2.0


@pytest.fixture
def start() -> Iterator[Callable[..., Any]]:
    """Run a function of `forked` in a process of its own; the pipe to it."""
    processes = []

    def run(function: Any, *arguments: Any, **section: Any) -> Any:
        ours, theirs = forking.Pipe()
        process = forking.Process(
            target=function,
            args=(
                str(connection.settings_dict["NAME"]),
                django_settings.CACHES,
                section,
                *arguments,
                theirs,
            ),
        )
        process.start()
        processes.append(process)
        return ours

    yield run
    for process in processes:
        process.kill()
        process.join(60)


def heard(pipe: Any) -> Any:
    assert pipe.poll(60), "the other process says nothing"
    return pipe.recv()


def redis_cache(url: str) -> dict[str, Any]:
    return {
        "default": {
            "BACKEND": "svc_infra_django.cache.backends.LayeredCache",
            "LOCATION": uuid4().hex,
            "OPTIONS": {"l2": "shared", "l1_ttl": 60},
        },
        "shared": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": url,
            "KEY_PREFIX": uuid4().hex,
            "OPTIONS": {"socket_connect_timeout": 0.2, "socket_timeout": 0.2},
        },
    }


def seconds_until_all_refuse(start: Any, secret: str, change: Callable[[], Any]) -> float:
    """Two processes use the key; how long after `change` the later one still took it."""
    pipes = [start(forked.until_refused, secret) for _ in range(2)]
    assert [heard(pipe) for pipe in pipes] == ["used", "used"]
    sleep(0.3)
    change()
    changed_at = monotonic()
    ends = [heard(pipe) for pipe in pipes]
    assert [heard(pipe) for pipe in pipes] == [0, 0]
    return max(last for _, last in ends) - changed_at


@pytest.mark.redis
def test_rule_55_a_revocation_reaches_every_process_within_two_seconds(
    start: Any, user: Any, settings: Any
) -> None:
    key, secret = issue_key(owner=user, name="robot")
    with redis() as url:
        settings.CACHES = redis_cache(url)

        def change() -> None:
            # What the other processes know together, and what each remembers of it for a minute if asked.
            deadline = monotonic() + 60
            while not cache.get_shared(f"svc:apikey:{bytes(key.digest).hex()}"):
                assert monotonic() < deadline, "nobody shares what they know"
            revoke_key(key)

        assert seconds_until_all_refuse(start, secret, change) < BOUND


@pytest.mark.redis
def test_rule_55_also_when_redis_goes_away_before_the_revocation(
    start: Any, user: Any, settings: Any
) -> None:
    key, secret = issue_key(owner=user, name="robot")
    server = redis()
    url = server.__enter__()
    settings.CACHES = redis_cache(url)

    def change() -> None:
        server.__exit__(None, None, None)
        revoke_key(key)

    try:
        assert seconds_until_all_refuse(start, secret, change) < BOUND
    finally:
        with suppress(Exception):
            server.__exit__(None, None, None)


def test_rule_55_also_without_a_shared_cache_and_around_our_services(start: Any, user: Any) -> None:
    _, secret = issue_key(owner=user, name="robot")

    def change() -> None:
        type(user).objects.filter(pk=user.pk).update(is_active=False)

    assert seconds_until_all_refuse(start, secret, change) < BOUND


def test_what_a_process_counted_is_written_when_it_ends(start: Any, user: Any) -> None:
    key, secret = issue_key(owner=user, name="robot")

    assert heard(start(forked.use_and_end, secret)) == "used"

    deadline = monotonic() + 60
    while not UsageHour.objects.filter(key=key, used=1).exists():
        assert monotonic() < deadline, "it ended and wrote nothing"
        sleep(0.05)


def test_rule_57_four_processes_together_get_exactly_the_rate_and_the_quota(start: Any, user: Any) -> None:
    _, rated = issue_key(owner=user, name="rated", rate="17/day")
    _, counted = issue_key(owner=user, name="counted", quota="23/month")

    for secret, limit in ((rated, 17), (counted, 23)):
        pipes = [start(forked.as_often_as_allowed, secret, 12) for _ in range(4)]
        assert [heard(pipe) for pipe in pipes] == ["ready"] * 4
        for pipe in pipes:
            pipe.send("go")

        assert sum(heard(pipe) for pipe in pipes) == limit

    key = ApiKey.objects.get(name="counted")
    assert Allowance.objects.get(key=key).quota_used == 23

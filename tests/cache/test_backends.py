from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured

from svc_infra_django.cache import cache
from svc_infra_django.cache.backends import LayeredCache, MemoryLayer
from svc_infra_django.cache.errors import CacheUnavailable
from tests.cache.conftest import memory_caches, redis_caches

pytestmark = pytest.mark.filterwarnings("error")


def near() -> LayeredCache:
    found = caches["default"]
    assert isinstance(found, LayeredCache)
    return found


def test_what_was_read_once_is_read_here_again(behind: Any) -> None:
    behind().set("k", "first")
    assert near().get("k") == "first"

    behind().set("k", "second")

    assert near().get("k") == "first"


def test_the_near_copy_is_forgotten_after_its_time(behind: Any, settings: Any) -> None:
    settings.CACHES = memory_caches(l1_ttl=0.05)
    behind().set("k", "first")
    near().get("k")
    behind().set("k", "second")

    time.sleep(0.06)

    assert near().get("k") == "second"


@pytest.mark.parametrize(
    "write",
    [
        lambda: near().set("k", "second"),
        lambda: near().set_many({"k": "second"}),
        lambda: async_to_sync(near().aset)("k", "second"),
    ],
)
def test_what_this_process_wrote_it_sees_at_once(behind: Any, write: Any) -> None:
    behind().set("k", "first")
    near().get("k")

    write()

    assert near().get("k") == "second"


@pytest.mark.parametrize(
    "forget",
    [
        lambda: near().delete("k"),
        lambda: near().delete_many(["k"]),
        lambda: near().clear(),
        lambda: near().touch("k", 0),
        lambda: async_to_sync(near().adelete)("k"),
    ],
)
def test_what_this_process_forgot_is_gone_at_once(behind: Any, forget: Any) -> None:
    behind().set("k", "first")
    near().get("k")

    forget()

    assert near().get("k", "nothing") == "nothing"


def test_counters_and_locks_are_decided_by_the_shared_cache(behind: Any) -> None:
    near().set("n", 1)
    near().get("n")
    behind().set("n", 5)

    assert near().incr("n") == 6
    assert near().get("n") == 6
    assert near().decr("n", 2) == 4
    behind().set("lock", "theirs")
    assert near().add("lock", "ours") is False
    assert near().get("lock") == "theirs"
    behind().delete("lock")
    assert near().has_key("lock") is False


def test_counters_and_presence_are_decided_by_the_shared_cache_for_asynchronous_callers_too(
    behind: Any,
) -> None:
    near().set("n", 1)
    near().get("n")
    behind().set("n", 5)

    async def count() -> list[int]:
        return [await near().aincr("n"), await near().adecr("n", 2)]

    assert async_to_sync(count)() == [6, 4]
    near().get("n")
    behind().delete("n")
    assert async_to_sync(near().ahas_key)("n") is False


def test_no_asynchronous_count_is_lost(behind: Any) -> None:
    near().set("n", 0)

    async def count() -> None:
        await asyncio.gather(*(near().aincr("n") for _ in range(20)))

    asyncio.run(count())

    assert behind().get("n") == 20


def test_none_is_a_value_and_a_miss_is_not_remembered(behind: Any) -> None:
    assert near().get("k", "default") == "default"
    behind().set("k", None)

    assert near().get("k", "default") is None


def test_several_keys_cost_one_question(behind: Any, monkeypatch: Any) -> None:
    near().set_many({"a": 1, "b": 2, "c": 3})
    near().get("a")
    asked = []
    original = type(behind()).get_many
    monkeypatch.setattr(
        type(behind()),
        "get_many",
        lambda self, keys, *rest: asked.append(keys) or original(self, keys, *rest),
    )

    assert near().get_many(["a", "b", "c", "d"]) == {"a": 1, "b": 2, "c": 3}
    assert asked == [["b", "c", "d"]]
    assert async_to_sync(near().aget_many)(["a", "b", "c"]) == {"a": 1, "b": 2, "c": 3}
    assert len(asked) == 1


def test_a_reader_may_spoil_its_copy_only() -> None:
    near().set("k", {"list": [1]})
    near().get("k")["list"].append(2)

    assert near().get("k") == {"list": [1]}


def test_threads_share_the_near_memory(behind: Any) -> None:
    behind().set("k", "first")
    thread = threading.Thread(target=lambda: near().get("k"))
    thread.start()
    thread.join()
    behind().set("k", "second")

    assert near().get("k") == "first"


def test_both_aliases_name_the_same_entries(behind: Any) -> None:
    near().set("k", 1, version=7)

    assert behind().get("k", version=7) == 1
    assert near().get("k", version=7) == 1
    assert near().get("k") is None


def test_an_alias_can_be_the_near_layer(settings: Any, behind: Any) -> None:
    made = memory_caches(l1="near")
    made["near"] = {
        "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
        "LOCATION": "near" + made["default"]["LOCATION"],
    }
    settings.CACHES = made
    behind().set("k", "first")
    near().get("k")
    behind().set("k", "second")

    assert near().get("k") == "first"
    near().delete("k")
    assert near().get("k") is None


@pytest.mark.parametrize("options", [{}, {"l2": "shared", "l1_tll": 3}])
def test_options_that_are_none_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ImproperlyConfigured):
        LayeredCache("x", {"OPTIONS": options})


def test_sessions_work_through_it(settings: Any) -> None:
    from django.contrib.sessions.backends.cache import SessionStore

    store = SessionStore()
    store["cart"] = 7
    store.save()

    again = SessionStore(session_key=store.session_key)
    assert again["cart"] == 7
    again.flush()
    assert SessionStore(session_key=store.session_key).load() == {}


def test_the_least_recently_used_goes_first() -> None:
    layer = MemoryLayer(2)
    for place in ("a", "b"):
        layer.put(place, place, 60)
    layer.get("a")
    layer.put("c", "c", 60)

    assert [layer.get(place) for place in ("a", "c")] == ["a", "c"]
    assert not isinstance(layer.get("b"), str)


def test_an_answer_older_than_a_drop_is_not_kept() -> None:
    layer = MemoryLayer(10)
    fence = layer.fence("k")
    layer.drop("k")

    layer.fill("k", "old", 60, fence)

    assert layer.get("k") != "old"


def test_own_writes_are_never_hidden_by_a_reader(behind: Any) -> None:
    near().set("n", 0)
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            near().get("n")

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for number in range(1, 500):
            near().set("n", number)
            assert near().get("n") == number
    finally:
        stop.set()
        for reader in readers:
            reader.join()


def test_the_door_keeps_and_forgets() -> None:
    cache.set("k", 1, 60)
    cache.set_many({"a": 1, "b": 2})

    assert cache.get("k") == 1
    assert cache.get_many(["a", "b", "c"]) == {"a": 1, "b": 2}
    assert cache.get_or_set("new", lambda: 7) == 7
    assert cache.get("new") == 7
    assert cache.add("k", 2) is False
    assert cache.incr("k") == 2
    cache.delete("k")
    assert cache.get("k", "nothing") == "nothing"
    cache.clear()
    assert cache.get("a") is None


def test_the_door_has_asynchronous_twins() -> None:
    async def use() -> None:
        await cache.aset("k", 1)
        assert await cache.aget("k") == 1
        assert await cache.aget_many(["k"]) == {"k": 1}
        assert await cache.aincr("k") == 2
        await cache.adelete("k")
        assert await cache.aget("k") is None

    async_to_sync(use)()


@pytest.mark.redis
def test_the_whole_of_it_on_a_real_server(settings: Any, behind: Any) -> None:
    settings.CACHES = redis_caches(os.environ["REDIS_URL"])
    near().set("k", {"a": 1}, 60)

    assert near().get("k") == {"a": 1}
    assert 50 < behind().ttl("k") <= 60
    behind().set("k", "theirs")
    assert near().get("k") == {"a": 1}
    assert near().add("k", 1) is False
    assert near().get("k") == "theirs"
    assert near().set("only-once", 1, nx=True) is True
    assert near().set("only-once", 2, nx=True) is False
    assert async_to_sync(near().aget)("only-once") == 1


READER = """
import django, sys, time
from django.conf import settings
settings.configure(CACHES=eval(sys.argv[1]), SECRET_KEY="x" * 50, INSTALLED_APPS=["svc_infra_django.cache"])
django.setup()
from django.core.cache import caches
assert caches["default"].get("k") == "first"
print("ready", flush=True)
started = time.monotonic()
while caches["default"].get("k") != "second":
    assert time.monotonic() - started < 60
    time.sleep(0.005)
print(time.time(), flush=True)
"""


@pytest.mark.redis
def test_another_process_sees_a_write_within_the_bound(settings: Any) -> None:
    settings.CACHES = redis_caches(os.environ["REDIS_URL"], l1_ttl=0.5)
    near().set("k", "first", 60)
    command = [sys.executable, "-c", READER, repr(settings.CACHES)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"

        written = time.time()
        near().set("k", "second", 60)
        seen = float(reader.stdout.readline())

    assert reader.returncode == 0
    assert seen - written < 0.5 + 0.4  # the bound, and a slow machine


def test_the_server_dies_and_nobody_gets_an_error(own_redis: Any, caplog: pytest.LogCaptureFixture) -> None:
    cache.set("k", 1)
    assert cache.get("k") == 1

    own_redis.stop()

    assert cache.get("other", "default") == "default"
    cache.set("k", 2)
    cache.delete("k")
    assert cache.get_many(["other"]) == {}
    assert cache.get_or_set("other", lambda: 7) == 7
    assert cache.is_paused
    with pytest.raises(CacheUnavailable):
        cache.incr("k")
    with pytest.raises(CacheUnavailable):
        cache.add("k", 1)
    assert "the cache does not answer" in caplog.text


def test_the_shared_value_is_read_past_what_this_process_remembers(behind: Any) -> None:
    cache.set("k", "old")
    assert cache.get("k") == "old"
    behind().set("k", "new")

    assert (cache.get("k"), cache.get_shared("k"), cache.get_shared("none", 7)) == ("old", "new", 7)


def test_a_cache_without_layers_is_its_own_shared_one(settings: Any) -> None:
    settings.CACHES = {
        "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "x"}
    }
    cache.set("k", "v")

    assert cache.get_shared("k") == "v"

"""Two layers over Django's caches, and the door to them that outlives an outage."""

from __future__ import annotations

import pickle
import sys
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import cached_property
from threading import Lock
from time import monotonic
from typing import Any, TypeVar

from asgiref.sync import sync_to_async
from django.core.cache import caches
from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from ..observability.logging import get_logger
from ..observability.metrics import metrics
from .conf import settings
from .errors import CacheUnavailable

ResultT = TypeVar("ResultT")

MISSING = object()
STRIPES = 512
IMMUTABLE = (str, int, float, bool, bytes, type(None))
OPTIONS = frozenset({"l1", "l2", "l1_ttl", "l1_max"})

logger = get_logger("svc_infra_django.cache")


class LayeredCache(BaseCache):
    """A Django cache that remembers what it read from another one for a few seconds, in this process.

    OPTIONS: `l2`, the alias of the shared cache; `l1_ttl`, seconds a value may be remembered (5);
    `l1_max`, how many values (10000); `l1`, an alias to use in place of this process's memory. Prefix,
    version and timeout are those of the shared cache, so both aliases name the same entries.

    A value may be up to `l1_ttl` seconds older than what another process wrote; what this process wrote
    it sees at once. `add`, `incr`, `touch` and `has_key` always ask the shared cache.
    """

    def __init__(self, location: str, params: dict[str, Any]) -> None:
        super().__init__(params)
        del self.version  # Django's default; ours is that of the shared cache, asked when first needed
        options = {name: value for name, value in params.get("OPTIONS", {}).items() if value is not None}
        if "l2" not in options or options.keys() - OPTIONS:
            raise ImproperlyConfigured(f"LayeredCache takes the OPTIONS {sorted(OPTIONS)}; l2 is needed.")
        self._alias: str = options["l2"]
        self._ttl = float(options.get("l1_ttl", 5))
        self._l1 = _layer(location, self._alias, options.get("l1"), int(options.get("l1_max", 10_000)))

    @cached_property
    def version(self) -> int:  # type: ignore[override]  # an attribute in Django
        """The shared cache's default version."""
        return int(self._l2.version)

    @property
    def _l2(self) -> BaseCache:
        return caches[self._alias]

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        """As Django's; from this process's memory if it is there and young enough."""
        found = self.get_many([key], version)
        return found.get(key, default)

    async def aget(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        """As `get`; waits for no thread if this process has the value."""
        found = await self.aget_many([key], version)
        return found.get(key, default)

    def get_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        """As Django's; one question to the shared cache for all that this process does not have."""
        found, fences = self._remembered(keys, version)
        if fences:
            found |= self._remember(self._l2.get_many(list(fences), version), fences, version)
        return found

    async def aget_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        """As `get_many`; waits for no thread if this process has all the values."""
        found, fences = self._remembered(keys, version)
        if fences:
            fetched = await sync_to_async(self._l2.get_many)(list(fences), version)
            found |= self._remember(fetched, fences, version)
        return found

    def set(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None, **options: Any
    ) -> Any:
        """As Django's. The value is not remembered here before it is read again."""
        return self._writing([key], version, lambda: self._l2.set(key, value, timeout, version, **options))

    def set_many(
        self, data: dict[Any, Any], timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> Any:
        """As Django's."""
        return self._writing(data, version, lambda: self._l2.set_many(data, timeout, version))

    def add(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        """As Django's: decided by the shared cache."""
        return bool(self._writing([key], version, lambda: self._l2.add(key, value, timeout, version)))

    def incr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        """As Django's: decided by the shared cache."""
        return int(self._writing([key], version, lambda: self._l2.incr(key, delta, version)))

    async def aincr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        """As `incr`."""
        # Django's own reads and then writes: two callers would count one.
        return await sync_to_async(self.incr)(key, delta, version)

    def touch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        """As Django's: decided by the shared cache."""
        return bool(self._writing([key], version, lambda: self._l2.touch(key, timeout, version)))

    def delete(self, key: Any, version: int | None = None) -> bool:
        """As Django's."""
        return bool(self._writing([key], version, lambda: self._l2.delete(key, version)))

    def delete_many(self, keys: Iterable[Any], version: int | None = None) -> None:
        """As Django's."""
        listed = list(keys)
        self._writing(listed, version, lambda: self._l2.delete_many(listed, version))

    def has_key(self, key: Any, version: int | None = None) -> bool:
        """As Django's: decided by the shared cache."""
        return bool(self._l2.has_key(key, version))

    async def ahas_key(self, key: Any, version: int | None = None) -> bool:
        """As `has_key`."""
        return await sync_to_async(self.has_key)(key, version)

    def clear(self) -> None:
        """As Django's: empties the shared cache too."""
        try:
            self._l2.clear()
        finally:
            self._l1.clear()

    def _remembered(self, keys: Iterable[Any], version: int | None) -> tuple[dict[Any, Any], dict[Any, int]]:
        found: dict[Any, Any] = {}
        fences: dict[Any, int] = {}
        for key in keys:
            place = self._place(key, version)
            value = self._l1.get(place)
            if value is MISSING:
                fences[key] = self._l1.fence(place)
            else:
                found[key] = value
        return found, fences

    def _remember(
        self, fetched: dict[Any, Any], fences: Mapping[Any, int], version: int | None
    ) -> dict[Any, Any]:
        for key, value in fetched.items():
            self._l1.fill(self._place(key, version), value, self._ttl, fences[key])
        return fetched

    def _writing(self, keys: Iterable[Any], version: int | None, write: Callable[[], Any]) -> Any:
        # Forget after the write, also if it failed: nobody knows what the shared cache holds then.
        try:
            return write()
        finally:
            for key in keys:
                self._l1.drop(self._place(key, version))

    def _place(self, key: Any, version: int | None) -> str:
        return f"{self.version if version is None else version}:{key}"


class Layer(ABC):
    """The near memory of a LayeredCache.

    A fence is read before the shared cache is asked and checked before the answer is kept: if the key
    was dropped in between, the answer is older than the write that dropped it.
    """

    def __init__(self) -> None:
        self.lock = Lock()
        self._fences = [0] * STRIPES

    def fence(self, place: str) -> int:
        return self._fences[hash(place) % STRIPES]

    def fill(self, place: str, value: Any, ttl: float, fence: int) -> None:
        with self.lock:
            if self.fence(place) == fence:
                self.put(place, value, ttl)

    def drop(self, place: str) -> None:
        with self.lock:
            self._fences[hash(place) % STRIPES] += 1
            self.remove(place)

    def clear(self) -> None:
        with self.lock:
            self._fences = [fence + 1 for fence in self._fences]
            self.remove_all()

    @abstractmethod
    def get(self, place: str) -> Any:
        """The value, or MISSING."""

    @abstractmethod
    def put(self, place: str, value: Any, ttl: float) -> None: ...

    @abstractmethod
    def remove(self, place: str) -> None: ...

    @abstractmethod
    def remove_all(self) -> None: ...


class MemoryLayer(Layer):
    """Values of this process, the least used forgotten first; mutable ones are copied for each reader."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit
        self._entries: OrderedDict[str, tuple[float, bool, Any]] = OrderedDict()

    def get(self, place: str) -> Any:
        with self.lock:
            entry = self._entries.get(place)
            if entry is None:
                return MISSING
            deadline, is_pickled, value = entry
            if monotonic() >= deadline:
                del self._entries[place]
                return MISSING
            self._entries.move_to_end(place)
        # What this process pickled a moment ago, never bytes from outside.
        return pickle.loads(value) if is_pickled else value  # noqa: S301

    def put(self, place: str, value: Any, ttl: float) -> None:
        is_pickled = type(value) not in IMMUTABLE
        kept = pickle.dumps(value, pickle.HIGHEST_PROTOCOL) if is_pickled else value
        self._entries[place] = (monotonic() + ttl, is_pickled, kept)
        self._entries.move_to_end(place)
        if len(self._entries) > self._limit:
            self._entries.popitem(last=False)

    def remove(self, place: str) -> None:
        self._entries.pop(place, None)

    def remove_all(self) -> None:
        self._entries.clear()


class AliasLayer(Layer):
    """Another Django cache as the near memory."""

    def __init__(self, alias: str) -> None:
        super().__init__()
        self._alias = alias

    def get(self, place: str) -> Any:
        return caches[self._alias].get(place, MISSING)

    def put(self, place: str, value: Any, ttl: float) -> None:
        caches[self._alias].set(place, value, ttl)

    def remove(self, place: str) -> None:
        caches[self._alias].delete(place)

    def remove_all(self) -> None:
        caches[self._alias].clear()


_layers: dict[tuple[str, str, str | None, int], Layer] = {}
_layers_lock = Lock()


def _layer(location: str, l2: str, l1: str | None, limit: int) -> Layer:
    # Django makes one backend a thread; what is near is shared by all of them.
    with _layers_lock:
        name = (location, l2, l1, limit)
        if name not in _layers:
            _layers[name] = MemoryLayer(limit) if l1 is None else AliasLayer(l1)
        return _layers[name]


def _forget_layers(*, setting: str, **_: Any) -> None:
    if setting == "CACHES":
        _layers.clear()


setting_changed.connect(_forget_layers, dispatch_uid="svc_infra_django.cache.backends")


class Cache:
    """The project's cache as the suite uses it: an outage is a miss, logged, and never an error.

    `add` and `incr`, whose answer somebody relies on, raise CacheUnavailable instead. Timeouts are in
    seconds; None keeps a value until it is evicted.
    """

    def __init__(self) -> None:
        self._asks_again_at = float("-inf")

    @property
    def backend(self) -> BaseCache:
        """Django's cache behind this one."""
        return caches[settings.alias]

    def get(self, key: str, default: Any = None) -> Any:
        """The value, or `default` if there is none or the cache is out."""
        return self._tried(lambda backend: backend.get(key, default), default)

    def get_shared(self, key: str, default: Any = None) -> Any:
        """As `get`, from the cache that all processes share, past the memory of this one."""
        return self._tried(lambda backend: shared(backend).get(key, default), default)

    async def aget(self, key: str, default: Any = None) -> Any:
        """As `get`."""
        return await self._atried(lambda backend: backend.aget(key, default), default)

    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """The values that are there, by key."""
        return self._tried(lambda backend: backend.get_many(keys), {})

    async def aget_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """As `get_many`."""
        return await self._atried(lambda backend: backend.aget_many(keys), {})

    def set(self, key: str, value: Any, timeout: float | None = DEFAULT_TIMEOUT) -> None:
        """Keep `value`; nothing happens if the cache is out."""
        self._tried(lambda backend: backend.set(key, value, timeout), None)

    def set_many(self, values: dict[str, Any], timeout: float | None = DEFAULT_TIMEOUT) -> None:
        """Keep several values; nothing happens if the cache is out."""
        self._tried(lambda backend: backend.set_many(values, timeout), None)

    def delete(self, key: str) -> None:
        """Forget the value; tried even while the cache is left alone after a failure."""
        self.delete_many([key])

    def delete_many(self, keys: Iterable[str]) -> None:
        """Forget several values; tried even while the cache is left alone after a failure."""
        self._tried(lambda backend: backend.delete_many(keys), None, always=True)

    def get_or_set(
        self, key: str, default: Callable[[], Any], timeout: float | None = DEFAULT_TIMEOUT
    ) -> Any:
        """The value, or what `default()` gives, kept for the next caller."""
        value = self.get(key, MISSING)
        if value is MISSING:
            value = default()
            self.set(key, value, timeout)
        return value

    def add(self, key: str, value: Any, timeout: float | None = DEFAULT_TIMEOUT) -> bool:
        """Keep `value` if nobody did before. Raises CacheUnavailable."""
        return self._needed(lambda backend: backend.add(key, value, timeout))

    def incr(self, key: str, delta: int = 1) -> int:
        """Count up. Raises ValueError if there is nothing to count on, CacheUnavailable."""
        return self._needed(lambda backend: backend.incr(key, delta))

    def clear(self) -> None:
        """Forget everything. Raises CacheUnavailable."""
        self._needed(lambda backend: backend.clear())

    aset = sync_to_async(set)
    aset_many = sync_to_async(set_many)
    adelete = sync_to_async(delete)
    adelete_many = sync_to_async(delete_many)
    aadd = sync_to_async(add)
    aincr = sync_to_async(incr)
    aclear = sync_to_async(clear)

    @property
    def is_paused(self) -> bool:
        """Whether the cache failed a moment ago and is left alone."""
        return monotonic() < self._asks_again_at

    def _tried(
        self, ask: Callable[[BaseCache], ResultT], otherwise: ResultT, *, always: bool = False
    ) -> ResultT:
        if self.is_paused and not always:
            return otherwise
        try:
            return ask(self.backend)
        except outages() as error:
            self._pause(error)
            return otherwise

    async def _atried(self, ask: Callable[[BaseCache], Awaitable[ResultT]], otherwise: ResultT) -> ResultT:
        if self.is_paused:
            return otherwise
        try:
            return await ask(self.backend)
        except outages() as error:
            self._pause(error)
            return otherwise

    def _needed(self, ask: Callable[[BaseCache], ResultT]) -> ResultT:
        try:
            return ask(self.backend)
        except outages() as error:
            self._pause(error)
            raise CacheUnavailable() from error

    def _pause(self, error: Exception) -> None:
        self._asks_again_at = monotonic() + settings.pause_seconds
        metrics.increment("cache.outages", alias=settings.alias)
        logger.warning("the cache does not answer", alias=settings.alias, error=type(error).__name__)


def shared(backend: BaseCache) -> BaseCache:
    """What is beneath the near memory of a LayeredCache; any other cache is itself what is shared."""
    return backend._l2 if isinstance(backend, LayeredCache) else backend


def outages() -> tuple[type[Exception], ...]:
    """What a cache raises that does not answer.

    Only a process that has imported redis can meet its errors; importing it for them would cost every
    start half a second.
    """
    redis = sys.modules.get("redis")
    return (OSError, redis.RedisError) if redis else (OSError,)


cache = Cache()

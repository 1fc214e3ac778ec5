"""`@cached`: a function that remembers its answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTime
from contextlib import suppress
from functools import cached_property, update_wrapper
from inspect import iscoroutinefunction, signature
from threading import Lock
from types import MethodType
from typing import Any, Generic, ParamSpec, TypeVar, cast, get_type_hints

from asgiref.sync import markcoroutinefunction, sync_to_async
from django.db.models import Manager, Model, QuerySet
from pydantic import PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from ..observability.metrics import metrics
from .backends import MISSING, cache
from .conf import settings
from .errors import UncacheableResult
from .keys import bound, call_key, filled, portable
from .tags import current_stamps, ensured_stamps, invalidate, pending, stamp_key

ParamsT = ParamSpec("ParamsT")
ResultT = TypeVar("ResultT")

Key = str | Callable[..., str] | None


def cached(
    *, ttl: float, key: Key = None, tags: Sequence[str] = (), none_ttl: float | None = None
) -> Callable[[Callable[ParamsT, ResultT]], Cached[ParamsT, ResultT]]:
    """Remember what the function returns for `ttl` seconds, for each set of arguments.

    `key` is a template such as `"price:{item_id}"`, or a callable that takes the arguments and returns a
    text; without it the key is made of the function's name and all arguments, which must then be plain
    values. `tags` are templates too: `invalidate("item:7")` forgets every value under `"item:{item_id}"`.
    `none_ttl` is how long None is remembered: as long as the rest (None) or not at all (0).

    Works on `def` and `async def`. Several calls at once compute one value once in a process. A value is
    kept as JSON of the annotated return type and every caller gets a copy of its own; what JSON cannot
    carry, such as a model instance, raises UncacheableResult. The function gains `.key(...)` and
    `.invalidate(...)`, which take its arguments.
    """

    def decorate(function: Callable[ParamsT, ResultT]) -> Cached[ParamsT, ResultT]:
        kind = _CachedCoroutine if iscoroutinefunction(function) else _CachedFunction
        return cast(Cached[ParamsT, ResultT], kind(function, ttl, key, tuple(tags), none_ttl))

    return decorate


class Cached(Generic[ParamsT, ResultT]):
    """A function behind a cache."""

    def __init__(
        self,
        function: Callable[ParamsT, ResultT],
        ttl: float,
        key: Key,
        tags: tuple[str, ...],
        none_ttl: float | None,
    ) -> None:
        update_wrapper(self, function)
        self.function = function
        self._ttl = ttl
        self._none_ttl = ttl if none_ttl is None else none_ttl
        self._key = key
        self._tags = tags
        self._signature = signature(function)
        self._name = f"{function.__module__}.{function.__qualname__}"

    def __call__(self, *args: ParamsT.args, **kwargs: ParamsT.kwargs) -> ResultT:
        raise NotImplementedError

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else MethodType(self, instance)

    def key(self, *args: ParamsT.args, **kwargs: ParamsT.kwargs) -> str:
        """The key of this call in the cache. Raises UncacheableArgument."""
        return self._call(args, kwargs).key

    def invalidate(self, *args: ParamsT.args, **kwargs: ParamsT.kwargs) -> None:
        """Forget the value of this call, now or when the open transaction commits."""
        invalidate(self._call(args, kwargs).tags[0])

    async def ainvalidate(self, *args: ParamsT.args, **kwargs: ParamsT.kwargs) -> None:
        """As `invalidate`."""
        await sync_to_async(self.invalidate)(*args, **kwargs)

    @cached_property
    def _codec(self) -> TypeAdapter[Any]:
        hint = get_type_hints(self.function, include_extras=True).get("return", Any)
        if isinstance(hint, type) and issubclass(hint, (Model, QuerySet, Manager)):
            raise UncacheableResult(f"{self._name} returns a {hint.__name__}: return its values instead.")
        try:
            return TypeAdapter(hint)
        except PydanticUserError:
            raise UncacheableResult(f"{self._name} returns {hint!r}, which has no JSON form.") from None

    def _call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> _Call:
        arguments = bound(self._signature, args, dict(kwargs))
        match self._key:
            case None:
                key = call_key(self._name, arguments)
            case str():
                key = portable(filled(self._key, arguments, escaped=True))
            case _:
                key = portable(self._key(*args, **kwargs))
        # The key is a tag of its own value, so that forgetting one call also beats whoever computes it now.
        own = f"key:{key}"
        return _Call(key, (own, *(filled(tag, arguments, escaped=False) for tag in self._tags)))

    def _kept(self, call: _Call, found: Mapping[str, Any]) -> Any:
        value = MISSING
        stamps = current_stamps(call.tags, found)
        made_under, _, text = str(found.get(call.key, "")).partition("\n")
        if stamps is not None and made_under == ",".join(stamps):
            with suppress(ValidationError):  # the return type changed since
                value = self._codec.validate_json(text)
        metrics.increment("cache.calls", function=self._name, outcome="miss" if value is MISSING else "hit")
        return value

    def _text(self, value: Any) -> str:
        try:
            text = self._codec.dump_json(value, warnings="error").decode()
            is_same = self._codec.validate_json(text) == value
        except (PydanticSerializationError, ValidationError, ValueError) as error:
            raise UncacheableResult(f"{self._name} returned a {type(value).__qualname__}: {error}") from error
        if not is_same:
            raise UncacheableResult(
                f"{self._name} returned a {type(value).__qualname__} that JSON gives back as something else; "
                "annotate what it returns."
            )
        return text

    def _keep(self, call: _Call, stamps: Sequence[str] | None, value: Any, text: str) -> None:
        lifetime = self._none_ttl if value is None else self._ttl
        if stamps is not None and lifetime > 0:
            cache.set(call.key, f"{','.join(stamps)}\n{text}", lifetime)


class _CachedFunction(Cached[..., Any]):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._flights: dict[object, Future[str]] = {}
        self._lock = Lock()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        call = self._call(args, kwargs)
        if call.is_dirty:
            return self.function(*args, **kwargs)
        found = cache.get_many(call.asked)
        value = self._kept(call, found)
        if value is not MISSING:
            return value
        # Before the function runs: what is invalidated meanwhile must not count as fresh.
        stamps = ensured_stamps(call.tags, found)
        return self._codec.validate_json(self._flown(call, stamps, args, kwargs))

    def _flown(self, call: _Call, stamps: Sequence[str] | None, args: Any, kwargs: Any) -> str:
        # The stamps are part of it: who comes after an invalidation must not join a flight from before.
        name = (call.key, *(stamps or ()))
        with self._lock:
            flight = self._flights.get(name)
            is_ours = flight is None
            if flight is None:
                flight = self._flights[name] = Future()
        if not is_ours:
            with suppress(NotInTime):
                return flight.result(settings.flight_seconds)
            return self._computed(call, stamps, args, kwargs)
        try:
            text = self._computed(call, stamps, args, kwargs)
        except BaseException as error:
            flight.set_exception(error)
            raise
        else:
            flight.set_result(text)
            return text
        finally:
            with self._lock:
                del self._flights[name]

    def _computed(self, call: _Call, stamps: Sequence[str] | None, args: Any, kwargs: Any) -> str:
        value = self.function(*args, **kwargs)
        text = self._text(value)
        self._keep(call, stamps, value, text)
        return text


class _CachedCoroutine(Cached[..., Any]):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._flights: dict[object, asyncio.Future[str]] = {}
        markcoroutinefunction(self)

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        call = self._call(args, kwargs)
        if call.is_dirty:
            return await self.function(*args, **kwargs)
        found = await cache.aget_many(call.asked)
        value = self._kept(call, found)
        if value is not MISSING:
            return value
        # Before the function runs: what is invalidated meanwhile must not count as fresh.
        stamps = await sync_to_async(ensured_stamps)(call.tags, found)
        return self._codec.validate_json(await self._flown(call, stamps, args, kwargs))

    async def _flown(self, call: _Call, stamps: Sequence[str] | None, args: Any, kwargs: Any) -> str:
        loop = asyncio.get_running_loop()
        name = (id(loop), call.key, *(stamps or ()))
        while name in self._flights:
            flight = self._flights[name]
            try:
                return await asyncio.wait_for(asyncio.shield(flight), settings.flight_seconds)
            except TimeoutError:
                return await self._computed(call, stamps, args, kwargs)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if not flight.cancelled() or (task is not None and task.cancelling()):
                    raise  # we were cancelled, not the one we wait for
        flight = self._flights[name] = loop.create_future()
        try:
            text = await self._computed(call, stamps, args, kwargs)
        except asyncio.CancelledError:
            flight.cancel()
            raise
        except BaseException as error:
            flight.set_exception(error)
            flight.exception()  # nobody may be waiting, and that is no reason for a warning
            raise
        else:
            flight.set_result(text)
            return text
        finally:
            del self._flights[name]

    async def _computed(self, call: _Call, stamps: Sequence[str] | None, args: Any, kwargs: Any) -> str:
        value = await self.function(*args, **kwargs)
        text = self._text(value)
        await sync_to_async(self._keep)(call, stamps, value, text)
        return text


class _Call:
    __slots__ = ("asked", "key", "tags")

    def __init__(self, key: str, tags: tuple[str, ...]) -> None:
        self.key = key
        self.tags = tags
        self.asked = [key, *map(stamp_key, tags)]

    @property
    def is_dirty(self) -> bool:
        """Whether the open transaction will invalidate this: its own reads may not be kept for others."""
        return not pending().isdisjoint(self.tags)

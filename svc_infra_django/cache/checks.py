"""What of CACHES would not do what it seems to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Tags, Warning

from ..config.checks import register
from ..config.sections import BadSettings, load
from .conf import CacheSettings

LAYERED = "svc_infra_django.cache.backends.LayeredCache"
PRIVATE = ("django.core.cache.backends.locmem.LocMemCache", "django.core.cache.backends.dummy.DummyCache")


@register("svc_infra")
def check_layers(app_configs: Any, **_: Any) -> Iterable[CheckMessage]:
    """E001: a layered cache has no shared cache behind it."""
    for alias, options in django_settings.CACHES.items():
        if options["BACKEND"] != LAYERED:
            continue
        l2 = options.get("OPTIONS", {}).get("l2")
        if l2 not in django_settings.CACHES or django_settings.CACHES[l2]["BACKEND"] == LAYERED:
            yield Error(
                f"CACHES[{alias!r}] has l2 {l2!r}, which is no alias of a shared cache.",
                hint='Name an alias of CACHES with another backend in OPTIONS["l2"].',
                id="svc_cache.E001",
            )


@register("svc_infra")
def check_alias(app_configs: Any, **_: Any) -> Iterable[CheckMessage]:
    """E002: the cache that `@cached` uses does not exist."""
    try:
        alias = load(CacheSettings).alias
    except BadSettings:  # svc_config.E002 says so already
        return
    if alias not in django_settings.CACHES:
        yield Error(
            f'SVC_INFRA["cache"]["alias"] is {alias!r}, which is not in CACHES.',
            hint="Name one of the aliases in CACHES.",
            id="svc_cache.E002",
        )


@register(Tags.caches, deploy=True)
def check_shared(app_configs: Any, **_: Any) -> Iterable[CheckMessage]:
    """W001: `invalidate` reaches no other process."""
    try:
        alias = load(CacheSettings).alias
    except BadSettings:  # svc_config.E002 says so already
        return
    options = django_settings.CACHES.get(alias, {})
    if options.get("BACKEND") == LAYERED:
        alias = options.get("OPTIONS", {}).get("l2")
        options = django_settings.CACHES.get(alias, {})
    if options.get("BACKEND") in PRIVATE:
        yield Warning(
            f"CACHES[{alias!r}] lives in one process: invalidating a value does not reach the others.",
            hint="Use a shared cache, such as django_redis.cache.RedisCache.",
            id="svc_cache.W001",
        )

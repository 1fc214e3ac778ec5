from __future__ import annotations

from typing import Any

from django.core.checks import run_checks

from tests.cache.conftest import memory_caches


def ids(*, deploy: bool = False) -> set[str]:
    found = run_checks(include_deployment_checks=deploy)
    return {message.id for message in found if str(message.id).startswith("svc_cache")}


def test_a_sound_arrangement_is_not_reported() -> None:
    assert ids() == set()


def test_a_layer_without_a_shared_cache_is_reported(settings: Any) -> None:
    settings.CACHES = memory_caches(l2="nowhere")
    assert ids() == {"svc_cache.E001"}

    settings.CACHES = memory_caches(l2="default")
    assert ids() == {"svc_cache.E001"}


def test_an_unknown_alias_is_reported(svc_settings: Any) -> None:
    svc_settings(cache={"alias": "nowhere"})

    assert ids() == {"svc_cache.E002"}


def test_a_cache_of_one_process_is_reported_at_deployment(svc_settings: Any) -> None:
    svc_settings(cache={"alias": "shared"})

    assert "svc_cache.W001" in ids(deploy=True)
    assert "svc_cache.W001" not in ids()


def test_a_layer_over_a_cache_of_one_process_is_reported_at_deployment_too() -> None:
    assert "svc_cache.W001" in ids(deploy=True)


def test_a_layer_over_a_shared_cache_is_not(settings: Any) -> None:
    settings.CACHES["shared"]["BACKEND"] = "django_redis.cache.RedisCache"

    assert ids(deploy=True) == set()

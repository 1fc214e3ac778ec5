from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth import get_user_model

PASSWORD = "correct horse battery staple 7"


@pytest.fixture
def make_user(db: None) -> Callable[..., Any]:
    """Make a user: `make_user("ada", is_staff=True)` has the address ada@example.com and PASSWORD."""

    def make(name: str = "ada", **fields: Any) -> Any:
        return get_user_model().objects.create_user(
            username=name, email=f"{name}@example.com", password=PASSWORD, **fields
        )

    return make


@pytest.fixture
def user(make_user: Callable[..., Any]) -> Any:
    return make_user("ada")


@pytest.fixture
def stranger(make_user: Callable[..., Any]) -> Any:
    return make_user("mallory")


@pytest.fixture
def svc_settings(settings: Any) -> Callable[..., None]:
    """Merge into SVC_INFRA for this test: `svc_settings(webhooks={"batch_size": 2})`."""

    def merge(**sections: dict[str, object]) -> None:
        merged = {**settings.SVC_INFRA}
        for name, values in sections.items():
            merged[name] = {**merged.get(name, {}), **values}
        settings.SVC_INFRA = merged

    return merge



from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth.models import Permission

from svc_infra_django.apikeys import issue_key
from svc_infra_django.apikeys.models import ApiKey
from svc_infra_django.apikeys.recorder import recorder


@pytest.fixture
def permit() -> Callable[..., Any]:
    """Give a user Django permissions: `permit(user, "view_role")` returns the user loaded anew."""

    def give(user: Any, *codenames: str) -> Any:
        user.user_permissions.add(*Permission.objects.filter(codename__in=codenames))
        return type(user)._default_manager.get(pk=user.pk)

    return give


@pytest.fixture
def issued(user: Any) -> tuple[ApiKey, str]:
    return issue_key(owner=user, name="robot")


@pytest.fixture(autouse=True)
def own_notes() -> Iterator[None]:
    """Each test counts for itself."""
    recorder.stop()
    yield
    recorder.stop()

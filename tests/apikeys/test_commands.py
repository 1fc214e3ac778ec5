from __future__ import annotations

from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from svc_infra_django.apikeys import verify_key
from svc_infra_django.apikeys.models import ApiKey


def issue(*arguments: str) -> tuple[str, str]:
    out, err = StringIO(), StringIO()
    call_command("issue_api_key", *arguments, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def test_the_key_alone_goes_to_standard_output(user: Any) -> None:
    out, err = issue("--user", "ada", "--name", "robot", "--expires", "90d", "--tenant", "acme")

    key = verify_key(out.strip())
    assert (key.owner, key.name, key.tenant, key.scopes) == (user, "robot", "acme", None)
    assert key.expires_at is not None
    assert timedelta(days=89) < key.expires_at - timezone.now() <= timedelta(days=90)
    assert out.strip() not in err


def test_scopes_are_repeated(make_user: Any) -> None:
    make_user("root", is_superuser=True)

    out, _ = issue(
        "--user",
        "root",
        "--name",
        "robot",
        "--scope",
        "a.b",
        "--scope",
        "c.*",
        "--expires",
        "2100-01-01T00:00:00Z",
    )

    assert verify_key(out.strip()).scopes == ["a.b", "c.*"]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--user", "nobody"], "no user"),
        (["--user", "ada", "--scope", "a.b"], "a.b is not held"),
        (["--user", "ada", "--scope", "nonsense"], "Neither a permission"),
        (["--user", "ada", "--expires", "soon"], "neither days"),
        (["--user", "ada", "--expires", "2100-01-01"], "neither days"),
        (["--user", "ada", "--expires", "2100-99-01T00:00:00Z"], "neither days"),
        (["--user", "ada", "--expires", "0d"], "future"),
        (["--user", "ada", "--expires", "99999d"], "No key may live longer"),
        (["--user", "ada", "--network", "10.0.0.1/8"], "Neither an address nor a network"),
        (["--user", "ada", "--rate", "often"], "600/minute"),
        (["--user", "ada", "--quota", "1/week"], "10000/month"),
    ],
)
def test_mistakes_are_told_and_make_no_key(user: Any, more: list[str], told: str) -> None:
    with pytest.raises(CommandError, match=told):
        issue("--name", "robot", *more)

    assert not ApiKey.objects.exists()


def test_networks_and_limits_are_given(user: Any) -> None:
    issue(
        "--user",
        "ada",
        "--name",
        "robot",
        "--network",
        "192.0.2.0/24",
        "--network",
        "2001:db8::/32",
        "--rate",
        "5/minute",
        "--quota",
        "9/day",
    )

    key = ApiKey.objects.get()
    assert key.allowed_networks == ["192.0.2.0/24", "2001:db8::/32"]
    assert (key.rate, key.quota) == ("5/minute", "9/day")

"""A login by a real OpenID provider: another project, in another process, over HTTP."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import requests
from allauth.socialaccount.models import SocialAccount
from django.test import Client

from svc_infra_django.accounts.providers import forget_providers
from tests.accounts.providers import CALLBACK

pytestmark = pytest.mark.django_db


@pytest.fixture
def provider_url() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = [
        sys.executable,
        "-W",
        "ignore",
        str(Path(__file__).with_name("identity_provider.py")),
        str(port),
    ]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def test_jane_logs_in_by_her_provider_and_is_the_same_the_second_time(
    provider_url: str, settings: Any, svc_settings: Any, client: Client
) -> None:
    forget_providers()
    app = {
        "provider_id": "corp",
        "name": "Corp",
        "client_id": "shop",
        "secret": "shop-secret",
        "settings": {"server_url": provider_url},
    }
    settings.SOCIALACCOUNT_PROVIDERS = {"openid_connect": {"APPS": [app]}}
    svc_settings(accounts={"oauth_callback_url": CALLBACK})
    users = set()

    with requests.Session() as browser:
        browser.get(f"{provider_url}/as/jane")
        for _ in range(2):
            begun = client.get("/api/oauth/authorize", {"provider": "corp"}).json()
            back = browser.get(begun["authorization_url"], allow_redirects=False)
            assert back.status_code == 302
            assert back.headers["Location"].startswith(f"{CALLBACK}?")
            query = dict(parse_qsl(urlsplit(back.headers["Location"]).query))

            arrived = client.get("/api/oauth/callback", query)

            headers = {"Authorization": f"Bearer {arrived.json()['access_token']}"}
            users.add(client.get("/api/auth/me", headers=headers).json()["email"])
            assert client.get("/api/oauth/callback", query).status_code == 401

    assert users == {"jane@example.com"}
    assert SocialAccount.objects.count() == 1

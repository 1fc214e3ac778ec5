"""The keys that sign for an endpoint: v1a beside v1, rotation with a grace, and its end."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from svc_infra_django.sealing import UnsealingFailed
from svc_infra_django.webhooks import publish, verify
from svc_infra_django.webhooks.delivery import deliver_due
from svc_infra_django.webhooks.errors import VerificationError
from svc_infra_django.webhooks.models import Endpoint, SigningKey
from svc_infra_django.webhooks.services.subscribing import rotate_secret, sign_publicly
from svc_infra_django.webhooks.signing import MAX_HEADER_LENGTH, MAX_SIGNATURES

from ..conftest import Receiver


def received(receiver: Receiver) -> tuple[bytes, dict[str, str]]:
    """The newest request, after a message was delivered."""
    publish("order.placed", {"id": 7})
    assert deliver_due() == 1
    return receiver.requests[-1].body, receiver.requests[-1].headers


def test_an_endpoint_may_sign_with_a_public_key_too(endpoint: Endpoint, receiver: Receiver) -> None:
    public = sign_publicly(endpoint)

    body, headers = received(receiver)

    assert public == sign_publicly(endpoint)
    assert verify(body, headers, public) == verify(body, headers, endpoint.shown_secret)  # type: ignore[attr-defined]
    stored = SigningKey.objects.get(kind="v1a")
    assert stored.secret.startswith("whsk_")
    assert "whsk_" not in stored.sealed_secret


def test_a_sealed_secret_opens_in_its_own_row_alone(endpoint: Endpoint) -> None:
    rotate_secret(endpoint, grace_hours=1)
    first, second = SigningKey.objects.all()

    first.sealed_secret = second.sealed_secret

    with pytest.raises(UnsealingFailed):
        _ = first.secret


def test_a_rotation_replaces_both_keys_and_the_old_ones_sign_until_the_grace_is_over(
    endpoint: Endpoint, receiver: Receiver
) -> None:
    old = [endpoint.shown_secret, sign_publicly(endpoint)]  # type: ignore[attr-defined]
    new = [rotate_secret(endpoint, grace_hours=1), sign_publicly(endpoint)]

    body, headers = received(receiver)

    for key in (*old, *new):
        assert verify(body, headers, key)
    SigningKey.objects.exclude(expires_at=None).update(expires_at=timezone.now() - timedelta(seconds=1))
    body, headers = received(receiver)
    for key in new:
        assert verify(body, headers, key)
    for key in old:
        with pytest.raises(VerificationError):
            verify(body, headers, key)


def test_a_rotation_without_grace_ends_every_older_key(endpoint: Endpoint, receiver: Receiver) -> None:
    leaked = [endpoint.shown_secret, rotate_secret(endpoint, grace_hours=100)]  # type: ignore[attr-defined]

    fresh = rotate_secret(endpoint, grace_hours=0)

    body, headers = received(receiver)
    assert verify(body, headers, fresh)
    for key in leaked:
        with pytest.raises(VerificationError):
            verify(body, headers, key)
    assert SigningKey.objects.count() == 1


def test_however_often_it_is_rotated_the_receiver_reads_the_whole_header(
    endpoint: Endpoint, receiver: Receiver
) -> None:
    sign_publicly(endpoint)
    for _ in range(20):
        secret = rotate_secret(endpoint, grace_hours=24)

    body, headers = received(receiver)

    assert len(headers["webhook-signature"]) < MAX_HEADER_LENGTH
    assert len(headers["webhook-signature"].split()) < MAX_SIGNATURES
    assert verify(body, headers, secret)
    assert verify(body, headers, sign_publicly(endpoint))


def test_the_api_lists_keys_without_secrets_and_gives_the_public_one(
    make_endpoint: Callable[..., Endpoint], user: Any
) -> None:
    endpoint = make_endpoint(owner=user)
    client = Client()
    client.force_login(user)
    url = f"/api/webhooks/endpoints/{endpoint.pk}"

    public = client.post(f"{url}/sign-publicly").json()["public_key"]
    rotate_secret(endpoint)
    listed = client.get(f"{url}/keys")

    assert [key["kind"] for key in listed.json()].count("v1a") == 2
    assert public in [key["public_key"] for key in listed.json()]
    for hidden in ("whsec_", "whsk_", endpoint.shown_secret):  # type: ignore[attr-defined]
        assert hidden not in listed.content.decode()


def test_a_stranger_learns_no_keys(make_endpoint: Callable[..., Endpoint], user: Any, stranger: Any) -> None:
    endpoint = make_endpoint(owner=stranger)
    client = Client()
    client.force_login(user)

    assert client.get(f"/api/webhooks/endpoints/{endpoint.pk}/keys").status_code == 404
    assert client.post(f"/api/webhooks/endpoints/{endpoint.pk}/sign-publicly").status_code == 404
    assert not SigningKey.objects.filter(kind="v1a").exists()


def test_staff_see_the_public_key_in_the_admin(endpoint: Endpoint, make_user: Any) -> None:
    client = Client()
    client.force_login(make_user("root", is_staff=True, is_superuser=True))

    client.post(
        "/admin/svc_webhooks/endpoint/", {"action": "sign_publicly", "_selected_action": [str(endpoint.pk)]}
    )

    page = client.get(f"/admin/svc_webhooks/endpoint/{endpoint.pk}/change/").content.decode()
    assert sign_publicly(endpoint) in page
    assert "whsk_" not in page

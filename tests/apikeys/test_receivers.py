from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client

from svc_infra_django.apikeys import issue_key, revoke_key, verify_key
from svc_infra_django.apikeys.errors import InvalidKey
from svc_infra_django.apikeys.models import ApiKey, AuditEntry


def actions(key_id: Any) -> list[str]:
    return list(AuditEntry.objects.filter(key_id=key_id).order_by("id").values_list("action", flat=True))


@pytest.mark.django_db(transaction=True)
def test_rule_63_the_keys_of_a_deleted_user_are_stopped_and_written_down(user: Any, stranger: Any) -> None:
    living, secret = issue_key(owner=user, name="living")
    revoked, _ = issue_key(owner=user, name="revoked")
    other, _ = issue_key(owner=stranger, name="other")
    revoke_key(revoked)
    assert verify_key(secret).pk == living.pk  # and every process knows it

    get_user_model().objects.filter(pk=user.pk).delete()

    assert actions(living.pk) == ["issued", "revoked", "deleted"]
    assert actions(revoked.pk) == ["issued", "revoked", "deleted"]
    assert list(ApiKey.objects.all()) == [other]
    with pytest.raises(InvalidKey):
        verify_key(secret)


def test_rule_63_who_deletes_the_user_in_the_admin_is_named(
    user: Any, admin_client: Client, admin_user: Any
) -> None:
    key, _ = issue_key(owner=user, name="robot")
    owner = str(user.pk)

    admin_client.post(f"/admin/auth/user/{user.pk}/delete/", {"post": "yes"})

    assert not get_user_model().objects.filter(pk=user.pk).exists()
    deleted = AuditEntry.objects.get(key_id=key.pk, action="deleted")
    assert (deleted.owner, deleted.actor) == (owner, str(admin_user.pk))

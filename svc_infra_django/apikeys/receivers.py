"""What others do to users, and their keys must hear of."""

from __future__ import annotations

from typing import Any

from django.conf import settings as django_settings
from django.db.models.signals import pre_delete

from .models import ApiKey
from .services.issuing import delete_key


# The user model is the project's: that its admin, or a shell, deletes somebody is seen here only.
def stop_keys_of_deleted_user(*, instance: Any, using: str, **_: Any) -> None:
    """Stop the user's keys and write it down, before the database takes them away."""
    for key in ApiKey.objects.using(using).filter(owner_id=instance.pk):
        key.owner = instance
        delete_key(key)


pre_delete.connect(
    stop_keys_of_deleted_user,
    sender=django_settings.AUTH_USER_MODEL,
    dispatch_uid="svc_infra_django.apikeys.receivers",
)

"""What others do to users, and the sessions must hear of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.conf import settings as django_settings
from django.db.models.signals import post_delete, post_save

from .services.sharing_sessions import forget_sessions


# The user model is the project's: that its admin, or a shell, disables somebody is seen here only.
def forget_changed_user(
    *, instance: Any, using: str, update_fields: Iterable[str] | None = None, **_: Any
) -> None:
    """Have the sessions of a user who was saved or deleted looked at anew."""
    if update_fields is None or set(update_fields) != {"last_login"}:
        forget_sessions(instance.pk, using=using)


for signal in (post_save, post_delete):
    signal.connect(
        forget_changed_user,
        sender=django_settings.AUTH_USER_MODEL,
        dispatch_uid="svc_infra_django.accounts.receivers",
    )

"""Columns that many tables share, so that they mean the same everywhere."""

from __future__ import annotations

from typing import Any, TypeVar

from django.conf import settings
from django.db import models

from .identifiers import uuid7
from .principals import Principal

RowT = TypeVar("RowT", bound=models.Model, covariant=True)

TENANT_LENGTH = 128


def id_field() -> models.UUIDField[Any, Any]:
    """A primary key that sorts by birth (UUIDv7)."""
    return models.UUIDField(primary_key=True, default=uuid7, editable=False)


def owner_field(*, on_delete: Any) -> models.ForeignKey[Any, Any]:
    """The user that a row belongs to; null where it belongs to the project itself.

    CASCADE for what must die with the user (keys, endpoints), SET_NULL for what must outlive them.
    """
    return models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=on_delete, related_name="+"
    )


def tenant_field() -> models.CharField[str, str]:
    """An opaque name of the tenant; blank where there is only one."""
    return models.CharField(max_length=TENANT_LENGTH, blank=True, default="", db_index=True)


class OwnedQuerySet(models.QuerySet[RowT]):
    """Rows with `owner` and `tenant`."""

    def owned_by(self, principal: Principal) -> OwnedQuerySet[RowT]:
        """What the principal may know of: their own rows in their own tenant. The rest is a 404.

        Whoever has no primary key owns nothing; rows without an owner belong to the project.
        """
        if principal.user.pk is None:
            return self.none()
        return self.filter(owner_id=principal.user.pk, tenant=principal.tenant)

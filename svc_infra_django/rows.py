"""Columns that many tables share, so that they mean the same everywhere."""

from __future__ import annotations

from typing import Any, TypeVar

from django.conf import settings
from django.db import models
from django.utils.text import capfirst

from .errors import NotFoundError
from .identifiers import uuid7
from .principals import Principal

RowT = TypeVar("RowT", bound=models.Model, covariant=True)

TENANT_LENGTH = 128


def id_field() -> models.UUIDField[Any, Any]:
    """A primary key that sorts by birth (UUIDv7)."""
    return models.UUIDField(primary_key=True, default=uuid7, editable=False)


def locked(rows: models.QuerySet[RowT], key: Any, *, no_key: bool = False) -> RowT:
    """The row of this primary key as it is now, locked until the transaction ends.

    With `no_key`, rows that refer to it can be made meanwhile. Raises NotFoundError: whoever looked it up
    a moment ago may find that it was deleted since.
    """
    # Of the rows that `select_related` joins, none is locked.
    found = rows.select_for_update(of=("self",), no_key=no_key).filter(pk=key).first()
    if found is None:
        raise NotFoundError(capfirst(str(rows.model._meta.verbose_name)), key)
    return found


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

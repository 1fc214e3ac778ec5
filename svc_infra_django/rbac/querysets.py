"""Questions about roles and grants, and the one way into the record of their changes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.core.exceptions import ValidationError
from django.db import models, router

from ..chains import ChainedQuerySet
from ..observability.context import request_id
from ..principals import Principal
from ..rows import OwnedQuerySet

if TYPE_CHECKING:
    from .models import Assignment, Role, RoleChange


class RoleQuerySet(OwnedQuerySet["Role"]):
    def usable_in(self, tenant: str) -> RoleQuerySet:
        """Roles that may be granted in `tenant`: its own and those of the whole project."""
        return self.filter(tenant__in={"", tenant})


class AssignmentQuerySet(models.QuerySet["Assignment"]):
    def live(self, *, now: datetime) -> AssignmentQuerySet:
        """Grants that have not ended, of roles that belong where they are granted."""
        return self.filter(
            models.Q(expires_at=None) | models.Q(expires_at__gt=now),
            models.Q(role__tenant="") | models.Q(role__tenant=models.F("tenant")),
        )

    def on_gone_objects(self) -> Iterator[Assignment]:
        """Grants on rows that are not there any more; a query for each type of rows and for each grant's."""
        on_objects = self.exclude(object_type="")
        for object_type in on_objects.order_by().values_list("object_type", flat=True).distinct():
            try:
                model = model_named(object_type)
            except LookupError:
                continue  # of an app that is not installed now
            for given in on_objects.filter(object_type=object_type).select_related("user", "group", "role"):
                key = key_of(model, given.object_id)
                # What a project's own manager hides, as rows in a waste basket, is there all the same; and
                # what a replica does not have yet.
                rows = model._base_manager.using(router.db_for_write(model))
                if key is None or not rows.filter(pk=key).exists():
                    yield given


class RoleChangeQuerySet(ChainedQuerySet["RoleChange"]):
    def append(
        self,
        kind: str,
        *,
        role: Role | None = None,
        user: Any = None,
        group: Any = None,
        actor: Any = None,
        actor_key: str = "",
        **columns: Any,
    ) -> RoleChange:
        """Write what changed, in the caller's transaction: what is undone leaves no row.

        `actor_key` is for changes that Django makes, and of which only a signal tells: whoever is signed in.
        """
        doer = actor.user if isinstance(actor, Principal) else actor
        return self.create(
            kind=kind,
            user_key="" if user is None else str(user.pk),
            group="" if group is None else group.name,
            role_id=None if role is None else role.pk,
            role="" if role is None else role.name,
            actor_key=actor_key if doer is None else str(doer.pk),
            method=actor.method if isinstance(actor, Principal) else "",
            credential_id=actor.credential_id if isinstance(actor, Principal) else "",
            request_id=request_id(),
            **columns,
        )


def model_named(object_type: str) -> type[models.Model]:
    """The model that grants name so. Raises LookupError for one that is none or has no table of ours."""
    model = apps.get_model(object_type)
    if model._meta.swapped or not model._meta.managed:
        raise LookupError(object_type)
    return model


def key_of(model: type[models.Model], text: str) -> Any:
    """The primary key that a grant's `object_id` is, or None for what is none."""
    try:
        return model._meta.pk.to_python(text)
    except ValidationError:
        return None

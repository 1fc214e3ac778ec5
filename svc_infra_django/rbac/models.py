"""Roles, what they permit, who has them, and what was changed by whom."""

from __future__ import annotations

from typing import Any, ClassVar

from django.conf import settings as django_settings
from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.db import models

from ..chains import ChainedRow, ChainHead
from ..principals import PATTERN_LENGTH, is_pattern
from ..rows import id_field, owner_field, tenant_field
from .conf import NAME_LENGTH
from .querysets import AssignmentQuerySet, RoleChangeQuerySet, RoleQuerySet

OBJECT_TYPE_LENGTH = 200
OBJECT_ID_LENGTH = 64


class Role(models.Model):
    """A named set of permissions; with a blank tenant it may be granted anywhere."""

    class Source(models.TextChoices):
        ADMIN = "admin", "made by hand"
        CODE = "code", "declared in the settings"

    id = id_field()
    owner = owner_field(on_delete=models.SET_NULL)
    tenant = tenant_field()
    name = models.CharField(
        max_length=NAME_LENGTH,
        validators=[RegexValidator(r"\A[^\x00-\x1f\x7f]+\Z", "A name has no control characters.")],
    )
    description = models.CharField(max_length=500, blank=True)
    source = models.CharField(max_length=8, choices=Source.choices, default=Source.ADMIN, editable=False)
    includes = models.ManyToManyField("self", symmetrical=False, related_name="included_by", blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = RoleQuerySet.as_manager()

    class Meta:
        ordering = ["tenant", "name"]
        constraints = [
            models.UniqueConstraint(fields=["tenant", "name"], name="svc_rbac_role_name"),
            models.CheckConstraint(
                condition=models.Q(source__in=["admin", "code"]), name="svc_rbac_role_source"
            ),
            models.CheckConstraint(
                condition=~models.Q(source="code") | models.Q(tenant=""), name="svc_rbac_code_role_is_global"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.tenant})" if self.tenant else self.name


class RolePermission(models.Model):
    """One permission of a role, exact or with a wildcard: given, or taken away whatever gives it."""

    id = id_field()
    role = models.ForeignKey(Role, on_delete=models.CASCADE, related_name="permissions")
    pattern = models.CharField("permission", max_length=PATTERN_LENGTH)
    denies = models.BooleanField(default=False)

    class Meta:
        ordering = ["pattern"]
        constraints = [models.UniqueConstraint(fields=["role", "pattern"], name="svc_rbac_permission_once")]

    def __str__(self) -> str:
        return f"not {self.pattern}" if self.denies else self.pattern

    def clean(self) -> None:
        if not is_pattern(self.pattern):
            raise ValidationError(
                {"pattern": "Write a permission (orders.add_order) or a wildcard (orders.*, *)."}
            )


class Assignment(models.Model):
    """A grant: this user, or each member of this group, has this role until it ends.

    It counts everywhere, in one tenant, or for one object: there only where the tenant is the object's.
    """

    id = id_field()
    user = models.ForeignKey(
        django_settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.CASCADE, related_name="+"
    )
    group = models.ForeignKey(Group, null=True, blank=True, on_delete=models.CASCADE, related_name="+")
    role = models.ForeignKey(Role, on_delete=models.PROTECT, related_name="assignments")
    tenant = tenant_field()
    object_type = models.CharField(max_length=OBJECT_TYPE_LENGTH, blank=True)
    object_id = models.CharField(max_length=OBJECT_ID_LENGTH, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    granted_by = models.ForeignKey(
        django_settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        editable=False,
        on_delete=models.SET_NULL,
        related_name="+",
    )
    reason = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = AssignmentQuerySet.as_manager()

    class Meta:
        verbose_name = "grant"
        ordering = ["-created_at", "-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["user", "role", "tenant", "object_type", "object_id"], name="svc_rbac_grant_once"
            ),
            models.UniqueConstraint(
                fields=["group", "role", "tenant", "object_type", "object_id"],
                name="svc_rbac_group_grant_once",
            ),
            models.CheckConstraint(
                condition=models.Q(user=None, group__isnull=False) | models.Q(user__isnull=False, group=None),
                name="svc_rbac_grant_has_one_holder",
            ),
            models.CheckConstraint(
                condition=models.Q(object_type="", object_id="")
                | ~models.Q(object_type="") & ~models.Q(object_id=""),
                name="svc_rbac_grant_names_an_object",
            ),
        ]
        indexes = [
            models.Index(fields=["-created_at", "-id"], name="svc_rbac_grant_newest"),
            models.Index(fields=["tenant", "-created_at", "-id"], name="svc_rbac_grant_of_tenant"),
            models.Index(
                fields=["object_type", "object_id"],
                condition=~models.Q(object_type=""),
                name="svc_rbac_grant_on_object",
            ),
        ]

    def __str__(self) -> str:
        of = f" on {self.object_type} {self.object_id}" if self.object_type else ""
        return f"{self.role} for {self.user or self.group}{of}" + (
            f" in {self.tenant}" if self.tenant else ""
        )

    @property
    def told(self) -> dict[str, Any]:
        """Who has which role, and on what, as events tell it."""
        return {
            "user_id": None if self.user is None else str(self.user.pk),
            "group": None if self.group is None else self.group.name,
            "role": self.role.name,
            "object": f"{self.object_type}:{self.object_id}" if self.object_type else "",
        }


class RoleChange(ChainedRow):
    """One change of grants or roles, written in the transaction that makes it.

    It outlives what it tells of, so it names users and roles without pointing at them. Every process
    also learns from it whose rights it must read again.
    """

    class Kind(models.TextChoices):
        GRANTED = "granted", "granted"
        MOVED = "moved", "grant changed"
        WITHDRAWN = "withdrawn", "withdrawn"
        JOINED = "joined", "joined a group"
        LEFT = "left", "left a group"
        DEFINED = "defined", "role made"
        CHANGED = "changed", "role changed"
        REMOVED = "removed", "role removed"

    kind = models.CharField(max_length=12, choices=Kind.choices)
    tenant = tenant_field()
    user_key = models.CharField("user", max_length=64, blank=True, db_index=True)
    """The primary key of the user as text; blank where more than one user is concerned."""

    group = models.CharField(max_length=150, blank=True)
    role_id = models.UUIDField(null=True, blank=True, db_index=True)
    role = models.CharField(max_length=NAME_LENGTH, blank=True)
    object_type = models.CharField(max_length=OBJECT_TYPE_LENGTH, blank=True)
    object_id = models.CharField(max_length=OBJECT_ID_LENGTH, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    details = models.JSONField(default=dict, blank=True)
    """For a role, what it has gained and lost: `{"permissions": {"added": [], "removed": []}}`."""

    reason = models.CharField(max_length=500, blank=True)
    actor_key = models.CharField("by", max_length=64, blank=True)
    """The primary key of who did it as text; blank for the project itself."""

    method = models.CharField(max_length=32, blank=True)
    credential_id = models.CharField(max_length=64, blank=True)
    request_id = models.CharField(max_length=128, blank=True)

    objects = RoleChangeQuerySet.as_manager()

    class Meta(ChainedRow.Meta):
        verbose_name = "change"
        ordering: ClassVar[list[str]] = ["-created_at", "-id"]
        constraints: ClassVar[list[Any]] = [
            *ChainedRow.Meta.constraints,
            models.CheckConstraint(
                condition=models.Q(
                    kind__in=[
                        "granted",
                        "moved",
                        "withdrawn",
                        "joined",
                        "left",
                        "defined",
                        "changed",
                        "removed",
                    ]
                ),
                name="svc_rbac_change_kind",
            ),
        ]
        indexes: ClassVar[list[Any]] = [
            *ChainedRow.Meta.indexes,
            models.Index(fields=["-created_at", "-id"], name="svc_rbac_change_latest"),
            models.Index(fields=["tenant", "-created_at", "-id"], name="svc_rbac_change_of_tenant"),
        ]

    def __str__(self) -> str:
        return f"{self.role or self.group}: {self.get_kind_display()}"


class RoleChangeHead(ChainHead):
    """The end of the chain of changes."""

    chain_of = RoleChange

    class Meta(ChainHead.Meta):
        pass

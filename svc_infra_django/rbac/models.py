"""Roles, what they permit, and who has them."""

from __future__ import annotations

from django.conf import settings as django_settings
from django.core.exceptions import ValidationError
from django.db import models

from ..principals import PATTERN_LENGTH, is_pattern
from ..rows import id_field, owner_field, tenant_field
from .conf import NAME_LENGTH
from .querysets import AssignmentQuerySet, RoleQuerySet


class Role(models.Model):
    """A named set of permissions; with a blank tenant it may be granted anywhere."""

    class Source(models.TextChoices):
        ADMIN = "admin", "made by hand"
        CODE = "code", "declared in the settings"

    id = id_field()
    owner = owner_field(on_delete=models.SET_NULL)
    tenant = tenant_field()
    name = models.CharField(max_length=NAME_LENGTH)
    description = models.CharField(max_length=500, blank=True)
    source = models.CharField(max_length=8, choices=Source.choices, default=Source.ADMIN, editable=False)
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
    """One permission of a role, exact or with a wildcard."""

    id = id_field()
    role = models.ForeignKey(Role, on_delete=models.CASCADE, related_name="permissions")
    pattern = models.CharField("permission", max_length=PATTERN_LENGTH)

    class Meta:
        ordering = ["pattern"]
        constraints = [models.UniqueConstraint(fields=["role", "pattern"], name="svc_rbac_permission_once")]

    def __str__(self) -> str:
        return self.pattern

    def clean(self) -> None:
        if not is_pattern(self.pattern):
            raise ValidationError(
                {"pattern": "Write a permission (orders.add_order) or a wildcard (orders.*, *)."}
            )


class Assignment(models.Model):
    """A grant: this user has this role, in this tenant or (blank) everywhere, until it ends."""

    id = id_field()
    user = models.ForeignKey(django_settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    role = models.ForeignKey(Role, on_delete=models.PROTECT, related_name="assignments")
    tenant = tenant_field()
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
        constraints = [models.UniqueConstraint(fields=["user", "role", "tenant"], name="svc_rbac_grant_once")]
        indexes = [models.Index(fields=["-created_at", "-id"], name="svc_rbac_grant_newest")]

    def __str__(self) -> str:
        return f"{self.role} for {self.user}" + (f" in {self.tenant}" if self.tenant else "")

"""Keys: everything but the key itself."""

from __future__ import annotations

from datetime import datetime

from django.db import models

from ..rows import id_field, owner_field, tenant_field
from .querysets import ApiKeyQuerySet

NAME_LENGTH = 100


class ApiKey(models.Model):
    """A credential that acts for its owner within `scopes`; the key itself is kept nowhere."""

    class Environment(models.TextChoices):
        LIVE = "live"
        TEST = "test"

    id = id_field()
    owner = owner_field(on_delete=models.CASCADE)
    tenant = tenant_field()
    name = models.CharField(max_length=NAME_LENGTH)
    prefix = models.CharField(max_length=32, editable=False)
    last4 = models.CharField(max_length=4, editable=False, db_index=True)
    environment = models.CharField(max_length=4, choices=Environment.choices, editable=False)
    digest = models.BinaryField(max_length=32, unique=True, editable=False)
    pepper_id = models.CharField(max_length=8, editable=False)
    scopes = models.JSONField(null=True, blank=True)
    created_at = models.DateTimeField(editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)
    successor = models.OneToOneField(
        "self", null=True, blank=True, editable=False, on_delete=models.SET_NULL, related_name="predecessor"
    )

    objects = ApiKeyQuerySet.as_manager()

    class Meta:
        verbose_name = "API key"
        ordering = ["-created_at", "-id"]
        constraints = [
            models.CheckConstraint(condition=models.Q(owner__isnull=False), name="svc_apikeys_key_has_owner"),
            models.CheckConstraint(
                condition=models.Q(environment__in=["live", "test"]), name="svc_apikeys_key_environment"
            ),
            models.CheckConstraint(
                condition=models.Q(successor=None) | ~models.Q(successor=models.F("id")),
                name="svc_apikeys_key_not_own_successor",
            ),
        ]
        indexes = [
            models.Index(fields=["owner", "tenant", "-created_at", "-id"], name="svc_apikeys_key_of_owner"),
            models.Index(fields=["-created_at", "-id"], name="svc_apikeys_key_newest"),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.hint})"

    @property
    def hint(self) -> str:
        """Enough to recognise the key by: its prefix and last four characters."""
        return f"{self.prefix}…{self.last4}"

    @property
    def granted_scopes(self) -> frozenset[str] | None:
        """The scopes as a Principal wants them; None is all that the owner may."""
        return None if self.scopes is None else frozenset(self.scopes)

    def state(self, *, now: datetime) -> str:
        """`active`, `rotated` (still within its grace), `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is not None and self.expires_at <= now:
            return "expired"
        return "rotated" if self.successor_id else "active"

"""Keys: everything but the key itself; what each may use, has used, and what happened to it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, ClassVar

from django.core.exceptions import ValidationError
from django.db import models

from ..chains import ChainedRow, ChainHead
from ..principals import tenant_of_tests
from ..rows import TENANT_LENGTH, id_field, owner_field, tenant_field
from .conf import settings
from .limits import Quota, Rate, parsed_quota, parsed_rate
from .querysets import ApiKeyQuerySet, AuditQuerySet, UsageQuerySet

Network = IPv4Network | IPv6Network

NAME_LENGTH = 100
LIMIT_LENGTH = 24
MAX_NETWORKS = 50
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


def check_rate(text: str) -> None:
    """Raises Django's ValidationError for what is no rate."""
    try:
        parsed_rate(text)
    except ValueError as error:
        raise ValidationError(f"A rate {error}.", code="bad_rate") from None


def check_quota(text: str) -> None:
    """Raises Django's ValidationError for what is no quota."""
    try:
        parsed_quota(text)
    except ValueError as error:
        raise ValidationError(f"A quota {error}.", code="bad_quota") from None


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
    allowed_networks = models.JSONField(
        default=list, blank=True, help_text="Addresses and networks (192.0.2.0/24). Empty: from anywhere."
    )
    rate = models.CharField(
        max_length=LIMIT_LENGTH,
        blank=True,
        default="",
        validators=[check_rate],
        help_text="Such as 600/minute. Empty: the project's default.",
    )
    quota = models.CharField(
        max_length=LIMIT_LENGTH,
        blank=True,
        default="",
        validators=[check_quota],
        help_text="Such as 10000/month. Empty: the project's default.",
    )
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
    def acting_tenant(self) -> str:
        """Where the key acts: its tenant, or that of the tests beside it."""
        is_beside = self.environment == self.Environment.TEST and settings.environment != "test"
        return tenant_of_tests(self.tenant) if is_beside else self.tenant

    @property
    def granted_scopes(self) -> frozenset[str] | None:
        """The scopes as a Principal wants them; None is all that the owner may."""
        return None if self.scopes is None else frozenset(self.scopes)

    @property
    def networks(self) -> tuple[Network, ...]:
        """Where the key may be used from; none is anywhere."""
        return tuple(map(ip_network, self.allowed_networks))

    @property
    def rate_in_force(self) -> Rate | None:
        """Its own rate or the project's."""
        return parsed_rate(self.rate or settings.default_rate)

    @property
    def quota_in_force(self) -> Quota | None:
        """Its own quota or the project's."""
        return parsed_quota(self.quota or settings.default_quota)

    def state(self, *, now: datetime) -> str:
        """`active`, `rotated` (still within its grace), `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is not None and self.expires_at <= now:
            return "expired"
        return "rotated" if self.successor_id else "active"


class Allowance(models.Model):
    """What a key with a rate or a quota has spent. One UPDATE decides and spends, so it is exact."""

    key = models.OneToOneField(ApiKey, primary_key=True, related_name="allowance", on_delete=models.CASCADE)
    spent_until = models.BigIntegerField(default=0)
    """Microseconds since 1970: the moment at which the rate is whole again."""

    quota_since = models.DateTimeField(default=LONG_AGO)
    quota_used = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return str(self.key_id)


class UsageHour(models.Model):
    """How often a key was used and refused in one hour."""

    # No constraint in the database: what was counted may be written down after the key is gone.
    key = models.ForeignKey(ApiKey, on_delete=models.CASCADE, related_name="hours", db_constraint=False)
    hour = models.DateTimeField(db_index=True)
    used = models.BigIntegerField(default=0)
    refused = models.BigIntegerField(default=0)

    objects = UsageQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["key", "hour"], name="svc_apikeys_usage_once")]

    def __str__(self) -> str:
        return f"{self.key_id} {self.hour:%Y-%m-%dT%H}: {self.used}"


class AuditEntry(ChainedRow):
    """One thing that happened to a key."""

    class Action(models.TextChoices):
        ISSUED = "issued"
        ROTATED = "rotated"
        REVOKED = "revoked"
        CHANGED = "changed"
        DELETED = "deleted"
        REFUSED = "refused"

    action = models.CharField(max_length=16, choices=Action.choices)
    # Text and no foreign keys: an entry outlives what it speaks of.
    key_id = models.UUIDField(db_index=True)
    key_name = models.CharField(max_length=NAME_LENGTH)
    key_hint = models.CharField(max_length=40)
    owner = models.CharField(max_length=64, db_index=True)
    tenant = models.CharField(max_length=TENANT_LENGTH, blank=True)
    actor = models.CharField(max_length=64, blank=True)
    actor_method = models.CharField(max_length=16, blank=True)
    request_id = models.CharField(max_length=128, blank=True)
    details = models.JSONField(default=dict)

    objects = AuditQuerySet.as_manager()

    class Meta(ChainedRow.Meta):
        verbose_name_plural = "audit entries"
        ordering: ClassVar[list[str]] = ["-created_at", "-id"]
        indexes: ClassVar[list[Any]] = [
            *ChainedRow.Meta.indexes,
            models.Index(fields=["-created_at", "-id"], name="svc_apikeys_audit_latest"),
        ]

    def __str__(self) -> str:
        return f"{self.key_name} {self.action}"


class AuditHead(ChainHead):
    """The end of the chain of audit entries."""

    chain_of = AuditEntry

    class Meta(ChainHead.Meta):
        pass


def network_texts(texts: Iterable[str]) -> list[str]:
    """Networks as they are stored, each once. Raises ValueError with the place of the bad one."""
    found: list[str] = []
    for place, text in enumerate(texts):
        try:
            network = str(_plain(ip_network(text.strip())))
        except ValueError:
            raise ValueError(place) from None
        if network not in found:
            found.append(network)
    return found


def _plain(network: Network) -> Network:
    # Callers from ::ffff:192.0.2.1 are known as 192.0.2.1.
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    return IPv4Network((mapped, network.prefixlen - 96)) if mapped and network.prefixlen >= 96 else network

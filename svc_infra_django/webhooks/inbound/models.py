"""The inbox: each webhook once, as it came."""

from __future__ import annotations

from datetime import datetime

from django.db import models
from django.db.models import Q
from django.utils import timezone

from ...observability.redaction import redacted
from ...rows import id_field
from .conf import SOURCE_LENGTH
from .presets import ID_LENGTH, SIGNER_LENGTH, TYPE_LENGTH
from .querysets import InboxQuerySet

ERROR_LENGTH = 1000


class InboxMessage(models.Model):
    """One webhook that was verified. What the sender delivers again finds this row."""

    class State(models.TextChoices):
        RECEIVED = "received", "received: waits for the worker"
        HANDLED = "handled", "handled"
        FAILED = "failed", "failed: its handler raised"

    id = id_field()
    source = models.CharField(max_length=SOURCE_LENGTH)
    signer = models.CharField(max_length=SIGNER_LENGTH, blank=True, default="", editable=False)
    """A keyed digest of the secret that signed it, where each customer has one: they share no ids."""
    external_id = models.CharField(max_length=ID_LENGTH)
    """The sender's id, or a digest of the body if there is none."""
    event_type = models.CharField(max_length=TYPE_LENGTH, blank=True, default="")
    body = models.BinaryField()
    headers = models.JSONField(default=dict)
    """Those that the preset keeps."""
    context = models.JSONField(default=dict)
    """Request id and trace of the request that brought it."""
    state = models.CharField(max_length=8, choices=State, default=State.RECEIVED)
    attempts = models.PositiveIntegerField(default=0)
    """How often the handler was called."""
    repeats = models.PositiveIntegerField(default=0)
    """How often it came again."""
    error = models.CharField(max_length=ERROR_LENGTH, blank=True, default="")
    """What the handler raised last, values of secrets taken out."""
    received_at = models.DateTimeField(default=timezone.now, editable=False)
    handled_at = models.DateTimeField(null=True, blank=True)

    objects = InboxQuerySet.as_manager()

    class Meta:
        ordering = ["-received_at", "-id"]
        verbose_name = "received webhook"
        constraints = [
            models.UniqueConstraint("source", "signer", "external_id", name="svc_inbound_once"),
            models.CheckConstraint(
                condition=Q(state__in=["received", "handled", "failed"]), name="svc_inbound_state"
            ),
            models.CheckConstraint(
                condition=Q(state="handled", handled_at__isnull=False)
                | (~Q(state="handled") & Q(handled_at__isnull=True)),
                name="svc_inbound_handled_at",
            ),
        ]
        indexes = [
            models.Index(fields=["-received_at", "-id"], name="svc_inbound_newest"),
            models.Index(fields=["source", "-received_at", "-id"], name="svc_inbound_of_source"),
            models.Index(
                fields=["-received_at", "-id"], name="svc_inbound_failed", condition=Q(state="failed")
            ),
        ]

    def __str__(self) -> str:
        return f"{self.source} {self.external_id}"

    def mark_waiting(self) -> None:
        self._mark(self.State.RECEIVED, None)

    def mark_handled(self, *, now: datetime) -> None:
        self._mark(self.State.HANDLED, now)

    def mark_failed(self, error: BaseException) -> None:
        text = f"{type(error).__module__}.{type(error).__qualname__}: {error}".replace("\x00", "")
        shown = redacted(text.encode(errors="replace").decode())
        self._mark(self.State.FAILED, None, error=shown[:ERROR_LENGTH])

    def note_repeat(self) -> None:
        """It came again."""
        self.repeats += 1
        self.save(update_fields=["repeats"])

    def _mark(self, state: State, handled_at: datetime | None, *, error: str = "") -> None:
        self.state, self.handled_at, self.error = state, handled_at, error
        self.save(update_fields=["state", "handled_at", "error", "attempts"])

"""The other side of a webhook: a stranger's service, played by this project."""

from __future__ import annotations

from django.db import models

from svc_infra_django import rows, sealing


class Receiver(models.Model):
    """A service at `/demo/webhooks/<slug>` that verifies what it hears with the secret it was given."""

    slug = models.SlugField(primary_key=True)
    sealed_secret = models.TextField(blank=True, editable=False)
    is_failing = models.BooleanField(default=False, help_text="Answers 500 while this is ticked.")

    def __str__(self) -> str:
        return self.slug

    @property
    def secret(self) -> str:
        """What it shares with the sender; empty until somebody gives it one, and then nothing verifies."""
        if not self.sealed_secret:
            return ""
        return sealing.unseal(self.sealed_secret, context=f"demo.receiver:{self.slug}")

    @secret.setter
    def secret(self, value: str) -> None:
        self.sealed_secret = sealing.seal(value, context=f"demo.receiver:{self.slug}")


class ReceivedWebhook(models.Model):
    """One verified message. A message that comes twice is kept once: its id is the same."""

    id = rows.id_field()
    receiver = models.ForeignKey(Receiver, on_delete=models.CASCADE)
    message_id = models.CharField(max_length=100)
    event_type = models.CharField(max_length=128)
    body = models.JSONField()
    request_id = models.CharField(max_length=128, blank=True)
    received_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["receiver", "message_id"], name="received_webhook_once"),
        ]

    def __str__(self) -> str:
        return f"{self.event_type} {self.message_id}"

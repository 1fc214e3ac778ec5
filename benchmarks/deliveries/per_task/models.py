from __future__ import annotations

from django.db import models


class Endpoint(models.Model):
    url = models.URLField()
    event_type = models.CharField(max_length=100, db_index=True)
    secret = models.CharField(max_length=100)
    failures = models.PositiveIntegerField(default=0)
    last_success_at = models.DateTimeField(null=True)

    class Meta:
        app_label = "per_task"

    def __str__(self) -> str:
        return self.url


class Message(models.Model):
    event_type = models.CharField(max_length=100)
    data = models.JSONField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        app_label = "per_task"

    def __str__(self) -> str:
        return self.event_type


class Delivery(models.Model):
    message = models.ForeignKey(Message, on_delete=models.CASCADE)
    endpoint = models.ForeignKey(Endpoint, on_delete=models.CASCADE)
    state = models.CharField(max_length=10, default="pending", db_index=True)
    attempts = models.PositiveIntegerField(default=0)

    class Meta:
        app_label = "per_task"

    def __str__(self) -> str:
        return f"{self.message_id} to {self.endpoint_id}"


class Attempt(models.Model):
    delivery = models.ForeignKey(Delivery, on_delete=models.CASCADE)
    status_code = models.PositiveIntegerField()
    duration_ms = models.FloatField()
    response = models.TextField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        app_label = "per_task"

    def __str__(self) -> str:
        return f"{self.delivery_id}: {self.status_code}"

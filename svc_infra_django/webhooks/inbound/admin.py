"""The inbox for staff: what came, what became of it, and once more."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db import models
from django.http import HttpRequest

from ...admin import MachineRowAdmin
from ...errors import SvcInfraError
from .conf import settings
from .models import InboxMessage
from .services import replaying

SHOWN_BYTES = 20_000


class SourceFilter(admin.SimpleListFilter):
    """The sources of the settings: asking the table for its own would read all of it."""

    title = "source"
    parameter_name = "source"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in sorted(settings.sources)]

    def queryset(self, request: HttpRequest, queryset: models.QuerySet[Any]) -> models.QuerySet[Any]:
        return queryset.filter(source=self.value()) if self.value() else queryset


@admin.register(InboxMessage)
class InboxMessageAdmin(MachineRowAdmin):
    """Webhooks that came in."""

    list_display = ["source", "event_type", "external_id", "state", "attempts", "repeats", "received_at"]
    list_filter = [SourceFilter, "state"]
    search_fields = ["external_id__exact"]
    search_help_text = "The sender's id, whole."
    fields = [
        "id", "source", "external_id", "event_type", "state", "attempts", "repeats", "error", "text",
        "headers", "context", "received_at", "handled_at",
    ]  # fmt: skip
    readonly_fields = ["id", "text"]
    actions = ["replay"]

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        found = super().get_queryset(request)
        is_one = request.resolver_match and "object_id" in request.resolver_match.kwargs
        return found if is_one else found.defer("body")

    @admin.display(description="body")
    def text(self, message: InboxMessage) -> str:
        return bytes(message.body)[:SHOWN_BYTES].decode(errors="replace")

    @admin.action(description="Have the handler called again")
    def replay(self, request: HttpRequest, queryset: models.QuerySet[InboxMessage]) -> None:
        count = 0
        for message in queryset:
            try:
                replaying.replay(message)
            except SvcInfraError as error:
                self.message_user(request, f"{message}: {error.message}", messages.ERROR)
            else:
                count += 1
                self.log_change(request, message, "Replayed.")
        self.message_user(request, f"Webhooks that will be handled again: {count}.")

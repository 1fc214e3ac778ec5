"""The stranger's own settings page."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest

from svc_infra_django.admin import MachineRowAdmin

from .models import ReceivedWebhook, Receiver


class ReceiverForm(forms.ModelForm):
    new_secret = forms.CharField(
        required=False,
        widget=forms.PasswordInput,
        help_text="The signing secret of the endpoint that calls this receiver. Blank keeps the present one.",
    )

    class Meta:
        model = Receiver
        fields = ["slug", "is_failing"]


@admin.register(Receiver)
class ReceiverAdmin(admin.ModelAdmin):
    form = ReceiverForm
    list_display = ["slug", "is_failing"]
    list_editable = ["is_failing"]

    def save_model(self, request: HttpRequest, obj: Receiver, form: Any, change: bool) -> None:
        if form.cleaned_data.get("new_secret"):
            obj.secret = form.cleaned_data["new_secret"]
        super().save_model(request, obj, form, change)


@admin.register(ReceivedWebhook)
class ReceivedWebhookAdmin(MachineRowAdmin):
    list_display = ["message_id", "event_type", "receiver", "received_at"]
    list_filter = ["receiver"]
    search_fields = ["=message_id"]

"""Staff issue, change, rotate and revoke keys; no page but the one that answers shows a key."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth import get_user_model
from django.db import models
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables

from ..admin import ChainedRowAdmin, MachineRowAdmin, UserPicker, secret_shown_once
from ..errors import SvcInfraError
from .errors import KeyAlreadyRevoked
from .models import ApiKey, AuditEntry
from .services.issuing import (
    change_key,
    check_new_key,
    checked_networks,
    delete_key,
    issue_key,
    revoke_key,
    rotate_key,
)

if TYPE_CHECKING:
    ModelForm = forms.ModelForm[ApiKey]
else:
    # Generic for the type checker only.
    ModelForm = forms.ModelForm

ADVICE = "Copy this key to where it will be used. Whoever holds it can do what it may."


DAYS_SHOWN = 7
BAR, TALLEST, GROUND = 5, 56, 60


class ChangeForm(ModelForm):
    """What may be changed of a key."""

    allowed_networks = forms.CharField(
        required=False,
        widget=forms.Textarea(attrs={"rows": 3, "cols": 40}),
        help_text="One address or network (192.0.2.0/24) a line. Empty: from anywhere.",
    )

    class Meta:
        model = ApiKey
        fields = ["name", "allowed_networks", "rate", "quota"]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.instance.pk:
            self.initial["allowed_networks"] = "\n".join(self.instance.allowed_networks)

    def clean_allowed_networks(self) -> list[str]:
        texts = self.cleaned_data["allowed_networks"].split()
        try:
            return checked_networks(texts)
        except SvcInfraError as error:
            raise forms.ValidationError([problem.message for problem in error.errors]) from None


class IssueForm(ChangeForm):
    """A new key; asks the service before, so that its refusal is shown beside the form."""

    actor: Any = None

    scopes = forms.CharField(
        required=False,
        widget=forms.Textarea(attrs={"rows": 4, "cols": 60}),
        help_text="One permission (orders.view_order) or wildcard (orders.*) a line. "
        "Empty: all that the owner may.",
    )

    class Meta:
        model = ApiKey
        fields = ["name", "owner", "tenant", "scopes", "expires_at", "allowed_networks", "rate", "quota"]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.fields["owner"].required = True

    def clean_scopes(self) -> list[str] | None:
        return self.cleaned_data["scopes"].split() or None

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        if not self.errors:
            try:
                check_new_key(
                    owner=cleaned["owner"],
                    scopes=cleaned["scopes"],
                    tenant=cleaned["tenant"],
                    expires_at=cleaned["expires_at"],
                    rate=cleaned["rate"],
                    quota=cleaned["quota"],
                    actor=self.actor,
                )
            except SvcInfraError as error:
                for problem in error.errors:
                    self.add_error(problem.pointer.split("/")[2], problem.message)
                if not error.errors:
                    raise forms.ValidationError(error.message) from error
        return cleaned


@admin.register(ApiKey)
class ApiKeyAdmin(UserPicker, MachineRowAdmin):
    """Keys by their prefix and last four characters. What a key may do is never edited."""

    list_display = ["name", "owner", "tenant", "hint", "state", "created_at", "expires_at", "last_used_at"]
    list_select_related = ["owner"]
    list_filter = ["environment", ("revoked_at", admin.EmptyFieldListFilter)]
    raw_id_fields = ["owner"]
    user_fields = ("owner",)
    actions = ["rotate", "revoke"]
    shown = [
        "id",
        "name",
        "owner",
        "tenant",
        "hint",
        "state",
        "scopes",
        "allowed_networks",
        "rate",
        "quota",
        "created_at",
        "expires_at",
        "last_used_at",
        "revoked_at",
        "successor",
        "usage",
    ]

    @admin.display(description="key")
    def hint(self, key: ApiKey) -> str:
        return key.hint

    @admin.display(description="state")
    def state(self, key: ApiKey) -> str:
        return key.state(now=timezone.now())

    @admin.display(description=f"use in {DAYS_SHOWN} days")
    def usage(self, key: ApiKey) -> str:
        return usage_chart(key, now=timezone.now())

    def get_search_fields(self, request: HttpRequest) -> list[str]:
        return ["last4__exact", f"owner__{get_user_model().USERNAME_FIELD}__startswith", "tenant__exact"]

    def get_fields(self, request: HttpRequest, obj: models.Model | None = None) -> Any:
        return IssueForm.Meta.fields if obj is None else self.shown

    def get_readonly_fields(self, request: HttpRequest, obj: models.Model | None = None) -> list[str]:
        if obj is None:
            return []
        if not self.has_change_permission(request, obj):
            return self.shown
        return [name for name in self.shown if name not in ChangeForm.Meta.fields]

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **options: Any) -> Any:
        if obj is not None:
            may_change = self.has_change_permission(request, obj)
            return super().get_form(
                request, obj, change, **({**options, "form": ChangeForm} if may_change else options)
            )
        form = super().get_form(request, obj, change, **{**options, "form": IssueForm})
        return type(form.__name__, (form,), {"actor": request.user})

    def has_add_permission(self, request: HttpRequest) -> bool:
        return admin.ModelAdmin.has_add_permission(self, request)

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        is_over = isinstance(obj, ApiKey) and obj.state(now=timezone.now()) in ("revoked", "expired")
        return not is_over and admin.ModelAdmin.has_change_permission(self, request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """As Django's own: without it nobody could delete a user who has keys."""
        return admin.ModelAdmin.has_delete_permission(self, request, obj)

    def has_act_permission(self, request: HttpRequest) -> bool:
        return self.may_act(request)

    @sensitive_variables("secret")
    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        if change:
            wanted = {name: form.cleaned_data[name] for name in ChangeForm.Meta.fields}
            change_key(obj, **wanted, actor=request.user)
            return
        key, secret = issue_key(
            owner=obj.owner,
            name=obj.name,
            scopes=obj.scopes,
            tenant=obj.tenant,
            expires_at=obj.expires_at,
            allowed_networks=obj.allowed_networks,
            rate=obj.rate,
            quota=obj.quota,
            actor=request.user,
        )
        # The admin logs and answers with the object of the form, so that becomes the key that was made.
        obj.__dict__.update(key.__dict__)
        obj.shown_once = secret  # type: ignore[attr-defined]  # an attribute of this one answer, in no column

    def response_add(
        self, request: HttpRequest, obj: Any, post_url_continue: str | None = None
    ) -> HttpResponse:
        return self._show(request, obj, obj.shown_once)

    def delete_model(self, request: HttpRequest, obj: ApiKey) -> None:
        delete_key(obj, actor=request.user)

    def delete_queryset(self, request: HttpRequest, queryset: models.QuerySet[ApiKey]) -> None:
        for key in queryset.select_related("owner"):
            self.delete_model(request, key)

    @admin.action(description="Rotate: make a successor, shown once", permissions=["act"])
    def rotate(self, request: HttpRequest, queryset: models.QuerySet[ApiKey]) -> HttpResponse | None:
        chosen = list(queryset[:2])
        if len(chosen) != 1:
            self.message_user(request, "Choose one key: its successor is shown once.", messages.ERROR)
            return None
        try:
            successor, secret = rotate_key(chosen[0], actor=request.user)
        except SvcInfraError as error:
            self.message_user(request, error.message, messages.ERROR)
            return None
        self.log_change(request, chosen[0], f"Rotated; followed by {successor.hint}.")
        return self._show(request, successor, secret)

    @admin.action(description="Revoke: stop at once, for good", permissions=["act"])
    def revoke(self, request: HttpRequest, queryset: models.QuerySet[ApiKey]) -> None:
        revoked = 0
        for key in queryset.filter(revoked_at=None).select_related("owner"):
            with suppress(KeyAlreadyRevoked):
                revoke_key(key, actor=request.user)
                self.log_change(request, key, "Revoked.")
                revoked += 1
        self.message_user(request, f"Keys revoked: {revoked}.")

    @sensitive_variables("secret")
    def _show(self, request: HttpRequest, key: ApiKey, secret: str) -> HttpResponse:
        return secret_shown_once(
            request,
            self.admin_site,
            title=f"The API key {key.name}",
            secret=secret,
            advice=ADVICE,
            next_url=reverse(f"{self.admin_site.name}:svc_apikeys_apikey_change", args=[key.pk]),
        )


@admin.register(AuditEntry)
class AuditEntryAdmin(ChainedRowAdmin):
    """What happened to keys."""

    list_display = [
        *("created_at", "action", "key_name", "key_hint", "owner", "actor", "tenant", "is_chained"),
    ]
    list_per_page = 50
    list_filter = ["action"]
    search_fields = ["key_id__exact", "owner__exact"]
    fields = [
        ("created_at", "action"),
        ("key_id", "key_name", "key_hint"),
        ("owner", "tenant"),
        ("actor", "actor_method", "request_id"),
        "details",
        ("number", "previous", "digest"),
    ]


def usage_chart(key: ApiKey, *, now: datetime) -> str:
    """The hours of the last days as an SVG that needs no script and no style sheet."""
    end = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    begin = end - timedelta(days=DAYS_SHOWN) + timedelta(hours=1)
    hours = list(key.hours.filter(hour__range=(begin, end)).order_by("hour"))
    most = max((row.used + row.refused for row in hours), default=0)
    bars = []
    for row in hours:
        used_height = round(TALLEST * row.used / most, 1)
        refused_height = round(TALLEST * row.refused / most, 1)
        bars.append(
            {
                "hour": row.hour.astimezone(UTC),
                "used": row.used,
                "refused": row.refused,
                "x": BAR * int((row.hour - begin) / timedelta(hours=1)),
                "used_y": GROUND - used_height,
                "used_height": used_height,
                "refused_y": GROUND - used_height - refused_height,
                "refused_height": refused_height,
            }
        )
    return render_to_string(
        "svc_apikeys/usage_chart.html",
        {
            "bars": bars,
            "used": sum(row.used for row in hours),
            "refused": sum(row.refused for row in hours),
            "most": most,
            "days": DAYS_SHOWN,
            "width": BAR * DAYS_SHOWN * 24,
        },
    )

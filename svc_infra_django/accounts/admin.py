"""The staff door: sessions, devices and counts of attempts. Nothing here shows a secret."""

from __future__ import annotations

import re
from typing import Any

from django import forms
from django.apps import apps
from django.contrib import admin, messages
from django.contrib.auth import get_user_model
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import ngettext

from ..admin import ChainedRowAdmin, MachineRowAdmin
from ..events import catalog
from ..principals import covered
from .conf import settings
from .models import AuditEvent, AuthSession, EmailDevice, SigningKey, Throttle, TOTPDevice
from .services.ending_sessions import end_all_sessions, end_session
from .services.enrolling_mfa import remove_device_of_user, remove_factors
from .services.throttling import subjects_of


class _OfUser(MachineRowAdmin):
    user_field = "owner"

    def get_search_fields(self, request: HttpRequest) -> list[str]:
        """The user's name, exactly: it has an index."""
        return [f"{self.user_field}__{get_user_model().USERNAME_FIELD}__exact"]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Along with their user alone, on another page: else nobody could delete who has ever logged in."""
        page = getattr(request.resolver_match, "url_name", None) or ""
        is_own = page.startswith(f"{self.opts.app_label}_{self.opts.model_name}_")
        return bool(page) and not is_own and admin.ModelAdmin.has_delete_permission(self, request, obj)


@admin.register(AuthSession)
class AuthSessionAdmin(_OfUser):
    list_display = [
        "id",
        "owner",
        "kind",
        "state",
        "amr",
        "created_at",
        "refreshed_at",
        "client_address",
        "user_agent",
    ]
    list_filter = ["revoked_for", "created_at"]
    list_select_related = ["owner"]
    list_per_page = 50
    ordering = ["-created_at", "-id"]
    search_help_text = "The user's name, exactly."
    fields = [
        *("id", "owner", "tenant", "state", "amr", "auth_time", "created_at", "refreshed_at"),
        *("idle_expires_at", "expires_at", "revoked_at", "revoked_for", "client_address", "user_agent"),
    ]
    actions = ["end_selected", "end_all_of_users"]

    @admin.display(description="state")
    def state(self, row: AuthSession) -> str:
        if row.revoked_at is not None:
            return f"ended: {row.get_revoked_for_display()}"
        return "alive" if row.is_good(now=timezone.now()) else "over"

    @admin.action(description="End the selected sessions")
    def end_selected(self, request: HttpRequest, queryset: QuerySet[AuthSession]) -> None:
        if not self.may_act(request):
            self.message_user(request, "You may look at sessions, not end them.", messages.ERROR)
            return
        rows = list(queryset.filter(revoked_at=None).select_related("owner"))
        for row in rows:
            end_session(row, reason=AuthSession.Reason.ADMIN, now=timezone.now())
        text = ngettext("%d session was ended.", "%d sessions were ended.", len(rows)) % len(rows)
        self.message_user(request, text, messages.SUCCESS)

    @admin.action(description="End all sessions of these users")
    def end_all_of_users(self, request: HttpRequest, queryset: QuerySet[AuthSession]) -> None:
        if not self.may_act(request):
            self.message_user(request, "You may look at sessions, not end them.", messages.ERROR)
            return
        users = get_user_model()._default_manager.filter(pk__in=queryset.values("owner_id"))
        count = sum(
            end_all_sessions(user, reason=AuthSession.Reason.ADMIN, now=timezone.now()) for user in users
        )
        text = ngettext("%d session was ended.", "%d sessions were ended.", count) % count
        self.message_user(request, text, messages.SUCCESS)


class _OfDevice(_OfUser):
    user_field = "user"
    actions = ["remove_selected", "remove_factors_of_users"]

    @admin.action(description="Remove the selected devices")
    def remove_selected(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        if not self.may_act(request):
            self.message_user(request, "You may look at devices, not remove them.", messages.ERROR)
            return
        devices = list(queryset.select_related("user"))
        done = [device for device in devices if _may_remove(request.user, device.user)]
        for device in done:
            remove_device_of_user(device, now=timezone.now())
        text = ngettext("%d device was removed.", "%d devices were removed.", len(done)) % len(done)
        self.message_user(request, text, messages.SUCCESS)
        self._tell_of_the_rest(request, len(devices) - len(done))

    @admin.action(description="Remove all second factors of these users")
    def remove_factors_of_users(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        if not self.may_act(request):
            self.message_user(request, "You may look at devices, not remove them.", messages.ERROR)
            return
        users = get_user_model()._default_manager.filter(pk__in=queryset.values("user_id"))
        done = [user for user in users if _may_remove(request.user, user)]
        for user in done:
            remove_factors(user, now=timezone.now())
        text = ngettext(
            "The factors of %d user were removed.", "The factors of %d users were removed.", len(done)
        )
        self.message_user(request, text % len(done), messages.SUCCESS)
        self._tell_of_the_rest(request, len(users) - len(done))

    def _tell_of_the_rest(self, request: HttpRequest, left: int) -> None:
        if left:
            text = "Those of staff are removed by superusers alone, and nobody's own here."
            self.message_user(request, text, messages.ERROR)


def _may_remove(actor: Any, user: Any) -> bool:
    # One's own go by a code, at `auth/mfa/disable`: a session that was left open is no proof.
    is_staff = getattr(user, "is_staff", False) or getattr(user, "is_superuser", False)
    return actor.pk != user.pk and (actor.is_superuser or not is_staff)


@admin.register(EmailDevice)
class EmailDeviceAdmin(_OfDevice):
    list_display = ["id", "user", "name", "confirmed", "created_at", "last_used_at"]
    list_filter = ["confirmed"]
    list_select_related = ["user"]
    search_help_text = "The user's name, exactly."
    fields = ["user", "name", "confirmed", "created_at", "last_used_at", "throttling_failure_count"]


@admin.register(TOTPDevice)
class TOTPDeviceAdmin(_OfDevice):
    list_display = ["id", "user", "name", "confirmed", "created_at", "last_used_at"]
    list_filter = ["confirmed"]
    list_select_related = ["user"]
    search_help_text = "The user's name, exactly."
    fields = ["user", "name", "confirmed", "created_at", "last_used_at", "throttling_failure_count"]


class _NameFilter(admin.SimpleListFilter):
    """Which kind of event: from the catalogue, since the names in the table would be a look at every row."""

    title = "name"
    parameter_name = "name"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in sorted(catalog) if covered(name, settings.audited)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(name=self.value()) if self.value() else queryset


@admin.register(AuditEvent)
class AuditEventAdmin(ChainedRowAdmin):
    list_display = ["created_at", "name", "subject", "actor", "client_address", "request_id", "is_chained"]
    list_filter = [_NameFilter, "created_at"]
    list_per_page = 50
    ordering = ["-created_at", "-id"]
    search_fields = ["subject__exact"]
    search_help_text = "The id of the user whom it is about, exactly."
    fields = [
        *("id", "name", "subject", "actor", "tenant", "client_address", "request_id", "data", "created_at"),
        *("number", "previous", "digest"),
    ]


@admin.register(SigningKey)
class SigningKeyAdmin(MachineRowAdmin):
    list_display = ["kid", "algorithm", "state", "created_at", "activated_at", "retires_at"]
    list_filter = ["state"]
    fields = ["kid", "algorithm", "state", "created_at", "activated_at", "retires_at"]


@admin.register(Throttle)
class ThrottleAdmin(MachineRowAdmin):
    list_display = ["id", "scope", "subject", "count", "started_at", "ends_at"]
    list_filter = ["scope"]
    search_fields = ["subject"]
    search_help_text = "A username, an e-mail address or a client's address, exactly."
    fields = ["scope", "subject", "count", "started_at", "ends_at"]
    actions = ["unlock"]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Throttle], search_term: str
    ) -> tuple[QuerySet[Throttle], bool]:
        """The table names nobody, so what was typed is digested as the counted subjects are."""
        term = search_term.strip()
        return (queryset.filter(subject__in=subjects_of(term)) if term else queryset), False

    @admin.action(description="Unlock: start counting anew")
    def unlock(self, request: HttpRequest, queryset: QuerySet[Throttle]) -> None:
        if not self.may_act(request):
            self.message_user(request, "You may look at counts, not change them.", messages.ERROR)
            return
        count = queryset.update(count=0)
        text = ngettext("%d count was set back.", "%d counts were set back.", count) % count
        self.message_user(request, text, messages.SUCCESS)


SECRET_SETTING = re.compile(r"key|secret|token|password|certificate", re.IGNORECASE)
HIDDEN = "(hidden)"


def _hidden(settings: Any) -> Any:
    """Settings of a provider without the values whose names speak of a secret."""
    if not isinstance(settings, dict):
        return settings
    return {
        name: _hidden(value)
        if isinstance(value, dict)
        else (HIDDEN if value and SECRET_SETTING.search(name) else value)
        for name, value in settings.items()
    }


def _restored(settings: Any, before: Any) -> Any:
    """What was sent back, with the hidden values as they were."""
    if not isinstance(settings, dict) or not isinstance(before, dict):
        return settings
    return {
        name: before.get(name) if value == HIDDEN else _restored(value, before.get(name))
        for name, value in settings.items()
    }


if apps.is_installed("allauth.socialaccount"):
    # Its pages are registered by the import, so that ours take their place in whatever order apps load.
    from allauth.socialaccount import admin as allauth_admin
    from allauth.socialaccount.models import SocialApp, SocialToken

    class ProviderForm(allauth_admin.SocialAppForm):  # type: ignore[misc]  # django-allauth is untyped
        """Takes the client's secret and never shows it: left empty, it stays as it is."""

        secret = forms.CharField(
            required=False,
            strip=False,
            max_length=191,
            widget=forms.PasswordInput(attrs={"autocomplete": "off", "size": "100"}),
            help_text="Never shown. Leave it empty to keep the one that is stored.",
        )

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.stored = self.instance.secret, self.instance.settings
            self.initial["settings"] = _hidden(self.instance.settings)

        def clean_secret(self) -> str:
            return str(self.cleaned_data["secret"] or self.stored[0])

        def clean_settings(self) -> Any:
            return _restored(self.cleaned_data["settings"], self.stored[1])

    class ProviderAdmin(allauth_admin.SocialAppAdmin):  # type: ignore[misc]  # django-allauth is untyped
        form = ProviderForm

        def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
            """Not by what the page hides: a list that can be asked how a secret begins gives it away."""
            hidden = lookup.startswith(("secret", "key", "settings"))
            return not hidden and bool(super().lookup_allowed(lookup, value, request))

    class ProviderTokenAdmin(MachineRowAdmin):
        """Which tokens of providers are kept, if any are; they are shown nowhere, and may be deleted."""

        list_display = ["id", "app", "account", "expires_at"]
        list_select_related = ["app", "account__user"]
        fields = ["app", "account", "expires_at"]

        def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
            return request.user.has_perm("socialaccount.delete_socialtoken")

    for model, theirs, page in (
        (SocialApp, allauth_admin.SocialAppAdmin, ProviderAdmin),
        (SocialToken, allauth_admin.SocialTokenAdmin, ProviderTokenAdmin),
    ):
        # A project's own page stays.
        if type(admin.site._registry.get(model)) is theirs:
            admin.site.unregister(model)
            admin.site.register(model, page)

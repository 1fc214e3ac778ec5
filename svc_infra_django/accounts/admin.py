"""The staff door: sessions, devices and counts of attempts. Nothing here shows a secret."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.auth import get_user_model
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.translation import ngettext

from ..admin import MachineRowAdmin
from .models import AuditEvent, AuthSession, EmailDevice, SigningKey, Throttle, TOTPDevice
from .services.auditing import exported_lines
from .services.ending_sessions import end_all_sessions, end_session
from .services.enrolling_mfa import remove_factors
from .services.throttling import subjects_of


class _OfUser(MachineRowAdmin):
    user_field = "owner"

    def get_search_fields(self, request: HttpRequest) -> list[str]:
        """The user's name, exactly: it has an index."""
        return [f"{self.user_field}__{get_user_model().USERNAME_FIELD}__exact"]


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
    actions = ["remove_factors_of_users"]

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
        if len(done) < len(users):
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


@admin.register(AuditEvent)
class AuditEventAdmin(MachineRowAdmin):
    list_display = ["created_at", "name", "subject", "actor", "client_address", "request_id", "is_chained"]
    list_filter = ["name", "created_at"]
    list_per_page = 50
    ordering = ["-created_at", "-id"]
    search_fields = ["subject__exact"]
    search_help_text = "The id of the user whom it is about, exactly."
    fields = [
        *("id", "name", "subject", "actor", "tenant", "client_address", "request_id", "data", "created_at"),
        *("number", "previous", "digest"),
    ]
    actions = ["export_selected"]

    def may_act(self, request: HttpRequest) -> bool:
        """Exporting is looking."""
        return self.has_view_permission(request)

    @admin.display(description="chained", boolean=True)
    def is_chained(self, row: AuditEvent) -> bool:
        return row.number is not None

    @admin.action(description="Export the selected as JSON lines")
    def export_selected(self, request: HttpRequest, queryset: QuerySet[AuditEvent]) -> HttpResponse:
        response = HttpResponse(exported_lines(queryset), content_type="application/jsonl")
        response["Content-Disposition"] = 'attachment; filename="audit.jsonl"'
        response["Cache-Control"] = "no-store"
        return response


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

"""What the suite's admin pages share: rows that only machines write, secrets that show once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.auth import get_user_model
from django.db import models
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.views.decorators.debug import sensitive_variables

from .chains import ChainedRow, exported_lines

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
else:
    # Generic for the type checker only.
    ModelAdmin = admin.ModelAdmin


class MachineRowAdmin(ModelAdmin):
    """Admin of rows that machines write: staff may look and use actions, never edit."""

    # The row count of a table that grows for ever would be a scan on every page.
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        # Django offers actions to everybody who may look.
        return super().get_actions(request) if self.may_act(request) else {}

    def may_act(self, request: HttpRequest) -> bool:
        """Whether this member of staff may use the actions: they hold the model's change permission."""
        return request.user.has_perm(f"{self.opts.app_label}.change_{self.opts.model_name}")


class ChainedRowAdmin(MachineRowAdmin):
    """Admin of a log that nobody changes unseen; `manage.py verify_audit` says whether it is as it was."""

    actions = ("export_selected",)

    def may_act(self, request: HttpRequest) -> bool:
        """Exporting is looking."""
        return self.has_view_permission(request)

    @admin.display(description="chained", boolean=True)
    def is_chained(self, row: ChainedRow) -> bool:
        return row.number is not None

    @admin.action(description="Export the selected as JSON lines")
    def export_selected(self, request: HttpRequest, queryset: models.QuerySet[Any]) -> HttpResponse:
        response = HttpResponse(exported_lines(queryset), content_type="application/jsonl")
        response["Content-Disposition"] = f'attachment; filename="{self.opts.model_name}.jsonl"'
        response["Cache-Control"] = "no-store"
        return response


class UserPicker:
    """For admins with foreign keys to the user: a search box where the project's user admin can search.

    Elsewhere it is the plain field for the id, so that no project has to register its users.
    """

    user_fields: tuple[str, ...] = ()
    """Names of the foreign keys."""

    def get_autocomplete_fields(self, request: HttpRequest) -> tuple[str, ...]:
        searchable = self.admin_site._registry.get(get_user_model())  # type: ignore[attr-defined]
        fields = tuple(super().get_autocomplete_fields(request))  # type: ignore[misc]
        return (*fields, *self.user_fields) if searchable and searchable.search_fields else fields


@sensitive_variables("secret")
def secret_shown_once(
    request: HttpRequest, site: admin.AdminSite, *, title: str, secret: str, advice: str, next_url: str
) -> HttpResponse:
    """The one page that ever shows `secret`: rendered as the answer itself, stored nowhere on the way."""
    context = {
        **site.each_context(request),
        "title": title,
        "secret": secret,
        "advice": advice,
        "next_url": next_url,
    }
    response = TemplateResponse(request, "svc_infra/secret_shown_once.html", context)
    response["Cache-Control"] = "no-store"
    response["Referrer-Policy"] = "no-referrer"
    return response

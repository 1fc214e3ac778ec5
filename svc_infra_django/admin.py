"""What the suite's admin pages share: rows that only machines write, secrets that show once."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.utils import flatten_fieldsets
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models.constants import LOOKUP_SEP
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.html import format_html
from django.utils.timezone import localtime
from django.views.decorators.debug import sensitive_variables

from .chains import ChainedRow, exported_lines

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
else:
    # Generic for the type checker only.
    ModelAdmin = admin.ModelAdmin


SURROGATE = re.compile("[\ud800-\udfff]")


class ReadableColumns:
    """For admins of many rows: a moment to the second and an id by its end, so that each row is one line.

    The whole of either is shown where the pointer rests. A column that no page shows filters no list either,
    and whatever stands in the address, it is a page.
    """

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        return [readable(self.model, column) for column in super().get_list_display(request)]  # type: ignore[misc,attr-defined]

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Not by what is not shown: who may ask how it begins, one letter after the other, has read it."""
        name = lookup.partition(LOOKUP_SEP)[0]
        columns = self.model._meta.concrete_fields  # type: ignore[attr-defined]
        asked = next((field for field in columns if field.name == name), None)
        if asked is not None and not asked.is_relation and name not in self._shown(request):
            return False
        return bool(super().lookup_allowed(lookup, value, request))  # type: ignore[misc]

    def _shown(self, request: HttpRequest) -> set[Any]:
        fieldsets = self.get_fieldsets(request, self.model())  # type: ignore[attr-defined]
        filters = [each[0] if isinstance(each, tuple) else each for each in self.list_filter]  # type: ignore[attr-defined]
        return {self.model._meta.pk.name, *self.list_display, *filters, *flatten_fieldsets(fieldsets)}  # type: ignore[attr-defined]

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        if "%00" in request.META.get("QUERY_STRING", ""):
            # PostgreSQL has no text with a NUL character to compare with.
            raise IncorrectLookupParameters
        try:
            return super().get_changelist_instance(request)  # type: ignore[misc]
        except (ValueError, OverflowError):
            if not request.GET:
                raise
            # A year or a number that no calendar and no column has.
            raise IncorrectLookupParameters from None

    def response_action(self, request: HttpRequest, *rest: Any, **options: Any) -> Any:
        pk = self.model._meta.pk  # type: ignore[attr-defined]
        try:
            for key in request.POST.getlist(ACTION_CHECKBOX_NAME):
                if "\x00" in key:
                    raise ValidationError(key)
                pk.run_validators(pk.to_python(key))
        except ValidationError:
            self.message_user(request, "What was selected is not there.", messages.ERROR)  # type: ignore[attr-defined]
            return None
        return super().response_action(request, *rest, **options)  # type: ignore[misc]

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        return None if "\x00" in object_id else super().get_object(request, object_id, from_field)  # type: ignore[misc]


@cache
def readable(model: type[models.Model], column: Any) -> Any:
    """The column, told shortly if it is a field of moments or ids.

    It is the same function each time, as Django looks it up among those that sort.
    """
    field = next((field for field in model._meta.concrete_fields if field.name == column), None)
    shown = SHOWN_AS.get(type(field))
    if field is None or shown is None:
        return column

    @admin.display(description=field.verbose_name, ordering=column, empty_value="-")
    def cell(row: models.Model) -> str | None:
        value = getattr(row, column)
        return None if value is None else shown(value)

    # Django names the cell's CSS class by it.
    cell.__name__ = column
    return cell


def shown_moment(moment: datetime) -> str:
    """In the zone that is current."""
    local = localtime(moment)
    return format_html(
        '<time class="nowrap" datetime="{}" title="{}">{}</time>',
        *(moment.isoformat(), local.isoformat(" "), local.strftime("%Y-%m-%d %H:%M:%S")),
    )


def shown_id(value: UUID) -> str:
    """The end of an id: its beginning is the time, and alike in neighbours."""
    return format_html('<span class="nowrap" title="{}">…{}</span>', value, value.hex[-12:])


SHOWN_AS: dict[type, Callable[[Any], str]] = {
    models.DateTimeField: shown_moment,
    models.UUIDField: shown_id,
}


class MachineRowAdmin(ReadableColumns, ModelAdmin):
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


class KeptJSONField(forms.JSONField):
    """JSON of people, which may be more than Python can read, or a database can keep."""

    def kept(self, value: Any) -> Any:
        """`value` as it is stored. Raises ValueError, OverflowError or RecursionError."""
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        # What is left once the backslashes of the text itself are gone is an escape.
        if "\\u0000" in text.replace("\\\\", "") or SURROGATE.search(text):
            raise ValueError("text with a NUL character or a lone surrogate")
        return value

    def to_python(self, value: Any) -> Any:
        try:
            return self.kept(super().to_python(value))
        except RecursionError:
            raise forms.ValidationError("This is nested too deeply.", code="invalid") from None
        except (ValueError, OverflowError) as error:
            raise forms.ValidationError(f"This cannot be kept: {error}.", code="invalid") from None

    def bound_data(self, data: Any, initial: Any) -> Any:
        try:
            return self.kept(super().bound_data(data, initial))
        except (RecursionError, ValueError, OverflowError):
            # Shown again as it was written.
            return forms.fields.InvalidJSONInput(data)


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

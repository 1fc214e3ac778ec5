"""Staff make roles and grant them, never beyond their own rights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import models
from django.forms.models import BaseInlineFormSet
from django.http import HttpRequest

from ..admin import ModelAdmin, UserPicker
from ..errors import SvcInfraError
from .models import Assignment, Role, RolePermission
from .services.granting import check_giver, check_grant, grant, is_declared, remove_role, withdraw

if TYPE_CHECKING:
    FormSet = BaseInlineFormSet[RolePermission, Role, Any]
    TabularInline = admin.TabularInline[RolePermission, Role]
    ModelForm = forms.ModelForm[Assignment]
else:
    # Generic for the type checker only.
    FormSet, TabularInline, ModelForm = BaseInlineFormSet, admin.TabularInline, forms.ModelForm


class PermissionFormSet(FormSet):
    """Permissions are picked from those that exist, and given only by who holds them."""

    request: HttpRequest

    @property
    def choices(self) -> list[str]:
        if not hasattr(self, "_choices"):
            rows = Permission.objects.order_by("content_type__app_label", "codename")
            self._choices = [
                f"{label}.{codename}"
                for label, codename in rows.values_list("content_type__app_label", "codename")
            ]
        return self._choices

    def clean(self) -> None:
        super().clean()
        changed = [form for form in self.forms if form.has_changed() and form not in self.deleted_forms]
        given = {form: form.cleaned_data["pattern"] for form in changed if form.cleaned_data.get("pattern")}
        known = (
            {"*", *self.choices, *(f"{choice.partition('.')[0]}.*" for choice in self.choices)}
            if given
            else set()
        )
        for form, pattern in given.items():
            if pattern not in known:
                form.add_error(
                    "pattern", "There is no such permission; an app and a star (orders.*) is one too."
                )
                continue
            try:
                check_giver(self.request.user, [pattern], tenant=self.instance.tenant)
            except SvcInfraError as error:
                form.add_error("pattern", error.message)


class PermissionInline(TabularInline):
    model = RolePermission
    formset = PermissionFormSet
    template = "svc_rbac/permissions_inline.html"
    extra = 1

    def formfield_for_dbfield(self, db_field: Any, request: Any, **options: Any) -> Any:
        if db_field.name == "pattern":
            options["widget"] = forms.TextInput(attrs={"list": "svc-rbac-permissions", "class": "vTextField"})
        return super().formfield_for_dbfield(db_field, request, **options)

    def get_formset(self, request: HttpRequest, obj: Any = None, **options: Any) -> Any:
        formset = super().get_formset(request, obj, **options)
        return type(formset.__name__, (formset,), {"request": request})

    # The permissions of a role are part of it: who may change the role may change them.
    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_change_permission(request, obj)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        action = "add" if obj is None else "change"
        may = request.user.has_perm(f"svc_rbac.{action}_role")
        return may and not (obj is not None and obj.source == Role.Source.CODE)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_change_permission(request, obj)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("svc_rbac.view_role") or self.has_change_permission(request, obj)


@admin.register(Role)
class RoleAdmin(ModelAdmin):
    """Roles; those that the settings declare are read here and changed there."""

    list_display = ["name", "tenant", "source", "description", "created_at"]
    list_filter = ["source"]
    search_fields = ["name__startswith", "tenant__exact"]
    show_full_result_count = False
    fields = ["name", "tenant", "description", "source", "created_at"]
    inlines = [PermissionInline]

    def get_readonly_fields(self, request: HttpRequest, obj: Role | None = None) -> list[str]:
        return ["source", "created_at", *(["tenant"] if obj else [])]

    def has_change_permission(self, request: HttpRequest, obj: Role | None = None) -> bool:
        return super().has_change_permission(request, obj) and not (obj and obj.source == Role.Source.CODE)

    def has_delete_permission(self, request: HttpRequest, obj: Role | None = None) -> bool:
        return super().has_delete_permission(request, obj) and not (obj and is_declared(obj))

    def save_model(self, request: HttpRequest, obj: Role, form: Any, change: bool) -> None:
        if not change:
            obj.owner = request.user
        super().save_model(request, obj, form, change)

    def delete_model(self, request: HttpRequest, obj: Role) -> None:
        remove_role(obj, actor=request.user)

    def delete_queryset(self, request: HttpRequest, queryset: models.QuerySet[Role]) -> None:
        for role in queryset:
            remove_role(role, actor=request.user)


class GrantForm(ModelForm):
    """Asks the service before anything is saved, so that its refusal is shown beside the form."""

    actor: Any = None

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        role = cleaned.get("role") or (getattr(self.instance, "role_id", None) and self.instance.role)
        if role and not self.errors:
            try:
                check_grant(
                    role,
                    tenant=cleaned.get("tenant", self.instance.tenant),
                    expires_at=cleaned.get("expires_at"),
                    actor=self.actor,
                )
            except SvcInfraError as error:
                raise forms.ValidationError(
                    [error.message, *(problem.message for problem in error.errors)]
                ) from error
        return cleaned


@admin.register(Assignment)
class AssignmentAdmin(UserPicker, ModelAdmin):
    """Grants; every change goes the way that a call of `grant` or `withdraw` goes."""

    form = GrantForm
    list_display = ["user", "role", "tenant", "expires_at", "granted_by", "created_at"]
    list_select_related = ["user", "role", "granted_by"]
    show_full_result_count = False
    fields = ["user", "role", "tenant", "expires_at", "reason", "granted_by", "created_at"]
    raw_id_fields = ["user"]
    user_fields = ("user",)
    autocomplete_fields = ["role"]

    def get_search_fields(self, request: HttpRequest) -> list[str]:
        return [
            f"user__{get_user_model().USERNAME_FIELD}__startswith",
            "role__name__startswith",
            "tenant__exact",
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Assignment | None = None) -> list[str]:
        return ["granted_by", "created_at", *(["user", "role", "tenant"] if obj else [])]

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **options: Any) -> Any:
        form = super().get_form(request, obj, change, **options)
        return type(form.__name__, (form,), {"actor": request.user})

    def save_model(self, request: HttpRequest, obj: Assignment, form: Any, change: bool) -> None:
        given = grant(
            obj.user,
            obj.role,
            tenant=obj.tenant,
            expires_at=obj.expires_at,
            reason=obj.reason,
            actor=request.user,
        )
        obj.pk = given.pk

    def delete_model(self, request: HttpRequest, obj: Assignment) -> None:
        withdraw(obj.user, obj.role, tenant=obj.tenant, actor=request.user)

    def delete_queryset(self, request: HttpRequest, queryset: models.QuerySet[Assignment]) -> None:
        for given in queryset.select_related("user", "role"):
            withdraw(given.user, given.role, tenant=given.tenant, actor=request.user)

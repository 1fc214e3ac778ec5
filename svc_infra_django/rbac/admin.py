"""Staff make roles and grant them, never beyond their own rights, and see who did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied
from django.db import models
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import path

from ..admin import ChainedRowAdmin, ModelAdmin, ReadableColumns, UserPicker
from ..errors import SvcInfraError
from .errors import RoleExists
from .models import Assignment, Role, RoleChange
from .services.checking import NO_EFFECT, check_widening, effect_of, find_object, known_permissions
from .services.deciding import Scope, scope_of, scope_of_grant
from .services.defining import change_role, check_change, define_role, is_declared, remove_role
from .services.explaining import explain
from .services.granting import check_grant, check_shortening, grant, takes_away, withdraw

if TYPE_CHECKING:
    RoleModelForm = forms.ModelForm[Role]
    GrantModelForm = forms.ModelForm[Assignment]
else:
    # Generic for the type checker only.
    RoleModelForm = GrantModelForm = forms.ModelForm


class PatternsField(forms.CharField):
    """Permissions and wildcards, one on each line; only those that some model has."""

    widget = forms.Textarea(attrs={"rows": 8, "cols": 60, "spellcheck": "false"})

    def __init__(self, **options: Any) -> None:
        super().__init__(
            required=False, help_text="One on each line: orders.add_order, orders.*, *.", **options
        )

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(sorted(value)) if isinstance(value, (list, set)) else value

    def to_python(self, value: Any) -> Any:
        return list(dict.fromkeys(str(super().to_python(value) or "").split()))

    def has_changed(self, initial: Any, data: Any) -> bool:
        return set(initial or ()) != set(str(data or "").split())

    def validate(self, value: Any) -> None:
        known = known_permissions() if value else set()
        known |= {"*", *(f"{each.partition('.')[0]}.*" for each in known)}
        unknown = [each for each in value if each not in known]
        if unknown:
            raise forms.ValidationError(f"No permission is called {', '.join(unknown)}.")

    def run_validators(self, value: Any) -> None:
        for each in value:
            super().run_validators(each)


class RoleForm(RoleModelForm):
    """Asks the service before anything is saved, so that its refusal is shown beside the form."""

    permissions = PatternsField()
    denies = PatternsField(label="Takes away")
    actor: Any = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if not self.instance._state.adding:
            own = dict(self.instance.permissions.values_list("pattern", "denies"))
            self.initial["permissions"] = sorted(each for each in own if not own[each])
            self.initial["denies"] = sorted(each for each in own if own[each])

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        if self.errors:
            return cleaned
        with _refusals_in_the_form():
            is_new = self.instance._state.adding
            role = Role(tenant=cleaned.get("tenant", "")) if is_new else self.instance
            namesakes = Role.objects.filter(tenant=role.tenant, name=cleaned["name"])
            if namesakes.exclude(pk=self.instance.pk).exists():
                raise RoleExists()
            check_change(
                role, cleaned["permissions"], cleaned["denies"], cleaned["includes"], actor=self.actor
            )
        return cleaned


class _refusals_in_the_form:
    """Turns what a service raises into an error of the form."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if isinstance(error, SvcInfraError):
            found = error.extra.get("permission")
            problems = [error.message + (f" ({found})" if found else "")]
            raise forms.ValidationError(
                [*problems, *(problem.message for problem in error.errors)]
            ) from error


@admin.register(Role)
class RoleAdmin(ReadableColumns, ModelAdmin):
    """Roles; those that the settings declare are read here and changed there."""

    form = RoleForm
    list_display = ["name", "tenant", "source", "description", "created_at"]
    list_filter = ["source"]
    search_fields = ["name__startswith", "tenant__exact"]
    show_full_result_count = False
    autocomplete_fields = ["includes"]

    def get_fields(self, request: HttpRequest, obj: Role | None = None) -> Any:
        may_write = (
            self.has_add_permission(request) if obj is None else self.has_change_permission(request, obj)
        )
        patterns = ["permissions", "denies"] if may_write else ["shown_permissions", "shown_denies"]
        return ["name", "tenant", "description", *patterns, "includes", "source", "created_at"]

    def get_readonly_fields(self, request: HttpRequest, obj: Role | None = None) -> list[str]:
        shown = ["shown_permissions", "shown_denies", "source", "created_at"]
        return [*shown, *(["tenant"] if obj else [])]

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **options: Any) -> Any:
        form = super().get_form(request, obj, change, **options)
        return type(form.__name__, (form,), {"actor": request.user})

    @admin.display(description="permissions")
    def shown_permissions(self, role: Role) -> str:
        return ", ".join(role.permissions.filter(denies=False).values_list("pattern", flat=True)) or "-"

    @admin.display(description="takes away")
    def shown_denies(self, role: Role) -> str:
        return ", ".join(role.permissions.filter(denies=True).values_list("pattern", flat=True)) or "-"

    def has_change_permission(self, request: HttpRequest, obj: Role | None = None) -> bool:
        return super().has_change_permission(request, obj) and not (obj and obj.source == Role.Source.CODE)

    def has_delete_permission(self, request: HttpRequest, obj: Role | None = None) -> bool:
        return super().has_delete_permission(request, obj) and not (obj and is_declared(obj))

    def save_model(self, request: HttpRequest, obj: Role, form: Any, change: bool) -> None:
        wanted = {name: form.cleaned_data[name] for name in ("denies", "includes", "name", "description")}
        wanted |= {"patterns": form.cleaned_data["permissions"], "actor": request.user}
        if change:
            change_role(obj, **wanted)
        else:
            obj.pk = define_role(
                wanted.pop("name"), wanted.pop("patterns"), tenant=obj.tenant, owner=request.user, **wanted
            ).pk

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """Nothing is left: the service has written what the role includes."""

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        deleted, counts, needed, protected = super().get_deleted_objects(objs, request)
        above = Role.objects.filter(includes__in=objs).distinct()
        return deleted, counts, needed, [*protected, *(f"Included by: {role}" for role in above)]

    def delete_model(self, request: HttpRequest, obj: Role) -> None:
        remove_role(obj, actor=request.user)

    def delete_queryset(self, request: HttpRequest, queryset: models.QuerySet[Role]) -> None:
        for role in queryset:
            remove_role(role, actor=request.user)


class GrantForm(GrantModelForm):
    """Asks the service before anything is saved, so that its refusal is shown beside the form."""

    actor: Any = None

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        if self.errors:
            return cleaned
        if self.instance._state.adding:
            self._check_new(cleaned)
        scope = Scope(*(cleaned.get(name, getattr(self.instance, name)) for name in Scope._fields))
        with _refusals_in_the_form():
            check_grant(
                cleaned.get("role") or self.instance.role,
                scope=scope,
                expires_at=cleaned.get("expires_at"),
                actor=self.actor,
            )
            if not self.instance._state.adding:
                standing = Assignment.objects.get(pk=self.instance.pk)
                check_shortening(standing, expires_at=cleaned.get("expires_at"), actor=self.actor)
        return cleaned

    def _check_new(self, cleaned: dict[str, Any]) -> None:
        if (cleaned.get("user") is None) == (cleaned.get("group") is None):
            raise forms.ValidationError("Choose either a user or a group.")
        if takes_away(cleaned["role"]) and not self.actor.has_perm("svc_rbac.delete_assignment"):
            raise forms.ValidationError("This role denies something, and you may not take from others.")
        named = cleaned.get("object_type", ""), cleaned.get("object_id", "")
        if any(named):
            found = find_object(*named) if all(named) else None
            scope = None if found is None else scope_of(found)
            if scope is None:
                raise forms.ValidationError("There is no such object; write its type as orders.order.")
            if cleaned["tenant"] not in ("", scope.tenant):
                raise forms.ValidationError(f"This object is of the tenant {scope.tenant!r}.")
            cleaned |= scope._asdict()


@admin.register(Assignment)
class AssignmentAdmin(ReadableColumns, UserPicker, ModelAdmin):
    """Grants; every change goes the way that a call of `grant` or `withdraw` goes."""

    form = GrantForm
    change_list_template = "svc_rbac/grants.html"
    list_display = [
        "holder",
        "role",
        "tenant",
        "object_type",
        "object_id",
        "expires_at",
        "granted_by",
        "created_at",
    ]
    list_select_related = ["user", "group", "role", "granted_by"]
    show_full_result_count = False
    raw_id_fields = ["user"]
    user_fields = ("user",)
    autocomplete_fields = ["role"]
    fixed = ("user", "group", "role", "tenant", "object_type", "object_id")
    fields = [*fixed, "expires_at", "reason", "granted_by", "created_at"]

    @admin.display(description="who")
    def holder(self, given: Assignment) -> str:
        return str(given.user) if given.group is None else f"group {given.group}"

    def get_search_fields(self, request: HttpRequest) -> list[str]:
        return [
            f"user__{get_user_model().USERNAME_FIELD}__startswith",
            "group__name__startswith",
            "role__name__startswith",
            "tenant__exact",
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Assignment | None = None) -> list[str]:
        return ["granted_by", "created_at", *(self.fixed if obj else [])]

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **options: Any) -> Any:
        form = super().get_form(request, obj, change, **options)
        return type(form.__name__, (form,), {"actor": request.user})

    def has_delete_permission(self, request: HttpRequest, obj: Assignment | None = None) -> bool:
        if not super().has_delete_permission(request, obj):
            return False
        try:
            if obj is not None:
                effect = effect_of(includes=[obj.role_id])
                check_widening(request.user, effect, NO_EFFECT, scope=scope_of_grant(obj))
        except SvcInfraError:
            return False
        return True

    def save_model(self, request: HttpRequest, obj: Assignment, form: Any, change: bool) -> None:
        given = grant(
            obj.user or obj.group,
            obj.role,
            tenant=obj.tenant,
            obj=scope_of_grant(obj) if obj.object_type else None,
            expires_at=obj.expires_at,
            reason=obj.reason,
            actor=request.user,
        )
        obj.pk = given.pk

    def delete_model(self, request: HttpRequest, obj: Assignment) -> None:
        place = scope_of_grant(obj) if obj.object_type else None
        withdraw(obj.user or obj.group, obj.role, tenant=obj.tenant, obj=place, actor=request.user)

    def delete_queryset(self, request: HttpRequest, queryset: models.QuerySet[Assignment]) -> None:
        for given in queryset.select_related("user", "group", "role"):
            self.delete_model(request, given)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        deleted, counts, needed, protected = super().get_deleted_objects(objs, request)
        kept = [str(given) for given in objs if not self.has_delete_permission(request, given)]
        return deleted, counts, needed, [*protected, *kept]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        context = {**(extra_context or {}), "may_explain": self.may_explain(request)}
        return super().changelist_view(request, context)

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.explain_view)
        return [path("explain/", view, name="svc_rbac_explain"), *super().get_urls()]

    def may_explain(self, request: HttpRequest) -> bool:
        """Whether this member of staff may see everybody's grants and all roles."""
        return request.user.has_perms(["svc_rbac.view_assignment", "svc_rbac.view_role"])

    def explain_view(self, request: HttpRequest) -> HttpResponse:
        """Why somebody may do something, or what is missing."""
        if not self.may_explain(request):
            raise PermissionDenied
        form = QuestionForm(request.GET or None)
        explanation = None
        if form.is_valid():
            asked = form.cleaned_data
            explanation = explain(
                asked["user"], asked["permission"], obj=asked["obj"], tenant=asked["tenant"]
            )
        context = {
            **self.admin_site.each_context(request),
            "title": "Why may somebody?",
            "form": form,
            "explanation": explanation,
        }
        return TemplateResponse(request, "svc_rbac/explain.html", context)


class QuestionForm(forms.Form):
    """Who may do what, where."""

    user = forms.CharField(max_length=254, help_text="The name that they sign in with.")
    permission = forms.CharField(max_length=200, help_text="For example orders.add_order.")
    tenant = forms.CharField(max_length=128, required=False)
    object_type = forms.CharField(max_length=200, required=False, help_text="For example orders.order.")
    object_id = forms.CharField(max_length=64, required=False)

    def clean_user(self) -> Any:
        users = get_user_model()
        found = users._default_manager.filter(**{users.USERNAME_FIELD: self.cleaned_data["user"]}).first()
        if found is None:
            raise forms.ValidationError("There is no such user.")
        return found

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        named = cleaned.get("object_type", ""), cleaned.get("object_id", "")
        cleaned["obj"] = find_object(*named) if all(named) else None
        if any(named) and cleaned["obj"] is None:
            raise forms.ValidationError("There is no such object.")
        return cleaned


@admin.register(RoleChange)
class RoleChangeAdmin(ChainedRowAdmin):
    """Who changed what, when and why; nobody edits it."""

    list_display = [
        *("created_at", "kind", "role", "group", "user_key", "tenant", "actor_key", "reason", "is_chained"),
    ]
    list_filter = ["kind"]
    search_fields = ["user_key__exact", "role__startswith", "tenant__exact", "request_id__exact"]
    fields = [
        *("created_at", "kind", "role", "role_id", "group", "user_key", "tenant"),
        *("object_type", "object_id", "expires_at", "details", "reason"),
        *("actor_key", "method", "credential_id", "request_id", "number", "previous", "digest"),
    ]

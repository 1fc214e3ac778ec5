"""The console: endpoints and their health, messages, deliveries and what became of them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import orjson
from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ActionForm
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth import get_user_model
from django.db import models
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables

from ..admin import (
    KeptJSONField,
    MachineRowAdmin,
    ReadableColumns,
    UserPicker,
    secret_shown_once,
    shown_moment,
)
from ..errors import SvcInfraError
from .models import Attempt, Delivery, Endpoint, EventType, Message, Replay, SigningKey
from .pictures import Dot, Lane, outcome, sparkline, success_rate, timeline
from .services import declaring, publishing, replaying, subscribing

if TYPE_CHECKING:
    ModelForm = forms.ModelForm[Endpoint]
    EventTypeModelForm = forms.ModelForm[EventType]
    ModelAdmin = admin.ModelAdmin[Any]
    TabularInline = admin.TabularInline[Any, Any]
else:
    # Generic for the type checker only.
    ModelForm = EventTypeModelForm = forms.ModelForm
    ModelAdmin = admin.ModelAdmin
    TabularInline = admin.TabularInline

ADVICE = "Give this secret to the receiver: it verifies with it that a webhook comes from here."
SHOWN_BYTES = 20_000
SHOWN_DELIVERIES = 50
"""So many of the newest make the health of an endpoint, and so many lanes a timeline."""

SHOWN_ATTEMPTS = 500
LABEL_LENGTH = 36


class EndpointForm(ModelForm):
    """An endpoint; asks the service before, so that its refusal is shown beside the field."""

    event_types = forms.CharField(
        widget=forms.Textarea(attrs={"rows": 4, "cols": 60}),
        initial="*",
        help_text="One name or pattern (order.*) a line; * is everything.",
    )
    headers = KeptJSONField(
        required=False,
        label="New headers",
        widget=forms.Textarea(attrs={"rows": 3, "cols": 60}),
        help_text='A JSON object such as {"Authorization": "Bearer …"}; it replaces the present ones, '
        "which are not shown. {} takes them away.",
    )

    class Meta:
        model = Endpoint
        fields = [
            "url", "description", "owner", "tenant", "event_types", "timeout_seconds", "retry_schedule",
            "rate_limit", "max_in_flight",
        ]  # fmt: skip
        field_classes: ClassVar = {"retry_schedule": KeptJSONField}
        widgets: ClassVar = {"retry_schedule": forms.Textarea(attrs={"rows": 3, "cols": 60})}
        help_texts: ClassVar = {
            "url": "Where webhooks are posted to.",
            "owner": "It hears this user's events alone; empty for every event of the tenant.",
            "timeout_seconds": "For the whole request, 30 at most; empty for what the settings say.",
            "retry_schedule": "Seconds to wait after each failure, as [5, 60, 3600]; "
            "null for the event type's, or what the settings say.",
            "rate_limit": "At most so many requests a second; empty for no limit.",
            "max_in_flight": "At most so many requests at once; empty for no limit.",
        }

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.instance.created_at and not self.instance._state.adding:
            self.initial["event_types"] = "\n".join(self.instance.event_types)

    def clean_event_types(self) -> list[str]:
        return str(self.cleaned_data["event_types"]).split()

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        for name, value in self.changes(cleaned).items():
            try:
                subscribing.checked(name, value)
            except SvcInfraError as error:
                self.add_error(name, error.message)
        if self.instance._state.adding and cleaned.get("owner"):
            try:
                subscribing.check_room(owner=cleaned["owner"], tenant=cleaned.get("tenant", ""))
            except SvcInfraError as error:
                self.add_error("owner", error.message)
        return cleaned

    def changes(self, cleaned: dict[str, Any]) -> dict[str, Any]:
        """What the service is asked to set; headers only if some were given."""
        return {name: value for name, value in cleaned.items() if name != "headers" or value is not None}


class ExampleForm(ActionForm):
    """Which event type *Send an example* sends."""

    event_type = forms.ModelChoiceField(
        EventType.objects.none(), required=False, empty_label="webhooks.test", label="Example of"
    )

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.fields["event_type"].queryset = EventType.objects.filter(is_archived=False)  # type: ignore[attr-defined]


class EndpointList(ChangeList):
    """A page of endpoints, each with its newest deliveries: one query for all of them."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.result_list = list(self.result_list)
        _look_back(self.result_list)


@admin.register(Endpoint)
class EndpointAdmin(ReadableColumns, UserPicker, ModelAdmin):
    """Endpoints. Without an owner, one hears every event of its tenant."""

    form = EndpointForm
    action_form = ExampleForm
    list_display = [
        "__str__", "owner", "tenant", "state", "recent", "succeeded", "health", "last_success_at",
    ]  # fmt: skip
    list_select_related = ["owner"]
    list_filter = ["state"]
    show_full_result_count = False
    raw_id_fields = ["owner"]
    user_fields = ("owner",)
    actions = ["rotate_secret", "sign_publicly", "pause", "enable", "disable", "send_test", "replay_dead"]
    shown = [
        "public_keys", "state", "recent", "succeeded", "health", "reason", "disabled_at", "held_until",
        "first_failure_at", "last_success_at", "last_failure_at", "has_headers", "created_at", "updated_at",
    ]  # fmt: skip

    def get_changelist(self, request: HttpRequest, **options: Any) -> type[ChangeList]:
        return EndpointList

    @admin.display(description="newest deliveries")
    def recent(self, endpoint: Endpoint) -> str:
        return sparkline(_outcomes(endpoint))

    @admin.display(description="succeeded")
    def succeeded(self, endpoint: Endpoint) -> str:
        rate = success_rate(_outcomes(endpoint))
        return "-" if rate is None else f"{rate:.0%}"

    @admin.display(description="health")
    def health(self, endpoint: Endpoint) -> str:
        if endpoint.consecutive_failures:
            rests = " · rests" if endpoint.breaker_trips else ""
            return f"{endpoint.consecutive_failures} failures in a row{rests}"
        return "well" if endpoint.last_success_at else "nothing sent yet"

    @admin.display(description="public keys (v1a)")
    def public_keys(self, endpoint: Endpoint) -> str:
        keys = endpoint.signing_keys.filter(kind=SigningKey.Kind.ED25519)
        lasting = keys.filter(Q(expires_at=None) | Q(expires_at__gt=timezone.now()))
        return ", ".join(key.public_key for key in lasting) or "none: messages are signed with v1 alone"

    @admin.display(description="has headers of its own", boolean=True)
    def has_headers(self, endpoint: Endpoint) -> bool:
        return bool(endpoint.sealed_headers)

    def get_search_fields(self, request: HttpRequest) -> list[str]:
        return [f"owner__{get_user_model().USERNAME_FIELD}__startswith", "tenant__exact"]

    def get_fields(self, request: HttpRequest, obj: models.Model | None = None) -> Any:
        # To those who may only look Django shows the attribute of that name, and that is unsealed.
        asked = ["headers"] if obj is None or self.has_change_permission(request, obj) else []
        return [*EndpointForm.Meta.fields, *asked, *(self.shown if obj else [])]

    def get_readonly_fields(self, request: HttpRequest, obj: models.Model | None = None) -> list[str]:
        return self.shown if obj else []

    def has_act_permission(self, request: HttpRequest) -> bool:
        return self.has_change_permission(request)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """The endpoints, and how much goes with them: naming each of a million deliveries ends no page."""
        endpoints = [endpoint.pk for endpoint in objs]
        counts = {
            Endpoint._meta.verbose_name_plural: len(endpoints),
            Delivery._meta.verbose_name_plural: Delivery.objects.filter(endpoint__in=endpoints).count(),
        }
        lacking = set() if self.has_delete_permission(request) else {Endpoint._meta.verbose_name}
        return [str(endpoint) for endpoint in objs], counts, lacking, []

    @sensitive_variables("secret")
    def save_model(self, request: HttpRequest, obj: Endpoint, form: Any, change: bool) -> None:
        wanted = form.changes(form.cleaned_data)
        if change:
            subscribing.update_endpoint(obj, **wanted)
            return
        endpoint, secret = subscribing.create_endpoint(**wanted)
        # The admin logs and answers with the object of the form, so that becomes the endpoint that was made.
        obj.__dict__.update(endpoint.__dict__)
        obj.shown_once = secret  # type: ignore[attr-defined]  # an attribute of this one answer, in no column

    def response_add(
        self, request: HttpRequest, obj: Any, post_url_continue: str | None = None
    ) -> HttpResponse:
        return self._show(request, obj, obj.shown_once)

    @admin.action(description="Rotate the secret: shown once", permissions=["act"])
    @sensitive_variables("secret")
    def rotate_secret(self, request: HttpRequest, queryset: models.QuerySet[Endpoint]) -> HttpResponse | None:
        chosen = list(queryset[:2])
        if len(chosen) != 1:
            self.message_user(request, "Choose one endpoint: its secret is shown once.", messages.ERROR)
            return None
        secret = subscribing.rotate_secret(chosen[0])
        self.log_change(request, chosen[0], "Secret rotated.")
        return self._show(request, chosen[0], secret)

    @admin.action(description="Sign with v1a (Ed25519) too", permissions=["act"])
    def sign_publicly(self, request: HttpRequest, queryset: models.QuerySet[Endpoint]) -> None:
        self._each(request, queryset, subscribing.sign_publicly, "Signs with v1a too.")

    @admin.action(description="Pause: keep what comes", permissions=["act"])
    def pause(self, request: HttpRequest, queryset: models.QuerySet[Endpoint]) -> None:
        self._each(request, queryset, subscribing.pause_endpoint, "Paused.")

    @admin.action(description="Enable", permissions=["act"])
    def enable(self, request: HttpRequest, queryset: models.QuerySet[Endpoint]) -> None:
        self._each(request, queryset, subscribing.enable_endpoint, "Enabled.")

    @admin.action(description="Disable: cancel what waits", permissions=["act"])
    def disable(self, request: HttpRequest, queryset: models.QuerySet[Endpoint]) -> None:
        self._each(request, queryset, subscribing.disable_endpoint, "Disabled.")

    @admin.action(description="Send an example of the event type on the right", permissions=["act"])
    def send_test(self, request: HttpRequest, queryset: models.QuerySet[Endpoint]) -> None:
        name = request.POST.get("event_type") or None
        send = partial(publishing.send_test, event_type=name)
        self._each(request, queryset, send, f"Sent {name or 'webhooks.test'}.")

    @admin.action(description="Replay all that is dead or cancelled", permissions=["act"])
    def replay_dead(self, request: HttpRequest, queryset: models.QuerySet[Endpoint]) -> None:
        # In the background, since there may be many; how far it is stands among the replays.
        self._each(
            request,
            queryset,
            lambda endpoint: replaying.start_replay(endpoint=endpoint),
            "What is dead is being replayed; see Replays.",
        )

    def _each(
        self,
        request: HttpRequest,
        queryset: models.QuerySet[Endpoint],
        act: Callable[[Endpoint], Any],
        said: str,
    ) -> None:
        for endpoint in queryset.select_related("owner"):
            try:
                act(endpoint)
            except SvcInfraError as error:
                self.message_user(request, f"{endpoint}: {error.message}", messages.ERROR)
            else:
                self.log_change(request, endpoint, said)
                self.message_user(request, f"{endpoint}: {said}")

    @sensitive_variables("secret")
    def _show(self, request: HttpRequest, endpoint: Endpoint, secret: str) -> HttpResponse:
        return secret_shown_once(
            request,
            self.admin_site,
            title=f"The signing secret of {endpoint}",
            secret=secret,
            advice=ADVICE,
            next_url=reverse(f"{self.admin_site.name}:svc_webhooks_endpoint_change", args=[endpoint.pk]),
        )


class EventTypeForm(EventTypeModelForm):
    """An event type as `publish` and the API can use it."""

    class Meta:
        field_classes: ClassVar = dict.fromkeys(("schema", "examples", "retry_schedule"), KeptJSONField)

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"]
        try:
            declaring.check_name(name)
        except SvcInfraError as error:
            raise forms.ValidationError(error.message) from None
        return name

    def clean_schema(self) -> dict[str, Any]:
        schema = self.cleaned_data["schema"] or {}
        try:
            declaring.check_schema(schema)
        except SvcInfraError as error:
            raise forms.ValidationError(error.message) from None
        return dict(schema)

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        examples = cleaned.get("examples") or []
        schema = cleaned.get("schema", self.instance.schema)
        if not isinstance(examples, list):
            raise forms.ValidationError({"examples": "A list of data."})
        for number, example in enumerate(examples, start=1):
            if declaring.violations(orjson.dumps(schema).decode(), example):
                raise forms.ValidationError({"examples": f"Example {number} does not fit the schema."})
        cleaned["examples"] = examples
        return cleaned

    def clean_retry_schedule(self) -> list[float] | None:
        schedule = self.cleaned_data["retry_schedule"]
        try:
            checked: list[float] | None = subscribing.checked("retry_schedule", schedule)
        except SvcInfraError as error:
            raise forms.ValidationError(error.message) from None
        return checked


@admin.register(EventType)
class EventTypeAdmin(ReadableColumns, ModelAdmin):
    """What endpoints can ask for. Those that code declares are written by `migrate`."""

    form = EventTypeForm
    list_display = ["name", "description", "source", "is_archived"]
    list_filter = ["source", "is_archived"]
    search_fields = ["name__startswith"]
    fields = [
        "name", "description", "schema", "version", "examples", "example", "retry_schedule", "source",
        "is_archived",
    ]  # fmt: skip

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        if obj is None:
            return ["version", "example", "source", "is_archived"]
        if obj.source == EventType.Source.CODE:
            return ["name", "description", "schema", "version", "example", "source", "is_archived"]
        return ["name", "version", "example", "source"]

    @admin.display(description="what an example sends")
    def example(self, event_type: EventType) -> str:
        return json.dumps(event_type.example, indent=2, ensure_ascii=False)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        declaring.save_described(obj, was=form.initial.get("schema") if change else None)


class NothingToAdd:
    """For inlines of rows that machines write."""

    extra = 0
    can_delete = False
    show_change_link = True

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class DeliveryInline(NothingToAdd, TabularInline):
    model = Delivery
    fields = ["endpoint", "state", "attempts", "due_at", "last_status", "last_error"]

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        return super().get_queryset(request).select_related("endpoint")


class AttemptInline(NothingToAdd, TabularInline):
    model = Attempt
    show_change_link = False
    fields = ["n", "moment", "trigger", "status_code", "error", "duration_ms", "response_head"]
    readonly_fields = ["moment"]
    ordering = ["n"]

    @admin.display(description="at")
    def moment(self, attempt: Attempt) -> str:
        return shown_moment(attempt.at)


@admin.register(Message)
class MessageAdmin(MachineRowAdmin):
    """Messages, with their deliveries."""

    list_display = ["uid", "event_type", "owner", "tenant", "created_at"]
    list_select_related = ["owner"]
    search_fields = ["uid__exact", "tenant__exact"]
    fields = [
        "uid", "event_type", "owner", "tenant", "timeline", "idempotency_key", "text", "context",
        "occurred_at", "deliver_at", "created_at",
    ]  # fmt: skip
    readonly_fields = ["timeline", "text"]
    inlines = [DeliveryInline]
    actions = ["replay"]

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        found = super().get_queryset(request)
        return (
            found
            if request.resolver_match and "object_id" in request.resolver_match.kwargs
            else found.defer("body")
        )

    @admin.display(description="timeline")
    def timeline(self, message: Message) -> str:
        return _timeline(message.deliveries.all(), message)

    @admin.display(description="body")
    def text(self, message: Message) -> str:
        return bytes(message.body)[:SHOWN_BYTES].decode(errors="replace")

    @admin.action(description="Replay to every endpoint where it is dead or cancelled")
    def replay(self, request: HttpRequest, queryset: models.QuerySet[Message]) -> None:
        count = 0
        for message in queryset:
            count += replaying.replay_message(message)
            self.log_change(request, message, "Replayed.")
        self.message_user(request, f"Deliveries replayed: {count}.")


@admin.register(Delivery)
class DeliveryAdmin(MachineRowAdmin):
    """Deliveries; those whose state is dead are the dead letters."""

    list_display = [
        "id",
        "event_type",
        "endpoint",
        "state",
        "attempts",
        "due_at",
        "last_status",
        "last_error",
    ]
    list_select_related = ["message", "endpoint"]
    list_filter = ["state"]
    search_fields = ["message__uid__exact"]
    fields = [
        "id", "message", "endpoint", "timeline", "state", "trigger", "attempts", "due_at", "lease_until",
        "last_status", "last_error", "settled_at", "created_at",
    ]  # fmt: skip
    readonly_fields = ["timeline"]
    inlines = [AttemptInline]
    actions = ["replay"]

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        return super().get_queryset(request).defer("message__body", "message__context")

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """As Django's own: without it nobody could delete an endpoint, or a user who has one."""
        return admin.ModelAdmin.has_delete_permission(self, request, obj)

    @admin.display(description="timeline")
    def timeline(self, delivery: Delivery) -> str:
        return _timeline(Delivery.objects.filter(pk=delivery.pk), delivery.message)

    @admin.display(description="event type")
    def event_type(self, delivery: Delivery) -> str:
        return delivery.message.event_type

    @admin.action(description="Replay")
    def replay(self, request: HttpRequest, queryset: models.QuerySet[Delivery]) -> None:
        count = 0
        for delivery in queryset.select_related("message", "endpoint"):
            try:
                replaying.replay(delivery)
            except SvcInfraError as error:
                self.message_user(request, f"{delivery}: {error.message}", messages.ERROR)
            else:
                count += 1
                self.log_change(request, delivery, "Replayed.")
        self.message_user(request, f"Deliveries replayed: {count}.")


@admin.register(Replay)
class ReplayAdmin(MachineRowAdmin):
    """Replays in the background, and how far they are."""

    list_display = ["id", "endpoint", "message", "state", "done", "total", "per_second", "created_at"]
    list_select_related = ["endpoint", "message"]
    list_filter = ["state"]
    fields = [
        "id", "owner", "tenant", "endpoint", "message", "since", "only_failed", "per_second", "state", "done",
        "total", "created_at", "finished_at",
    ]  # fmt: skip
    actions = ["cancel"]

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        return super().get_queryset(request).defer("message__body", "message__context")

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """As Django's own: without it nobody could delete an endpoint that was replayed."""
        return admin.ModelAdmin.has_delete_permission(self, request, obj)

    @admin.action(description="Stop")
    def cancel(self, request: HttpRequest, queryset: models.QuerySet[Replay]) -> None:
        for replay in queryset:
            try:
                replaying.cancel_replay(replay)
            except SvcInfraError as error:
                self.message_user(request, f"{replay}: {error.message}", messages.ERROR)
            else:
                self.log_change(request, replay, "Stopped.")


def _look_back(endpoints: Sequence[Endpoint]) -> None:
    """Put the newest deliveries of each endpoint beside it."""
    found = Delivery.objects.newest_of([endpoint.pk for endpoint in endpoints], each=SHOWN_DELIVERIES)
    for endpoint in endpoints:
        endpoint.newest = found[endpoint.pk]  # type: ignore[attr-defined]  # for this one page, in no column


def _outcomes(endpoint: Endpoint) -> list[str]:
    if not hasattr(endpoint, "newest"):
        _look_back([endpoint])
    return [outcome(state, attempts) for state, attempts in endpoint.newest]  # type: ignore[attr-defined]  # as above


def _timeline(deliveries: models.QuerySet[Delivery], message: Message) -> str:
    """The picture of what was tried, those first that are not done."""
    shown = list(
        deliveries.select_related("endpoint")
        .order_by(models.Case(models.When(state="succeeded", then=1), default=0), "created_at")
        .only("state", "attempts", "due_at", "endpoint__description", "endpoint__url")[:SHOWN_DELIVERIES]
    )
    if not shown:
        return "No endpoint listened."
    attempts: dict[Any, list[Attempt]] = defaultdict(list)
    newest = Attempt.objects.filter(delivery__in=shown).defer("response_head").order_by("-at")
    for attempt in reversed(list(newest[:SHOWN_ATTEMPTS])):
        attempts[attempt.delivery_id].append(attempt)
    lanes = [_lane(delivery, attempts[delivery.pk]) for delivery in shown]
    ends = [dot.at for lane in lanes for dot in lane.dots] + [lane.due_at for lane in lanes if lane.due_at]
    return timeline(lanes, begins_at=message.created_at, ends_at=max([message.created_at, *ends]))


def _lane(delivery: Delivery, attempts: Sequence[Attempt]) -> Lane:
    dots = [
        Dot(
            attempt.at,
            is_success=not attempt.error,
            title=f"{attempt.n}: {attempt.status_code or attempt.error}, {attempt.duration_ms} ms, "
            f"{attempt.at:%Y-%m-%d %H:%M:%S} ({attempt.trigger})",
        )
        for attempt in attempts
    ]
    is_waiting = delivery.state == Delivery.State.PENDING
    label = str(delivery.endpoint)
    return Lane(
        label if len(label) <= LABEL_LENGTH else f"{label[:LABEL_LENGTH]}…",
        delivery.state,
        dots,
        due_at=delivery.due_at if is_waiting else None,
    )

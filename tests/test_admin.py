from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, Permission
from django.contrib.sessions.backends.db import SessionStore

from svc_infra_django.admin import MachineRowAdmin, secret_shown_once
from svc_infra_django.jobs.models import Job


class GroupRows(MachineRowAdmin):
    actions = ("shout",)

    @admin.action(description="Shout")
    def shout(self, request, queryset) -> None: ...


@pytest.fixture
def rows() -> GroupRows:
    return GroupRows(Group, admin.site)


@pytest.fixture
def asking(rf, make_user):
    def ask(*permissions: str, **fields):
        user = make_user("-".join(["staff", *permissions]), is_staff=True, **fields)
        user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        request = rf.get("/admin/")
        request.user, request.session = type(user).objects.get(pk=user.pk), SessionStore()
        return request

    return ask


def test_nobody_edits_what_machines_write(rows, asking) -> None:
    request = asking(is_superuser=True)

    assert rows.has_view_permission(request)
    assert not rows.has_add_permission(request)
    assert not rows.has_change_permission(request)
    assert not rows.has_delete_permission(request)


def test_who_may_only_look_is_offered_no_action(rows, asking) -> None:
    assert rows.get_actions(asking("view_group")) == {}
    assert list(rows.get_actions(asking("view_group", "change_group"))) == ["shout"]


def test_not_even_deleting_is_offered(rows, asking) -> None:
    assert "delete_selected" not in rows.get_actions(asking(is_superuser=True))


class JobRows(MachineRowAdmin):
    list_display = ("id", "task", "finished_at", "run_at")


def test_a_list_tells_moments_to_the_second_and_ids_by_their_end(rf, settings) -> None:
    settings.TIME_ZONE = "Europe/Paris"
    id_, task, finished_at, run_at = JobRows(Job, admin.site).get_list_display(rf.get("/"))
    job = Job(
        id=UUID("01a20852-e1f4-73de-862d-af5ab496d784"),
        finished_at=datetime(2026, 11, 22, 23, 59, 7, tzinfo=UTC),
    )

    assert 'title="01a20852-e1f4-73de-862d-af5ab496d784">…af5ab496d784<' in id_(job)
    assert task == "task"
    assert ">2026-11-23 00:59:07<" in finished_at(job)
    assert run_at(job) is None


def test_a_readable_column_still_sorts_and_is_named_as_its_field(rf) -> None:
    rows = JobRows(Job, admin.site)
    id_, _, finished_at, _ = rows.get_list_display(rf.get("/"))

    assert {id_, finished_at} <= set(rows.get_sortable_by(rf.get("/")))
    assert (id_.admin_order_field, id_.__name__) == ("id", "id")
    assert (finished_at.short_description, finished_at.admin_order_field) == ("finished at", "finished_at")


def test_a_secret_is_shown_by_an_answer_that_nobody_keeps(asking) -> None:
    response = secret_shown_once(
        asking(), admin.site, title="Your key", secret='k"><script>', advice="Copy it.", next_url="/admin/"
    ).render()

    page = response.content.decode()
    assert 'value="k&quot;&gt;&lt;script&gt;"' in page
    assert "<script>" not in page.split('id="content-main"')[1].split("</div>")[0]
    assert response["Cache-Control"] == "no-store"
    assert response["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize(
    ("page", "column"),
    [
        ("svc_accounts/authsession", "password_state"),
        ("svc_accounts/authsession", "browser_key"),
        ("svc_accounts/totpdevice", "sealed_key"),
        ("svc_accounts/emaildevice", "digest"),
        ("svc_accounts/signingkey", "sealed_private"),
        ("svc_apikeys/apikey", "digest"),
        ("svc_webhooks/endpoint", "sealed_headers"),
        ("svc_jobs/job", "args"),
        ("socialaccount/socialapp", "secret"),
        ("socialaccount/socialapp", "settings"),
        ("socialaccount/socialtoken", "token"),
    ],
)
def test_rule_36_no_list_can_be_asked_how_a_secret_begins(admin_client, page, column) -> None:
    assert admin_client.get(f"/admin/{page}/").status_code == 200
    assert admin_client.get(f"/admin/{page}/", {f"{column}__startswith": "a"}).status_code == 400
    assert admin_client.get(f"/admin/{page}/", {column: "a"}).status_code == 400


def test_a_list_is_filtered_by_whatever_it_shows(admin_client) -> None:
    ours = {
        model: page
        for model, page in admin.site._registry.items()
        if model._meta.app_label.startswith("svc_")
    }
    asked = 0
    for model, page in ours.items():
        address = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
        for column in {field.name for field in model._meta.concrete_fields} & set(page.list_display):
            answer = admin_client.get(address, {f"{column}__isnull": "False"})
            assert answer.status_code == 200, (address, column)
            asked += 1
    assert asked > 50

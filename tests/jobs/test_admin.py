from __future__ import annotations

import re
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from svc_infra_django.identifiers import uuid7
from svc_infra_django.jobs import enqueue_many
from svc_infra_django.jobs.models import Job, Queue, Schedule, Throughput, Worker
from svc_infra_django.jobs.scheduler import sync_schedules
from svc_infra_django.jobs.turn import take_turn
from svc_infra_django.jobs.worker import drain
from tests.jobs import work

BASE = "/admin/svc_jobs"


@pytest.fixture
def admin(make_user: Any) -> Client:
    client = Client()
    client.force_login(make_user("root", is_staff=True, is_superuser=True))
    return client


def act(client: Client, model: str, action: str, *keys: Any) -> Any:
    data = {"action": action, "_selected_action": [str(key) for key in keys]}
    return client.post(f"{BASE}/{model}/", data, follow=True)


def schedule_form(**fields: Any) -> dict[str, Any]:
    return {
        "key": "mine", "task": "tests.jobs.work.add", "args": '{"args": [1]}', "queue": "",
        "cron": "*/5 * * * *", "every_seconds": "", "tz": "Europe/London", "enabled": "on",
        "catch_up": "once", "window_seconds": "", "max_catch_up": "24", **fields,
    }  # fmt: skip


def test_a_dead_job_is_looked_at_and_retried(admin: Client) -> None:
    result = work.fail.enqueue()
    drain(timezone.now() + timedelta(hours=1))

    page = admin.get(f"{BASE}/job/{result.id}/change/")
    assert page.status_code == 200
    assert page.content.decode().count("Shaky: again") >= 3

    answer = act(admin, "job", "retry_jobs", result.id)
    assert "1 retried" in answer.content.decode()
    assert Job.objects.get().state == Job.State.READY


def test_a_job_that_cannot_be_cancelled_says_why(admin: Client) -> None:
    work.add.enqueue(1)
    drain()

    answer = act(admin, "job", "cancel_jobs", Job.objects.get().pk)

    assert "has succeeded already" in answer.content.decode()


def test_jobs_are_made_once_more_and_discarded(admin: Client) -> None:
    result = work.add.enqueue(1)

    assert "1 duplicated" in act(admin, "job", "duplicate_jobs", result.id).content.decode()
    assert "1 discarded" in act(admin, "job", "discard_jobs", result.id).content.decode()
    assert Job.objects.get().headers["duplicate_of"] == result.id


def test_the_progress_of_a_running_job_is_a_bar(admin: Client) -> None:
    result = work.add.enqueue(1)
    take_turn([], worker=uuid7(), queues=["default"], room=1)
    progress = {"n": 3, "total": 10, "note": "<b>rows</b>", "attempt": 1}
    Job.objects.update(progress=progress)

    for path in ("", f"{result.id}/change/"):
        page = admin.get(f"{BASE}/job/{path}").content.decode()
        assert '<progress max="100" value="30"' in page
        assert "3 of 10 &lt;b&gt;rows" in page
    Job.objects.update(progress={**progress, "total": None})
    assert "3 &lt;b&gt;rows" in admin.get(f"{BASE}/job/").content.decode()
    Job.objects.update(attempt=2)
    assert "<progress" not in admin.get(f"{BASE}/job/").content.decode()


def test_secrets_in_arguments_and_results_are_not_shown(admin: Client) -> None:
    result = work.sign.enqueue("s3cr3t-positional", order={"id": 7, "api_key": "s3cr3t-nested"})
    drain()

    page = admin.get(f"{BASE}/job/{result.id}/change/").content.decode()

    assert "s3cr3t" not in page and "hunter2" not in page
    assert "[redacted]" in page


def test_whoever_may_only_look_has_no_actions(make_user: Any) -> None:
    viewer = make_user("viewer", is_staff=True)
    viewer.user_permissions.add(*Permission.objects.filter(codename__in=["view_job", "view_queue"]))
    client = Client()
    client.force_login(viewer)
    work.add.enqueue(1)

    assert "retry_jobs" not in client.get(f"{BASE}/job/").content.decode()
    act(client, "job", "cancel_jobs", Job.objects.get().pk)

    assert Job.objects.get().state == Job.State.READY


def test_whoever_may_only_look_sees_no_secret_of_a_schedule(make_user: Any) -> None:
    looker = make_user("looker", is_staff=True)
    looker.user_permissions.add(Permission.objects.get(codename="view_schedule"))
    client = Client()
    client.force_login(looker)
    arguments = {"kwargs": {"a": 4711, "password": "hush"}}
    row = Schedule.objects.create(
        key="mine", task="tests.jobs.work.add", args=arguments, cron="0 * * * *", next_fire_at=timezone.now()
    )

    page = client.get(f"{BASE}/schedule/{row.pk}/change/").content.decode()

    assert "4711" in page
    assert "hush" not in page


def test_what_staff_do_to_rows_of_machines_is_in_the_history(admin: Client) -> None:
    result = work.add.enqueue(1)

    act(admin, "job", "cancel_jobs", result.id)
    act(admin, "job", "cancel_jobs", result.id)
    act(admin, "job", "discard_jobs", result.id)
    Queue.objects.get_or_create(name="default")
    act(admin, "queue", "pause_queues", "default")

    told = LogEntry.objects.order_by("pk").values_list("object_id", "change_message")
    assert list(told) == [(result.id, "Cancelled."), (result.id, "Discarded."), ("default", "Paused.")]


def test_discarding_wants_the_permission_to_delete(make_user: Any) -> None:
    operator = make_user("operator", is_staff=True)
    wanted = Permission.objects.filter(codename__in=["view_job", "change_job"])
    operator.user_permissions.add(*wanted)
    client = Client()
    client.force_login(operator)
    result = work.add.enqueue(1)

    act(client, "job", "discard_jobs", result.id)
    assert Job.objects.exists()
    act(client, "job", "cancel_jobs", result.id)
    assert Job.objects.get().state == Job.State.CANCELLED


def test_rows_of_machines_cannot_be_written(admin: Client) -> None:
    work.add.enqueue(1)
    pk = Job.objects.get().pk

    assert admin.get(f"{BASE}/job/add/").status_code == 403
    assert admin.post(f"{BASE}/job/{pk}/change/", {"state": 2}).status_code == 403
    assert admin.post(f"{BASE}/job/{pk}/delete/", {"post": "yes"}).status_code == 403


def test_jobs_are_found_by_id_and_tenant_and_filtered(admin: Client) -> None:
    result = work.add.using(tenant="acme").enqueue(1)
    work.add.enqueue(2)
    Queue.objects.create(name="default")

    for query in (f"q={result.id}", "q=acme"):
        assert "1 job" in admin.get(f"{BASE}/job/?{query}").content.decode()
    assert "2 jobs" in admin.get(f"{BASE}/job/?state__exact=0&queue=default").content.decode()
    assert admin.get(f"{BASE}/job/?q=%27%22").status_code == 200


def test_whatever_stands_in_the_address_is_looked_for(admin: Client) -> None:
    work.add.enqueue(1)
    Queue.objects.create(name="default")

    for query in ("queue=%00", "queue=%ff", "state__exact=99999999999999999999", "q=%00"):
        assert admin.get(f"{BASE}/job/?{query}").status_code in (200, 302)


@pytest.mark.parametrize("seconds", ["0", "-5", "1e300"])
def test_an_interval_that_no_clock_can_keep_is_refused(admin: Client, seconds: str) -> None:
    answer = admin.post(f"{BASE}/schedule/add/", schedule_form(cron="", every_seconds=seconds))

    assert "Between 0.1 seconds and ten years" in answer.content.decode()


def test_a_queue_is_paused_and_resumed(admin: Client) -> None:
    Queue.objects.create(name="default")

    act(admin, "queue", "pause_queues", "default")
    assert Queue.objects.get().is_paused
    act(admin, "queue", "resume_queues", "default")
    assert not Queue.objects.get().is_paused


def test_workers_are_shown_with_how_busy_they_are(admin: Client) -> None:
    worker = Worker.objects.create(name="host:1", host="host", pid=1, concurrency=4)
    enqueue_many(work.add, [[1], [2]])
    take_turn([], worker=worker.pk, queues=["default"], room=2)

    page = admin.get(f"{BASE}/worker/").content.decode()
    assert "host:1" in page
    assert '<td class="field-busy">2</td>' in page


def test_queues_show_how_they_are_doing(admin: Client, clock: Any) -> None:
    Queue.objects.create(name="default")
    minute = clock.now.replace(second=0, microsecond=0) - timedelta(minutes=1)
    Throughput.objects.create(minute=minute, queue="default", succeeded=20, failed=5)
    work.add.enqueue(1)
    Job.objects.update(created_at=timezone.now() - timedelta(minutes=7, seconds=30))
    work.two_a_tenant.enqueue("a")

    page = admin.get(f"{BASE}/queue/").content.decode()

    assert re.search(r'field-ready">1</td><td class="field-oldest[^>]*>7\xa0minutes', page)
    assert '<td class="field-blocked">1</td>' in page
    assert '<td class="field-rate">5.0</td>' in page
    assert "20 succeeded and 5 failed" in page
    assert "http" not in page[page.index("<svg role") : page.index("</figure>")]


def test_failed_jobs_of_a_queue_are_one_click_away(admin: Client) -> None:
    Queue.objects.create(name="default")
    work.fail.enqueue()
    drain(timezone.now() + timedelta(hours=1))

    page = admin.get(f"{BASE}/queue/").content.decode()

    link = re.search(r'href="([^"]+)">1</a></td><td class="field-rate', page)
    assert link and "1 job" in admin.get(link[1].replace("&amp;", "&")).content.decode()


def test_how_long_jobs_of_a_queue_are_kept_is_written_in_its_row(admin: Client) -> None:
    Queue.objects.create(name="default", paused_at=timezone.now())

    form = {"keep_succeeded_hours": "1.5", "keep_cancelled_hours": "", "keep_failed_hours": ""}
    assert admin.post(f"{BASE}/queue/default/change/", form).status_code == 302

    row = Queue.objects.get()
    assert (row.keep_succeeded_hours, row.is_paused) == (1.5, True)
    assert (
        "greater than or equal"
        in admin.post(f"{BASE}/queue/default/change/", {**form, "keep_failed_hours": "-1"}).content.decode()
    )


def test_a_schedule_is_written_and_knows_its_next_time(admin: Client) -> None:
    assert admin.post(f"{BASE}/schedule/add/", schedule_form()).status_code == 302

    row = Schedule.objects.get()
    assert (row.source, row.arguments()) == ("admin", ([1], {}))
    assert timezone.now() < row.next_fire_at <= timezone.now() + timedelta(minutes=5)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("cron", "0 0 30 2 *", "day-of-month"),
        ("cron", "31 2 30 2 *", "day-of-month"),
        ("cron", "* * * * * *", "five fields"),
        ("cron", "", "either"),
        ("cron", " ", "either"),
        ("every_seconds", "5", "either"),
        ("tz", "Mars/Olympus", "no time zone"),
        ("task", "no.such.task", "no task"),
        ("task", "this.s", "no task"),
        ("task", "..x", "no task"),
        ("task", "os.path.join", "no task"),
        ("args", '{"args": []}', "missing a required argument"),
        ("args", "[1]", "kwargs"),
        ("args", '{"args": 1}', "kwargs"),
        ("queue", "mial", "No task declares"),
        ("window_seconds", "-1", "More than 0"),
        ("max_catch_up", "0", "Between 1 and 1000"),
        ("max_catch_up", "99999", "Between 1 and 1000"),
        ("catch_up", "odd", "not one of the available choices"),
        ("args", "[" * 100_000, "nested too deeply"),
        ("args", '{"args": ["\\u0000"]}', "NUL"),
        ("args", '{"args": ["\\ud800"]}', "surrogate"),
        ("args", '{"args": [NaN]}', "not JSON"),
        ("args", '{"args": [1e999]}', "not JSON"),
        ("args", '{"args": [' + "9" * 5000 + "]}", "digits"),
        ("args", '{"args": ["' + "x" * 300_000 + '"]}', "the limit is"),
        ("args", '{"args": [1], "kwargs": {"zz": 1}}', "unexpected keyword"),
        ("key", "a\x00b", "Null characters"),
        ("key", " ", "required"),
        ("every_seconds", "nan", "Enter a number"),
    ],
)
def test_a_schedule_that_could_never_fire_is_refused(
    admin: Client, field: str, value: str, message: str
) -> None:
    answer = admin.post(f"{BASE}/schedule/add/", schedule_form(**{field: value}))

    assert answer.status_code == 200
    assert message in answer.content.decode().replace("&#x27;", "'")
    assert not Schedule.objects.exists()


def test_a_schedule_of_the_code_that_was_edited_is_the_admins(admin: Client) -> None:
    sync_schedules(now=timezone.now())
    row = Schedule.objects.get(key="tests.jobs.work.hourly")

    page = admin.get(f"{BASE}/schedule/{row.pk}/change/")
    assert page.status_code == 200
    data = schedule_form(args="{}", cron="", every_seconds="60", tz="UTC")
    assert admin.post(f"{BASE}/schedule/{row.pk}/change/", data).status_code == 302
    sync_schedules(now=timezone.now())

    row.refresh_from_db()
    assert (row.source, row.every_seconds) == ("admin", 60)


def test_the_next_runs_are_shown_by_both_clocks(admin: Client) -> None:
    row = Schedule.objects.create(
        key="s", task="tests.jobs.work.hourly", cron="30 2 * * *", tz="America/New_York", error="it broke",
        next_fire_at=datetime(2026, 3, 7, 7, 30, tzinfo=UTC),
    )  # fmt: skip

    page = admin.get(f"{BASE}/schedule/{row.pk}/change/").content.decode()

    assert "Sat 2026-03-07 02:30:00 EST = 2026-03-07 01:30:00 CST" in page
    assert "Sun 2026-03-08 03:00:00 EDT" in page
    assert "it broke" in page


@pytest.mark.parametrize("fields", [{"tz": "Mars/Olympus"}, {"cron": "", "every_seconds": "1e300"}])
def test_a_bad_change_is_refused_and_shown_again(admin: Client, fields: dict[str, str]) -> None:
    row = Schedule.objects.create(
        key="s", task="tests.jobs.work.add", cron="* * * * *", next_fire_at=timezone.now()
    )

    answer = admin.post(f"{BASE}/schedule/{row.pk}/change/", schedule_form(**fields))

    assert answer.status_code == 200
    assert "Please correct the error" in answer.content.decode()


def test_schedules_are_switched_off_and_on_and_fired(admin: Client) -> None:
    row = Schedule.objects.create(
        key="s", task="tests.jobs.work.add", args={"args": [1]}, every_seconds=3600,
        next_fire_at=timezone.now() - timedelta(days=1),
    )  # fmt: skip

    act(admin, "schedule", "disable", row.pk)
    assert not Schedule.objects.get().enabled
    act(admin, "schedule", "enable", row.pk)
    assert Schedule.objects.get().next_fire_at > timezone.now()
    act(admin, "schedule", "fire", row.pk)
    assert Job.objects.get().headers["schedule"] == "s"


@pytest.mark.parametrize("model", ["job", "queue", "worker", "schedule"])
def test_lists_ask_as_much_for_fifty_rows_as_for_one(admin: Client, model: str, user: Any) -> None:
    def fill(count: int) -> None:
        for number in range(count):
            name = f"{count}-{number}"
            work.add.using(owner=user).enqueue(1)
            Queue.objects.create(name=name)
            Worker.objects.create(name=name, host="h", pid=1, concurrency=1)
            Schedule.objects.create(key=name, task="x", every_seconds=5, next_fire_at=timezone.now())

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert admin.get(f"{BASE}/{model}/").status_code == 200
        return len(captured)

    fill(1)
    queries()
    one = queries()
    fill(49)
    assert queries() == one


def test_a_task_typed_into_a_form_imports_nothing(admin: Client) -> None:
    admin.post(f"{BASE}/schedule/add/", schedule_form(task="antigravity.open"))

    assert "antigravity" not in sys.modules


def test_many_refusals_are_summed_up(admin: Client) -> None:
    enqueue_many(work.add, [[number] for number in range(15)])
    drain()

    page = act(admin, "job", "cancel_jobs", *Job.objects.values_list("pk", flat=True)).content.decode()

    assert page.count("has succeeded already") == 10
    assert "5 more were refused" in page and "0 cancelled" in page

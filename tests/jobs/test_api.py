from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from svc_infra_django.jobs import enqueue_many
from svc_infra_django.jobs.models import Job, Queue, Schedule
from svc_infra_django.jobs.services.operating import cancel
from svc_infra_django.jobs.worker import drain
from tests.jobs import work

URL = "/api/jobs"
MISSING = "019ab39e-0000-7000-8000-000000000000"


@pytest.fixture
def operator(user: Any) -> Client:
    user.user_permissions.add(
        *Permission.objects.filter(content_type__app_label="svc_jobs", codename__regex="^(view|change)_")
    )
    client = Client()
    client.force_login(user)
    return client


def test_a_stranger_is_told_which_permission_is_missing(stranger: Any) -> None:
    client = Client()
    client.force_login(stranger)

    for method, path, permission in (
        ("get", "", "view_job"),
        ("get", f"/{MISSING}", "view_job"),
        ("post", f"/{MISSING}/retry", "change_job"),
        ("post", f"/{MISSING}/cancel", "change_job"),
        ("get", "/queues", "view_queue"),
        ("post", "/queues/default/pause", "change_queue"),
        ("post", "/queues/default/resume", "change_queue"),
        ("get", "/schedules", "view_schedule"),
    ):
        answer = getattr(client, method)(URL + path)
        assert (answer.status_code, answer.json()["permission"]) == (403, f"svc_jobs.{permission}")


def test_nobody_is_asked_to_sign_in(db: None) -> None:
    assert Client().get(URL).status_code == 401


def test_jobs_are_listed_newest_first_and_filtered(operator: Client, ledger: str) -> None:
    work.add.enqueue(1)
    work.mail.enqueue(ledger, "x")
    work.add.using(run_after=timezone.now() + timedelta(hours=1)).enqueue(2)

    def found(query: str) -> list[str]:
        return [item["task"].rpartition(".")[2] for item in operator.get(f"{URL}?{query}").json()["items"]]

    assert found("") == ["add", "mail", "add"]
    assert found("queue=mail") == ["mail"]
    assert found("state=scheduled") == ["add"]
    assert found("task=tests.jobs.work.mail&state=ready") == ["mail"]
    assert found("state=failed") == []


def test_pages_hold_every_job_once(operator: Client) -> None:
    ids = enqueue_many(work.add, [[number] for number in range(7)])

    seen, cursor = [], ""
    while True:
        page = operator.get(f"{URL}?limit=3{cursor}").json()
        seen += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"

    assert seen == sorted(ids, reverse=True)


@pytest.mark.parametrize("query", ["state=odd", "limit=0", "limit=x", "cursor=x", "queue=%00", "task=%00"])
def test_a_bad_query_is_refused(operator: Client, query: str) -> None:
    answer = operator.get(f"{URL}?{query}")

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == f"/query/{query.partition('=')[0]}"


def test_a_job_is_shown_with_its_attempts(operator: Client) -> None:
    result = work.fail.enqueue()
    drain(timezone.now() + timedelta(hours=1))

    job = operator.get(f"{URL}/{result.id}").json()

    assert (job["state"], job["attempt"], job["error"]) == ("failed", 3, "tests.jobs.work.Shaky")
    assert [attempt["outcome"] for attempt in job["attempts"]] == ["retried", "retried", "failed"]
    assert "Shaky: again" in job["attempts"][0]["traceback"]


def test_arguments_and_results_are_redacted(operator: Client) -> None:
    result = work.sign.enqueue("s3cr3t-positional", order={"id": 7, "api_key": "s3cr3t-nested"})
    drain()

    for path in ("", f"/{result.id}"):
        shown = operator.get(URL + path).content.decode()
        assert "s3cr3t" not in shown and "hunter2" not in shown
        assert "[redacted]" in shown
    assert operator.get(f"{URL}/{result.id}").json()["result"]["order"] == 7


def test_a_dead_job_is_retried_and_a_waiting_one_cancelled(operator: Client) -> None:
    dead = work.fail.enqueue()
    drain(timezone.now() + timedelta(hours=1))

    assert operator.post(f"{URL}/{dead.id}/retry").json()["state"] == "ready"
    assert operator.post(f"{URL}/{dead.id}/cancel").json()["state"] == "cancelled"

    conflict = operator.post(f"{URL}/{dead.id}/cancel")
    assert (conflict.status_code, conflict.json()["code"]) == (409, "jobs.not_cancellable")


@pytest.mark.parametrize("path", ["", "/retry", "/cancel"])
def test_what_is_not_there_is_404(operator: Client, path: str) -> None:
    call = operator.post if path else operator.get

    answer = call(f"{URL}/{MISSING}{path}")

    assert (answer.status_code, answer.json()["code"]) == (404, "jobs.not_found")
    assert operator.get(f"{URL}/nonsense").status_code == 404


def test_queues_are_paused_and_resumed(operator: Client) -> None:
    work.add.enqueue(1)

    paused = operator.post(f"{URL}/queues/default/pause").json()
    assert (paused["is_paused"], paused["ready"]) == (True, 1)
    assert operator.get(f"{URL}/queues").json()["items"][0]["is_paused"]
    assert drain() == 0

    assert not operator.post(f"{URL}/queues/default/resume").json()["is_paused"]
    assert drain() == 1
    unknown = operator.post(f"{URL}/queues/mial/pause")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "jobs.queue_not_found")
    assert operator.post(f"{URL}/queues/%00/pause").status_code == 422


def test_schedules_are_listed(operator: Client) -> None:
    Schedule.objects.create(key="a", task="x", every_seconds=5, next_fire_at=timezone.now())

    assert operator.get(f"{URL}/schedules").json()["items"][0]["key"] == "a"


@pytest.mark.parametrize("path", ["", "/queues", "/schedules"])
def test_lists_ask_as_much_for_fifty_rows_as_for_one(operator: Client, path: str) -> None:
    def fill(count: int) -> None:
        for number in range(count):
            Queue.objects.create(name=f"q{count}-{number}")
            Schedule.objects.create(
                key=f"s{count}-{number}", task="x", every_seconds=5, next_fire_at=timezone.now()
            )
            cancel(work.add.enqueue(1).id)

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert operator.get(f"{URL}{path}?limit=100").status_code == 200
        return len(captured)

    fill(1)
    operator.get(URL)
    one = queries()
    fill(49)
    assert Job.objects.count() == 50
    assert queries() == one

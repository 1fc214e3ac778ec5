from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.db.models import Model
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from svc_infra_django.apikeys import issue_key
from svc_infra_django.identifiers import uuid7
from svc_infra_django.jobs import enqueue_many
from svc_infra_django.jobs.models import Job, Queue, Schedule, Throughput, Worker
from svc_infra_django.jobs.services.operating import cancel
from svc_infra_django.jobs.turn import take_turn, write_progress
from svc_infra_django.jobs.worker import drain
from tests.jobs import work

URL, JSON = "/api/jobs", "application/json"
WRITTEN = {"/schedules": {"key": "k", "task": "t"}}
MISSING = "019ab39e-0000-7000-8000-000000000000"


@pytest.fixture
def operator(user: Any) -> Client:
    user.user_permissions.add(
        *Permission.objects.filter(
            content_type__app_label="svc_jobs", codename__regex="^(view|change|add|delete)_"
        )
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
        ("post", "/retry-failed", "change_job"),
        ("post", f"/{MISSING}/duplicate", "add_job"),
        ("delete", f"/{MISSING}", "delete_job"),
        ("get", "/queues", "view_queue"),
        ("post", "/queues/default/pause", "change_queue"),
        ("post", "/queues/default/resume", "change_queue"),
        ("patch", "/queues/default", "change_queue"),
        ("get", "/throughput", "view_queue"),
        ("get", "/workers", "view_worker"),
        ("get", "/schedules", "view_schedule"),
        ("get", f"/schedules/{MISSING}", "view_schedule"),
        ("post", "/schedules", "add_schedule"),
        ("patch", f"/schedules/{MISSING}", "change_schedule"),
        ("delete", f"/schedules/{MISSING}", "delete_schedule"),
        ("post", f"/schedules/{MISSING}/fire", "change_schedule"),
    ):
        answer = getattr(client, method)(URL + path, data=WRITTEN.get(path, {}), content_type=JSON)
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


def test_a_credential_of_one_tenant_reaches_no_jobs(make_user: Any) -> None:
    """The queues are one for all tenants: what runs in them, and with which arguments, is not one's own."""
    job, some = work.add.enqueue(1), "019ab39e-0000-7000-8000-000000000000"
    _, key = issue_key(owner=make_user("root", is_superuser=True), name="acme", tenant="acme")
    client = Client(headers={"X-API-Key": key})

    for method, path, body in (
        *(("get", path, None) for path in ("", f"/{job.id}", "/queues", "/workers", "/schedules")),
        *(("get", path, None) for path in ("/throughput", f"/schedules/{some}")),
        *(("post", f"/{job.id}/{act}", None) for act in ("retry", "cancel", "duplicate")),
        *(("post", path, None) for path in ("/queues/default/pause", "/queues/default/resume")),
        *(("delete", path, None) for path in (f"/{job.id}", f"/schedules/{some}")),
        ("post", "/retry-failed", {}),
        ("patch", "/queues/default", {}),
        ("post", "/schedules", {"key": "k", "task": job.task.module_path, "cron": "* * * * *"}),
        ("patch", f"/schedules/{some}", {"enabled": False}),
        ("post", f"/schedules/{some}/fire", None),
    ):
        data = {} if method == "get" else {"data": body, "content_type": "application/json"}
        answer = getattr(client, method)(f"/api/jobs{path}", **data)
        assert (answer.status_code, answer.json()["code"]) == (403, "tenant_refused"), (method, path)


def test_a_dead_job_is_retried_and_a_waiting_one_cancelled(operator: Client) -> None:
    dead = work.fail.enqueue()
    drain(timezone.now() + timedelta(hours=1))

    assert operator.post(f"{URL}/{dead.id}/retry").json()["state"] == "ready"
    assert operator.post(f"{URL}/{dead.id}/cancel").json()["state"] == "cancelled"

    conflict = operator.post(f"{URL}/{dead.id}/cancel")
    assert (conflict.status_code, conflict.json()["code"]) == (409, "jobs.not_cancellable")


def test_the_failed_jobs_of_a_queue_are_retried_together(operator: Client) -> None:
    for _ in range(3):
        work.fail.enqueue()
    unique = work.only_once.enqueue("a")
    drain(timezone.now() + timedelta(hours=1))
    Job.objects.filter(pk=unique.id).update(state=Job.State.FAILED)
    newer = work.only_once.enqueue("a")

    def retried(**body: Any) -> Any:
        return operator.post(f"{URL}/retry-failed", data=body, content_type=JSON).json()

    assert retried(queue="mail") == {"retried": 0, "refused": 0}
    assert retried(task="tests.jobs.work.fail", limit=2) == {"retried": 2, "refused": 0}
    assert retried() == {"retried": 1, "refused": 1}
    assert Job.objects.get(pk=unique.id).state == Job.State.FAILED and newer.id != unique.id
    assert operator.post(f"{URL}/retry-failed", data={"limit": 0}, content_type=JSON).status_code == 422


def test_a_job_is_made_once_more_and_discarded(operator: Client) -> None:
    result = work.add.enqueue(1)

    again = operator.post(f"{URL}/{result.id}/duplicate")
    assert (again.status_code, again.json()["state"]) == (201, "ready")
    assert operator.delete(f"{URL}/{result.id}").status_code == 204
    take_turn([], worker=uuid7(), queues=["default"], room=1)
    conflict = operator.delete(f"{URL}/{again.json()['id']}")
    assert (conflict.status_code, conflict.json()["code"]) == (409, "jobs.not_discardable")


def test_a_running_job_shows_its_progress(operator: Client) -> None:
    result = work.add.enqueue(1)
    assert operator.get(f"{URL}/{result.id}").json()["progress"] is None

    (job,) = take_turn([], worker=uuid7(), queues=["default"], room=1)
    write_progress([(job, {"n": 1.0, "total": 2.0, "note": "half"})])

    assert operator.get(f"{URL}/{result.id}").json()["progress"] == {"n": 1.0, "total": 2.0, "note": "half"}
    assert operator.get(URL).json()["items"][0]["progress"]["note"] == "half"


@pytest.mark.parametrize("path", ["", "/retry", "/cancel", "/duplicate"])
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


def test_queues_show_how_they_are_doing(operator: Client, clock: Any) -> None:
    Queue.objects.create(name="default")
    work.add.enqueue(1)
    minute = clock.now.replace(second=0, microsecond=0) - timedelta(minutes=1)
    Throughput.objects.create(minute=minute, queue="default", succeeded=20, failed=5)

    (queue,) = operator.get(f"{URL}/queues").json()["items"]

    assert (queue["ready"], queue["blocked"], queue["failed"], queue["per_minute"]) == (1, 0, 0, 5.0)
    assert queue["oldest_ready_at"] is not None
    minutes = operator.get(f"{URL}/throughput?minutes=3&queue=default").json()
    assert [row["succeeded"] for row in minutes] == [0, 20, 0]


@pytest.mark.parametrize("query", ["minutes=0", "minutes=1441", "minutes=x", "queue=" + "x" * 65])
def test_a_span_that_is_none_is_refused(operator: Client, query: str) -> None:
    assert operator.get(f"{URL}/throughput?{query}").status_code == 422


def test_how_long_jobs_of_a_queue_are_kept_is_set(operator: Client) -> None:
    def change(**body: Any) -> Any:
        return operator.patch(f"{URL}/queues/default", data=body, content_type=JSON)

    assert change(keep_failed_hours=12).json()["keep_failed_hours"] == 12
    assert change(keep_succeeded_hours=1).json()["keep_failed_hours"] == 12
    assert change(keep_failed_hours=None).json()["keep_failed_hours"] is None
    assert change(keep_failed_hours=0).status_code == 422
    assert change(keep_failed_hours=1e9).status_code == 422
    assert operator.patch(f"{URL}/queues/mial", data={}, content_type=JSON).status_code == 404


def test_workers_are_listed_while_they_are_alive(operator: Client) -> None:
    worker = Worker.objects.create(name="host:1", host="host", pid=1, concurrency=4)
    Worker.objects.create(
        name="dead", host="host", pid=2, concurrency=4, heartbeat_at=timezone.now() - timedelta(hours=1)
    )
    work.add.enqueue(1)
    take_turn([], worker=worker.pk, queues=["default"], room=2)

    (shown,) = operator.get(f"{URL}/workers").json()["items"]

    assert (shown["name"], shown["busy"], shown["queues"]) == ("host:1", 1, [])


def test_schedules_are_listed(operator: Client) -> None:
    Schedule.objects.create(key="a", task="x", every_seconds=5, next_fire_at=timezone.now())

    assert operator.get(f"{URL}/schedules").json()["items"][0]["key"] == "a"


@pytest.mark.parametrize("path", ["", "/queues", "/schedules", "/workers"])
def test_lists_ask_as_much_for_fifty_rows_as_for_one(operator: Client, path: str) -> None:
    def fill(count: int) -> None:
        for number in range(count):
            Queue.objects.create(name=f"q{count}-{number}")
            Worker.objects.create(name=f"w{number}", host="h", pid=1, concurrency=1)
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


def write(client: Client, method: str, path: str = "", **body: Any) -> Any:
    return getattr(client, method)(f"{URL}/schedules{path}", data=body, content_type=JSON)


@pytest.fixture
def written(operator: Client) -> dict[str, Any]:
    answer = write(
        operator, "post", key="mine", task="tests.jobs.work.add", args={"args": [1]}, cron="*/5 * * * *"
    )
    assert answer.status_code == 201
    made: dict[str, Any] = answer.json()
    return made


def test_a_schedule_is_written_looked_at_changed_and_deleted(
    operator: Client, written: dict[str, Any]
) -> None:
    assert (written["source"], written["arguments"]["args"], len(written["upcoming"])) == ("admin", [1], 5)
    path = f"/{written['id']}"

    changed = write(operator, "patch", path, cron="", every_seconds=60, catch_up="all", window_seconds=3600)
    assert changed.json()["every_seconds"] == 60
    looked_at = operator.get(f"{URL}/schedules{path}").json()
    assert (looked_at["catch_up"], looked_at["args" if "args" in looked_at else "cron"]) == ("all", "")

    assert operator.delete(f"{URL}/schedules{path}").status_code == 204
    gone = operator.get(f"{URL}/schedules{path}")
    assert (gone.status_code, gone.json()["code"]) == (404, "jobs.schedule_not_found")


def test_a_schedule_is_fired_by_hand(operator: Client, written: dict[str, Any]) -> None:
    answer = write(operator, "post", f"/{written['id']}/fire")

    assert (answer.status_code, answer.json()["task"]) == (201, "tests.jobs.work.add")
    assert Schedule.objects.get().last_fire_at is None


@pytest.mark.parametrize(
    "broken", [{"task": "no.such"}, {"args": {"kwargs": {"c": 1}}}, {"queue": "odd"}], ids=str
)
def test_of_a_schedule_that_is_broken_no_job_is_made(
    operator: Client, written: dict[str, Any], broken: dict[str, Any]
) -> None:
    Schedule.objects.update(**broken)

    answer = write(operator, "post", f"/{written['id']}/fire")

    assert (answer.status_code, answer.json()["code"]) == (409, "jobs.schedule_not_fireable")


class ReplicaOfNothing:
    """Reads the jobs' tables from a replica that does not have yet what was written a moment ago."""

    def db_for_read(self, model: type[Model], **hints: Any) -> str | None:
        return "replica" if model._meta.app_label == "svc_jobs" and not hints else None


def test_what_was_just_written_is_not_looked_for_in_a_replica(
    operator: Client, written: dict[str, Any], settings: Any
) -> None:
    settings.DATABASE_ROUTERS = [ReplicaOfNothing()]

    fired = write(operator, "post", f"/{written['id']}/fire")
    answers = [
        operator.post(f"{URL}/queues/default/pause"),
        operator.post(f"{URL}/queues/default/resume"),
        operator.patch(f"{URL}/queues/default", {"keep_failed_hours": 1}, content_type="application/json"),
    ]

    assert [fired.status_code, *(answer.status_code for answer in answers)] == [201, 200, 200, 200]
    assert work.add.get_result(fired.json()["id"]).id == fired.json()["id"]


def test_a_schedule_that_is_broken_can_be_switched_off(operator: Client, written: dict[str, Any]) -> None:
    Schedule.objects.update(task="no.such")

    assert write(operator, "patch", f"/{written['id']}", enabled=False).json()["enabled"] is False
    assert write(operator, "patch", f"/{written['id']}", tz="UTC").status_code == 422
    assert operator.get(f"{URL}/schedules/{written['id']}").json()["upcoming"] == []


def test_a_schedule_of_the_code_is_disabled_not_deleted(operator: Client) -> None:
    row = Schedule.objects.create(
        key="a", task="tests.jobs.work.hourly", every_seconds=5, next_fire_at=timezone.now(), source="code"
    )

    answer = operator.delete(f"{URL}/schedules/{row.pk}")

    assert (answer.status_code, answer.json()["code"]) == (409, "jobs.schedule_of_the_code")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"cron": "0 0 31 2 *"}, "/body/cron"),
        ({"cron": "31 2 30 2 *"}, "/body/cron"),
        ({"cron": "* * *"}, "/body/cron"),
        ({"cron": "* * * * *", "every_seconds": 5}, "/body/cron"),
        ({}, "/body/cron"),
        ({"every_seconds": 0.001}, "/body/every_seconds"),
        ({"every_seconds": "inf"}, "/body/every_seconds"),
        ({"cron": "* * * * *", "tz": "Mars/Olympus"}, "/body/tz"),
        ({"cron": "* * * * *", "task": "no.such"}, "/body/task"),
        ({"cron": "* * * * *", "task": "os.system"}, "/body/task"),
        ({"cron": "* * * * *", "args": {"args": ["x"] * 9}}, "/body/args"),
        ({"cron": "* * * * *", "args": {"args": ["a\x00"]}}, "/body/args/args/0"),
        ({"cron": "* * * * *", "args": {"args": ["x" * 1_000_000]}}, "/body/args"),
        ({"cron": "* * * * *", "args": []}, "/body/args"),
        ({"cron": "* * * * *", "args": {"kwargs": {"zz": 1}}}, "/body/args"),
        ({"cron": "* * * * *", "window_seconds": "nan"}, "/body/window_seconds"),
        ({"every_seconds": "nan"}, "/body/every_seconds"),
        ({"cron": "* * * * *", "queue": "mial"}, "/body/queue"),
        ({"cron": "* * * * *", "catch_up": "never"}, "/body/catch_up"),
        ({"cron": "* * * * *", "window_seconds": 0}, "/body/window_seconds"),
        ({"cron": "* * * * *", "max_catch_up": 10**9}, "/body/max_catch_up"),
        ({"cron": "* * * * *", "key": ""}, "/body/key"),
        ({"cron": "* * * * *", "key": "taken"}, "/body/key"),
        ({"cron": "* * * * *", "key": "a\x00b"}, "/body/key"),
        ({"cron": "* * * * *", "odd": 1}, "/body/odd"),
    ],
)
def test_a_schedule_that_could_never_fire_is_refused(
    operator: Client, body: dict[str, Any], pointer: str
) -> None:
    Schedule.objects.create(key="taken", task="x", every_seconds=5, next_fire_at=timezone.now())

    usual = {"key": "new", "task": "tests.jobs.work.add", "args": {"args": [1]}}
    answer = write(operator, "post", **{**usual, **body})

    assert answer.status_code == 422
    assert pointer in [error["pointer"] for error in answer.json()["errors"]], answer.json()
    assert Schedule.objects.count() == 1


@pytest.mark.parametrize(
    "args",
    ["[" * 5000 + "]" * 5000, "[NaN]", "[1e999]", "[" + "9" * 5000 + "]", '["\\ud800"]', '["\\u0000"]'],
)
@pytest.mark.parametrize("method", ["post", "patch"])
def test_arguments_that_no_database_keeps_are_refused_whatever_the_json_says(
    operator: Client, written: dict[str, Any], method: str, args: str
) -> None:
    path = f"/{written['id']}" if method == "patch" else ""
    fields = '"key": "new", "task": "tests.jobs.work.add", "cron": "* * * * *", ' if method == "post" else ""
    body = f'{{{fields}"args": {{"args": {args}}}}}'

    answer = getattr(operator, method)(f"{URL}/schedules{path}", body, content_type="application/json")

    assert answer.status_code in (400, 422), answer.content
    assert answer["Content-Type"].startswith("application/problem+json")
    assert Schedule.objects.get().arguments() == ([1], {})

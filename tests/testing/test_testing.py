from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from django.http import HttpResponse, JsonResponse
from django.utils import timezone
from pydantic import BaseModel

from svc_infra_django.config.sections import load
from svc_infra_django.events import EventType, catalog
from svc_infra_django.jobs import TaskContext, enqueue_many, periodic, task
from svc_infra_django.jobs.conf import JobsSettings
from svc_infra_django.observability.conf import ObservabilitySettings
from svc_infra_django.testing.assertions import (
    assert_enqueued,
    assert_not_enqueued,
    assert_problem,
    enqueued_jobs,
)

PROBLEM = {"status": 409, "code": "conflict", "errors": [{"pointer": "/body/url"}], "permission": "a.b"}


def response(status: int = 409, content_type: str = "application/problem+json", **changes) -> HttpResponse:
    return HttpResponse(json.dumps({**PROBLEM, **changes}), status=status, content_type=content_type)


def test_a_problem_is_returned() -> None:
    assert assert_problem(response(), 409) == PROBLEM
    assert assert_problem(response(), 409, code="conflict", pointer="/body/url", permission="a.b")


@pytest.mark.parametrize(
    ("got", "expected", "complaint"),
    [
        (response(), {"status": 404}, "expected 404, got 409"),
        (response(content_type="application/json"), {"status": 409}, "not a problem"),
        (response(status=400), {"status": 400}, "another status"),
        (response(), {"status": 409, "code": "other"}, "expected code 'other'"),
        (response(), {"status": 409, "pointer": "/body/x"}, "no field '/body/x'"),
        (response(), {"status": 409, "permission": "c.d"}, "expected permission='c.d'"),
        (JsonResponse({}), {"status": 409}, "got 200"),
    ],
)
def test_what_is_no_such_problem_is_told(got, expected, complaint) -> None:
    with pytest.raises(AssertionError, match=complaint):
        assert_problem(got, **expected)


def test_settings_are_merged_for_the_test(svc_settings) -> None:
    svc_settings(observability={"access_log": False})
    svc_settings(observability={"metrics_label_limit": 7}, jobs={})

    section = load(ObservabilitySettings)
    assert (section.access_log, section.metrics_label_limit) == (False, 7)
    assert load(JobsSettings)


def test_and_are_gone_after_it() -> None:
    assert load(ObservabilitySettings).access_log is True


class Brewed(BaseModel):
    pot: int


@pytest.mark.django_db
def test_events_are_recorded(events) -> None:
    tea_brewed = EventType("tea.brewed", Brewed)
    try:
        first = tea_brewed.emit(Brewed(pot=1))
        tea_brewed.emit(Brewed(pot=2))
    finally:
        del catalog["tea.brewed"]

    assert events[0] is first
    assert events.names == ["tea.brewed", "tea.brewed"]
    assert [event.payload.pot for event in events.of("tea.brewed")] == [1, 2]
    assert events.of("tea.spilt") == []


done: list[str] = []


@task()
def brew(kind: str) -> None:
    done.append(kind)


def test_due_jobs_run_when_told(run_jobs) -> None:
    done.clear()
    brew.enqueue("green")
    assert done == []

    assert run_jobs() == 1
    assert run_jobs() == 0
    assert done == ["green"]


@task(takes_context=True)
def steep(context: TaskContext, kind: str, minutes: int = 3) -> None:
    brew.enqueue(kind)


@periodic("0 6 * * *")
@task
def morning_tea() -> None:
    done.append("morning")


def test_jobs_run_inline_when_a_test_wants_that(inline_jobs) -> None:
    done.clear()

    result = steep.enqueue("green")
    assert done == ["green"]
    enqueue_many(brew, [["black"], ["white"]])
    assert done == ["green", "black", "white"]
    result.refresh()
    assert result.status == "SUCCESSFUL"
    brew.using(run_after=timezone.now() + timedelta(hours=1)).enqueue("later")
    assert len(done) == 3


def test_the_clock_stands_still_until_it_is_moved(clock, run_jobs) -> None:
    done.clear()
    brew.using(run_after=timezone.now() + timedelta(hours=1)).enqueue("later")

    assert timezone.now() == timezone.now() == clock.now
    assert run_jobs() == 0
    clock.advance(minutes=59)
    assert run_jobs() == 0
    assert clock.advance(minutes=1) == timezone.now()
    assert run_jobs() == 1
    with pytest.raises(ValueError, match="time zone"):
        clock.move_to(datetime(2026, 1, 1))


def test_schedules_fire_by_the_clock(clock, run_jobs, request) -> None:
    done.clear()
    clock.move_to(datetime(2026, 6, 1, 5, 30, tzinfo=UTC))
    fire_schedules = request.getfixturevalue("fire_schedules")

    assert fire_schedules() == 0
    clock.advance(minutes=31)
    assert fire_schedules() >= 1
    assert enqueued_jobs(morning_tea)[0].headers["fire_at"] == "2026-06-01T06:00:00+00:00"


@pytest.mark.django_db
def test_what_was_enqueued_is_found_however_its_arguments_were_given() -> None:
    steep.enqueue("green", minutes=3)
    steep.using(priority=5).enqueue(kind="black")

    assert assert_enqueued(steep, "black").priority == 5
    assert assert_enqueued(steep, "green") == assert_enqueued(steep, kind="green", minutes=3)
    assert len(enqueued_jobs(steep)) == 2
    assert_not_enqueued(steep, "white")
    assert_not_enqueued(brew)
    brew.enqueue(("earl", "grey"))
    assert_enqueued(brew, ("earl", "grey"))

    with pytest.raises(AssertionError, match=r"got 0; enqueued: \*\['green'\]"):
        assert_enqueued(steep, "green", 5)
    with pytest.raises(AssertionError, match="got 2"):
        assert_enqueued(steep)
    with pytest.raises(AssertionError, match="got 1"):
        assert_not_enqueued(steep, "green")


def test_clients_are_nobody_the_user_or_a_key(api_client, user) -> None:
    path = "/api/api-keys"

    assert_problem(api_client().get(path), 401)
    assert api_client(user).get(path).status_code == 200
    assert_problem(api_client(user, scopes=()).post(path, {"name": "another"}), 403)


def test_bodies_are_json(api_client, user) -> None:
    client = api_client(user)

    assert client.post("/api/api-keys", {"name": "ci"}).status_code == 201
    assert_problem(client.post("/api/api-keys"), 422, pointer="/body/name")
    assert_problem(client.post("/api/api-keys", "x", content_type="text/plain"), 415)

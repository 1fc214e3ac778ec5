from __future__ import annotations

import pytest

from svc_infra_django.jobs.models import Job, Schedule
from svc_infra_django.jobs.worker import drain
from tests.jobs import work

pytestmark = pytest.mark.django_db


def test_a_task_names_what_nobody_is_shown() -> None:
    result = work.pay_out.enqueue(
        "DE00-private", 5, to={"name": "Ada", "iban": "private", "lines": [{"note": "private"}]}
    )
    drain()
    job = Job.objects.get(pk=result.id)

    assert job.shown_arguments() == {
        "args": ["[redacted]", 5],
        "kwargs": {"to": {"name": "Ada", "iban": "[redacted]", "lines": [{"note": "[redacted]"}]}},
    }
    assert job.shown_result() == {"iban": "[redacted]", "amount": 5}
    assert job.args["args"] == ["DE00-private", 5]  # what is kept is what was given


def test_all_that_stand_under_one_name_are_hidden() -> None:
    job = Job(task="tests.jobs.work.send_codes", args={"args": ["Ada", "private", "private"], "kwargs": {}})

    assert job.shown_arguments()["args"] == ["Ada", "[redacted]", "[redacted]"]


def test_a_task_may_hide_all() -> None:
    result = work.hush.enqueue("private", kind="private")
    drain()
    job = Job.objects.get(pk=result.id)

    assert "private" not in str(job.shown_arguments()) + str(job.shown_result())
    assert job.shown_arguments()["kwargs"] == {"kind": "[redacted]"}


def test_of_a_task_that_is_gone_nothing_is_shown() -> None:
    job = Job(
        task="no.such.task", args={"args": ["private"], "kwargs": {"iban": "private"}}, result=["private"]
    )

    assert "private" not in str(job.shown_arguments()) + str(job.shown_result())


def test_the_arguments_of_a_schedule_are_hidden_likewise() -> None:
    row = Schedule(task="tests.jobs.work.pay_out", args={"kwargs": {"iban": "private", "amount": 1}})

    assert row.shown_arguments() == {"args": [], "kwargs": {"iban": "[redacted]", "amount": 1}}

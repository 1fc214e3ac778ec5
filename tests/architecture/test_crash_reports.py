"""What Django mails to the operators when a request crashes shows no credential, wherever it crashed."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from django.http import HttpRequest
from django.test import RequestFactory
from django.views.debug import ExceptionReporter

from svc_infra_django.accounts import issue_tokens
from svc_infra_django.api.authentication import identified
from svc_infra_django.apikeys import issue_key

pytestmark = pytest.mark.django_db


def report_of(request: HttpRequest) -> str:
    """The report of what happened when the request's caller was looked for."""
    try:
        identified(request)
    except RuntimeError:
        reporter = ExceptionReporter(request, *sys.exc_info())
        return reporter.get_traceback_text() + reporter.get_traceback_html()
    raise AssertionError("It did not crash.")


def broken(*_: Any, **__: Any) -> Any:
    raise RuntimeError("broken")


@pytest.mark.parametrize(
    "where", ["memory.Memory.recall", "lookups.PreparedLookup.get", "accounts.jwt.KeyRing.decode"]
)
def test_a_crash_shows_no_token(user: Any, rf: RequestFactory, monkeypatch: Any, where: str) -> None:
    token = issue_tokens(user, amr=("pwd",)).access_token
    monkeypatch.setattr(f"svc_infra_django.{where}", broken)

    report = report_of(rf.get("/", headers={"Authorization": f"Bearer {token}"}))

    assert "broken" in report
    assert token.rpartition(".")[2] not in report


@pytest.mark.parametrize(
    "where", ["memory.Memory.recall", "lookups.PreparedLookup.get", "apikeys.services.verifying.parse_key"]
)
def test_a_crash_shows_no_key(user: Any, rf: RequestFactory, monkeypatch: Any, where: str) -> None:
    key = issue_key(owner=user, name="robot")[1]
    monkeypatch.setattr(f"svc_infra_django.{where}", broken)

    report = report_of(rf.get("/", headers={"X-API-Key": key}))

    assert "broken" in report
    assert key[-20:] not in report

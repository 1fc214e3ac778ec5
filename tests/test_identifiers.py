from __future__ import annotations

from datetime import UTC, datetime, timedelta

from svc_infra_django.identifiers import uuid7, uuid7_at


def test_what_is_made_now_sorts_between_a_second_ago_and_a_second_from_now() -> None:
    now = datetime.now(UTC)

    assert uuid7_at(now - timedelta(seconds=1)) < uuid7() < uuid7_at(now + timedelta(seconds=1))


def test_the_bound_is_itself_of_version_seven() -> None:
    assert uuid7_at(datetime(2026, 6, 1, tzinfo=UTC)).version == 7
    assert uuid7_at(datetime(1800, 1, 1, tzinfo=UTC)) < uuid7_at(datetime(2026, 6, 1, tzinfo=UTC))

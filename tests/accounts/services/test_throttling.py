from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from svc_infra_django.accounts.errors import TooManyAttempts
from svc_infra_django.accounts.models import Throttle
from svc_infra_django.accounts.services.throttling import forget, give_back, take_slot

pytestmark = pytest.mark.django_db


def taken(now: datetime, *, limit: int = 3, subject: str = "ada") -> bool:
    try:
        take_slot("login", subject, limit=limit, seconds=60, now=now)
    except TooManyAttempts:
        return False
    return True


def test_a_window_has_as_many_slots_as_the_limit() -> None:
    now = timezone.now()

    assert [taken(now) for _ in range(5)] == [True, True, True, False, False]
    assert taken(now, subject="another")


def test_the_next_window_begins_when_the_first_is_over() -> None:
    now = timezone.now()
    for _ in range(3):
        taken(now)

    assert not taken(now + timedelta(seconds=59))
    assert [taken(now + timedelta(seconds=60)) for _ in range(4)] == [True, True, True, False]


def test_clocks_that_were_read_in_another_order_count_all_the_same() -> None:
    now = timezone.now()
    moments = [now + timedelta(milliseconds=shift) for shift in (5, 0, 9, 1, 7, 3)]

    assert [taken(moment) for moment in moments].count(True) == 3


def test_the_refusal_says_how_long_to_wait() -> None:
    now = timezone.now()
    taken(now, limit=1)
    with pytest.raises(TooManyAttempts) as refusal:
        take_slot("login", "ada", limit=1, seconds=60, now=now + timedelta(seconds=20))

    assert refusal.value.headers["Retry-After"] == "40"


def test_a_slot_can_be_given_back_and_never_more_than_were_taken() -> None:
    now = timezone.now()
    taken(now)
    for _ in range(5):
        give_back("login", "ada")

    assert Throttle.objects.get().count == 0
    assert [taken(now) for _ in range(4)] == [True, True, True, False]
    forget("login", "ada")
    assert taken(now)


def test_scopes_are_counted_apart() -> None:
    now = timezone.now()
    for _ in range(3):
        taken(now)
    take_slot("client", "ada", limit=1, seconds=60, now=now)


def test_a_slot_costs_one_query_once_the_row_is_there(django_assert_num_queries: Any) -> None:
    taken(timezone.now())

    with django_assert_num_queries(1):
        taken(timezone.now())

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from svc_infra_django.api import PageQuery, paginated
from svc_infra_django.api.pagination import BadCursor, NoKey

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.api.apis")]

ORDERS = [
    ("-date_joined", "-id"),
    ("date_joined", "id"),
    ("-date_joined", "id"),
    ("first_name", "-date_joined", "username"),
    ("-first_name",),
    ("id",),
    ("-is_staff", "first_name", "-pk"),
]


def walked(queryset: Any, *, limit: int, order: Any) -> list[Any]:
    rows: list[Any] = []
    cursor = None
    while True:
        page = paginated(queryset, PageQuery(limit=limit, cursor=cursor), order=order)
        assert len(page["items"]) <= limit
        rows += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return rows


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from(["", "a", "é", "z"]), st.booleans()), max_size=12
    ),
    limit=st.integers(1, 5),
    order=st.sampled_from(ORDERS),
)
def test_walking_the_pages_gives_every_row_once_in_order(rows: Any, limit: int, order: Any, db: None) -> None:
    User = get_user_model()
    User.objects.all().delete()
    born = timezone.now()
    User.objects.bulk_create(
        User(
            username=f"user{number}",
            first_name=name,
            is_staff=staff,
            date_joined=born + timedelta(microseconds=micros),
        )
        for number, (micros, name, staff) in enumerate(rows)
    )
    complete = order if {"id", "pk"} & {key.lstrip("-") for key in order} else (*order, *_tie(order))

    assert walked(User.objects.all(), limit=limit, order=order) == list(User.objects.order_by(*complete))


def _tie(order: tuple[str, ...]) -> tuple[str, ...]:
    return ("-pk",) if order[-1].startswith("-") else ("pk",)


def test_rows_that_come_and_go_disturb_no_others() -> None:
    Group.objects.bulk_create(Group(name=f"g{number:02}") for number in range(0, 20, 2))
    first = paginated(Group.objects.all(), PageQuery(limit=5), order=("name",))

    Group.objects.filter(name__in=["g00", "g08"]).delete()
    Group.objects.create(name="g01")
    second = paginated(Group.objects.all(), PageQuery(limit=50, cursor=first["next_cursor"]), order=("name",))

    assert [each.name for each in second["items"]] == ["g10", "g12", "g14", "g16", "g18"]


@pytest.mark.parametrize("rows", [3, 50])
@pytest.mark.parametrize("path", ["/things/groups", "/things/agroups"])
def test_a_page_is_one_query_however_many_rows(
    client: Any, rows: int, path: str, django_assert_num_queries: Any
) -> None:
    Group.objects.bulk_create(Group(name=f"g{number:02}") for number in range(rows))

    with django_assert_num_queries(1) as captured:
        body = client.get(f"{path}?limit=2").json()

    assert len(body["items"]) == 2
    assert "COUNT" not in captured.captured_queries[0]["sql"]
    assert "OFFSET" not in captured.captured_queries[0]["sql"]
    with django_assert_num_queries(1):
        assert len(client.get(f"{path}?limit=1&cursor={body['next_cursor']}").json()["items"]) == 1


@pytest.mark.postgresql
def test_rows_are_compared_as_rows_where_all_go_one_way(django_assert_num_queries: Any) -> None:
    page = paginated(_users(3), PageQuery(limit=1), order=("-date_joined", "-id"))

    with django_assert_num_queries(1) as captured:
        paginated(
            get_user_model().objects.all(),
            PageQuery(cursor=page["next_cursor"]),
            order=("-date_joined", "-id"),
        )

    sql = captured.captured_queries[0]["sql"].replace('"auth_user".', "")
    assert '("date_joined", "id") < (' in sql


def _users(more: int) -> Any:
    User = get_user_model()
    start = User.objects.count()
    User.objects.bulk_create(User(username=f"u{start + number}") for number in range(more))
    return User.objects.all()


def test_the_last_page_has_no_next_cursor() -> None:
    _users(2)

    assert paginated(_users(0), PageQuery(limit=2), order=("id",))["next_cursor"] is None


@pytest.mark.parametrize("cursor", ["", "x", "!!!", "AAAA", "é", "WyJ4Il0", "a" * 4096])
def test_a_cursor_that_was_made_up_is_refused(cursor: str) -> None:
    with pytest.raises(BadCursor):
        paginated(_users(0), PageQuery(cursor=cursor), order=("id",))


@given(st.text(max_size=40))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_text_breaks_the_reader_of_cursors(db: None, text: str) -> None:
    with pytest.raises(BadCursor):
        paginated(_users(0), PageQuery(cursor=text), order=("id",))


def test_a_cursor_fits_its_own_list_only() -> None:
    cursor = paginated(_users(3), PageQuery(limit=1), order=("id",))["next_cursor"]
    Group.objects.create(name="g")

    with pytest.raises(BadCursor):
        paginated(_users(0), PageQuery(cursor=cursor), order=("-id",))
    with pytest.raises(BadCursor):
        paginated(Group.objects.all(), PageQuery(cursor=cursor), order=("id",))
    with pytest.raises(BadCursor):
        paginated(_users(0), PageQuery(cursor=cursor[:-2] + "AA"), order=("id",))


def test_a_bad_cursor_is_a_422_that_points_at_it(client: Any) -> None:
    response = client.get("/things/groups?cursor=nonsense")

    assert response.status_code == 422
    assert [error["pointer"] for error in response.json()["errors"]] == ["/query/cursor"]


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "limit=1e3", "cursor=" + "a" * 5000])
def test_limits_are_kept(client: Any, query: str) -> None:
    assert client.get(f"/things/groups?{query}").status_code == 422


def test_a_column_with_nulls_cannot_be_paged() -> None:
    _users(3)

    with pytest.raises(NoKey):
        paginated(get_user_model().objects.all(), PageQuery(limit=1), order=("last_login",))

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from django.contrib.auth.models import User
from django.db import DatabaseError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from svc_infra_django.lookups import PreparedLookup


def test_a_prepared_lookup_gives_what_the_queryset_gives(user, django_assert_num_queries) -> None:
    lookup = PreparedLookup(User.objects.all)

    for _ in range(2):
        with django_assert_num_queries(1):
            (row,) = lookup.get(user.pk, using="default")
            made = row.made()
            assert (row.pk, row.username, row.is_active) == (user.pk, "ada", True)
            assert row.get_full_name() == user.get_full_name()
            assert made == user
    for field in User._meta.concrete_fields:
        assert getattr(row, field.attname) == getattr(made, field.attname) == getattr(user, field.attname)
    assert (made._state.db, made._state.adding) == ("default", False)
    assert lookup.get(user.pk + 1, using="default") is None


def test_a_prepared_lookup_finds_by_any_of_several_keys_and_reads_what_belongs_to_the_row(
    user, django_assert_num_queries
) -> None:
    from svc_infra_django.apikeys import issue_key
    from svc_infra_django.apikeys.models import ApiKey

    key, _ = issue_key(owner=user, name="robot", scopes=[])
    lookup = PreparedLookup(lambda: ApiKey.objects.select_related("owner"), by="digest")

    for keys in ([bytes(32), bytes(key.digest)], [bytes(key.digest), b"1" * 32], [bytes(key.digest)]):
        with django_assert_num_queries(1):
            row, owner = lookup.get(*keys, using="default")
            assert (row.pk, row.name, row.scopes, owner.email) == (key.pk, "robot", [], user.email)
            assert (row.made(), owner.made()) == (key, user)
    assert lookup.get(bytes(32), using="default") is None


def test_a_fingerprint_is_the_same_until_a_column_changes_of_the_row_or_of_what_belongs_to_it(user) -> None:
    from svc_infra_django.apikeys import issue_key
    from svc_infra_django.apikeys.models import ApiKey

    key, _ = issue_key(owner=user, name="robot", scopes=[])
    lookup = PreparedLookup(lambda: ApiKey.objects.select_related("owner"))

    def fingerprint() -> bytes:
        return lookup.get(key.pk, using="default")[0].fingerprint

    found = [fingerprint()]
    for manager, change in (
        (User.objects, {"is_active": False}),
        (User.objects, {"is_active": True, "last_name": ""}),
        (ApiKey.objects, {"revoked_at": timezone.now()}),
        (ApiKey.objects, {"revoked_at": None, "scopes": None}),
        (ApiKey.objects, {"digest": bytes(32)}),
    ):
        manager.update(**change)
        found.append(fingerprint())
        assert found[-1] == fingerprint()
    assert found[2] == found[0]
    assert len(set(found)) == len(found) - 1


def test_what_cannot_be_written_down_is_never_taken_for_the_same(user) -> None:
    lookup = PreparedLookup(User.objects.all)
    (row,) = lookup.get(user.pk, using="default")
    row._values = (*row._values, object())

    assert row.fingerprint != row.fingerprint


def test_a_prepared_lookup_gives_the_same_whether_anybody_listens_or_not(user, make_user) -> None:
    named = make_user("100%s of them")
    lookup = PreparedLookup(lambda: User.objects.extra(where=["length('%%') = 1"]), by="username")
    lookup.get("nobody", using="default")  # composed now, which asks the database nothing

    for who in (user, named):
        with CaptureQueriesContext(connection) as heard:
            (aloud,) = lookup.get(who.username, using="default")
        (quietly,) = lookup.get(who.username, using="default")
        assert len(heard) == 1
        for field in User._meta.concrete_fields:
            assert getattr(quietly, field.attname) == getattr(aloud, field.attname)


@pytest.mark.django_db(transaction=True)
def test_a_prepared_lookup_fails_as_every_query_of_django_does(user, make_user) -> None:
    lookup = PreparedLookup(User.objects.all)
    lookup.get(user.pk, using="default")
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE auth_user RENAME TO elsewhere")
    try:
        with pytest.raises(DatabaseError):
            lookup.get(user.pk, using="default")
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE elsewhere RENAME TO auth_user")
    connection.close()
    assert lookup.get(user.pk, using="default")[0].username == user.username
    with transaction.atomic():
        connection.needs_rollback = True
        with pytest.raises(transaction.TransactionManagementError):
            lookup.get(user.pk, using="default")
        connection.needs_rollback = False


@pytest.mark.django_db(transaction=True)
def test_a_prepared_lookup_serves_every_thread(make_user) -> None:
    user = make_user("ada")
    lookup = PreparedLookup(User.objects.all)
    expected = User.objects.get(pk=user.pk).date_joined

    def asked(_: int) -> object:
        try:
            (row,) = lookup.get(user.pk, using="default")
            return row.date_joined
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(asked, range(12))) == {expected}


def test_a_percent_sign_before_a_placeholder_stays_what_it_is(user) -> None:
    lookup = PreparedLookup(lambda: User.objects.extra(where=["'a%%s' || %s = 'a%%sb'"], params=["b"]))

    for _ in range(2):
        assert lookup.get(user.pk, using="default")[0].username == user.username


def test_columns_are_read_as_they_would_be_after_the_connection_is_gone(make_user) -> None:
    user = make_user("ada", last_name="100%")
    (row,) = PreparedLookup(User.objects.all).get(user.pk, using="default")

    with CaptureQueriesContext(connection) as heard:
        row._connection = None
        assert (row.date_joined, row.last_login, row.is_staff) == (user.date_joined, None, False)
    assert len(heard) == 0


@pytest.mark.postgresql
class TestPostgreSQL:
    """What the server plans once for each connection."""

    pytestmark = pytest.mark.django_db(transaction=True)

    def prepared(self) -> list[str]:
        with connection.cursor() as cursor:
            cursor.execute("SELECT statement FROM pg_prepared_statements WHERE name LIKE 'svc_%'")
            return [text for (text,) in cursor.fetchall()]

    def test_a_statement_is_planned_once_for_each_connection(self, make_user) -> None:
        user = make_user("ada")
        lookup = PreparedLookup(User.objects.all)

        for _ in range(2):
            for _ in range(3):
                assert lookup.get(user.pk, using="default")[0].username == "ada"
                assert lookup.get(user.pk + 1, using="default") is None
            assert len(self.prepared()) == 1
            connection.close()

    def test_a_transaction_is_asked_in_the_ordinary_way_and_sees_itself(self, make_user) -> None:
        user = make_user("ada")
        lookup = PreparedLookup(User.objects.all)
        lookup.get(user.pk, using="default")

        with transaction.atomic():
            User.objects.update(last_name="Byron")
            assert lookup.get(user.pk, using="default")[0].last_name == "Byron"
            transaction.set_rollback(True)
        assert lookup.get(user.pk, using="default")[0].last_name == ""

    def test_a_column_that_changes_its_type_is_read_with_the_new_one(self, make_user) -> None:
        user = make_user("ada")
        lookup = PreparedLookup(User.objects.all)
        lookup.get(user.pk, using="default")

        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE auth_user ALTER last_name TYPE text")
        try:
            for _ in range(3):
                assert lookup.get(user.pk, using="default")[0].last_name == ""
            assert len(self.prepared()) == 1
        finally:
            with connection.cursor() as cursor:
                cursor.execute("ALTER TABLE auth_user ALTER last_name TYPE varchar(150)")

    def test_where_statements_keep_getting_lost_it_goes_on_without_them(self, make_user, caplog) -> None:
        user = make_user("ada")
        lookup = PreparedLookup(User.objects.all)

        for _ in range(5):
            assert lookup.get(user.pk, using="default")[0].username == "ada"
            with connection.cursor() as cursor:
                cursor.execute("DEALLOCATE ALL")  # as a pooler does that gives a connection to another
        assert lookup.get(user.pk, using="default")[0].username == "ada"

        assert self.prepared() == []
        assert [record.message for record in caplog.records if "prepared statements" in record.message] != []

    def test_where_the_project_tells_of_a_pooler_nothing_is_prepared(self, make_user, monkeypatch) -> None:
        user = make_user("ada")
        monkeypatch.setitem(connection.settings_dict, "DISABLE_SERVER_SIDE_CURSORS", True)

        assert PreparedLookup(User.objects.all).get(user.pk, using="default")[0].username == "ada"
        assert self.prepared() == []

    def test_a_connection_that_broke_is_an_error_as_ever_and_the_next_one_serves(self, make_user) -> None:
        user = make_user("ada")
        lookup = PreparedLookup(User.objects.all)
        lookup.get(user.pk, using="default")

        with connection.cursor() as cursor, suppress(DatabaseError):
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        with pytest.raises(DatabaseError):
            lookup.get(user.pk, using="default")
        connection.close()
        assert lookup.get(user.pk, using="default")[0].username == "ada"

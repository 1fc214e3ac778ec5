from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.db import DatabaseError, connection, models, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from svc_infra_django import rows
from svc_infra_django.identifiers import uuid7
from svc_infra_django.principals import Principal
from svc_infra_django.rows import PreparedLookup


class Parcel(models.Model):
    id = rows.id_field()
    owner = rows.owner_field(on_delete=models.CASCADE)
    tenant = rows.tenant_field()

    objects = rows.OwnedQuerySet.as_manager()

    class Meta:
        app_label = "tests_rows"
        managed = False

    def __str__(self) -> str:
        return str(self.pk)


def sql(principal: Principal) -> str:
    return str(Parcel.objects.all().owned_by(principal).query)


def test_owned_rows_are_those_of_the_user_in_the_tenant() -> None:
    user = SimpleNamespace(pk=7)

    query = sql(Principal(user=user, method="jwt", tenant="acme"))

    assert '"owner_id" = 7' in query
    assert '"tenant" = acme' in query


def test_without_a_tenant_the_rows_of_tenants_are_not_seen() -> None:
    assert '"tenant" = )' in sql(Principal(user=SimpleNamespace(pk=7), method="jwt"))


def test_nobody_owns_nothing_and_not_what_belongs_to_the_project() -> None:
    queryset = Parcel.objects.all().owned_by(Principal(user=AnonymousUser(), method="session"))

    assert queryset.query.is_empty()


def test_ids_are_made_here_and_sort_by_birth() -> None:
    ids = [Parcel().pk for _ in range(1000)]

    assert ids == sorted(ids)
    assert len(set(ids)) == 1000
    assert {identifier.version for identifier in ids} == {7}


def test_columns_are_the_same_everywhere() -> None:
    owner, tenant = Parcel._meta.get_field("owner"), Parcel._meta.get_field("tenant")

    assert (owner.null, owner.db_index, owner.remote_field.hidden) == (True, True, True)
    assert (tenant.blank, tenant.null, tenant.db_index, tenant.max_length) == (True, False, True, 128)


@pytest.mark.parametrize("processes", [8])
def test_processes_that_fork_make_different_ids(processes: int) -> None:
    import os

    uuid7()
    pipes = []
    for _ in range(processes):
        read, write = os.pipe()
        if os.fork() == 0:
            os.write(write, b"".join(uuid7().bytes for _ in range(100)))
            os._exit(0)
        os.close(write)
        pipes.append(read)

    made = set()
    for read in pipes:
        data = os.read(read, 1600)
        made |= {data[at : at + 16] for at in range(0, 1600, 16)}
        os.close(read)
    for _ in pipes:
        os.wait()
    assert len(made) == processes * 100


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

from __future__ import annotations

from types import SimpleNamespace

import pytest
from django.contrib.auth.models import AnonymousUser, Group
from django.db import models, transaction

from svc_infra_django import rows
from svc_infra_django.errors import NotFoundError
from svc_infra_django.identifiers import uuid7
from svc_infra_django.principals import Principal


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


@pytest.mark.django_db
def test_a_row_that_is_gone_cannot_be_locked() -> None:
    group = Group.objects.create(name="staff")
    with transaction.atomic():
        assert rows.locked(Group.objects.all(), group.pk) == group

        Group.objects.all().delete()
        with pytest.raises(NotFoundError, match=f"Group {group.pk} not found"):
            rows.locked(Group.objects.all(), group.pk)

"""One initial migration an app, with a name and a way back."""

from __future__ import annotations

from io import StringIO

import pytest
from django.apps import apps
from django.core.management import call_command
from django.db import connection
from django.db.migrations.loader import MigrationLoader

OURS = sorted(
    config.label
    for config in apps.get_app_configs()
    if config.name.startswith("svc_infra_django.") and list(config.get_models())
)


@pytest.mark.parametrize("label", OURS)
def test_there_is_one_initial_migration(label: str) -> None:
    names = [name for app, name in MigrationLoader(None).disk_migrations if app == label]

    assert names == ["0001_initial"]


@pytest.mark.parametrize("label", OURS)
def test_every_operation_has_a_way_back(label: str) -> None:
    migration = MigrationLoader(None).disk_migrations[label, "0001_initial"]

    assert all(operation.reversible for operation in migration.operations)


@pytest.mark.django_db
def test_the_models_are_what_the_migrations_make() -> None:
    call_command("makemigrations", check=True, dry_run=True, stdout=StringIO())


@pytest.mark.django_db(transaction=True)
def test_the_migrations_go_back_and_forth() -> None:
    before = set(connection.introspection.table_names())
    try:
        for label in OURS:
            call_command("migrate", label, "zero", verbosity=0)
        left = {table for table in connection.introspection.table_names() if table.startswith("svc_")}
    finally:
        call_command("migrate", verbosity=0)

    assert left == set()
    assert set(connection.introspection.table_names()) == before

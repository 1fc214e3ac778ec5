"""Make the roles that the settings declare what the settings say."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ....errors import SvcInfraError
from ...services.defining import sync_declared_roles


class Command(BaseCommand):
    help = __doc__

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            synced = sync_declared_roles()
        except SvcInfraError as error:
            raise CommandError(error.message) from error
        done = {
            "made": synced.made,
            "changed": synced.changed,
            "emptied": synced.emptied,
            "mirrored in a group": synced.mirrored,
        }
        for what, names in done.items():
            for name in names:
                self.stdout.write(f"{what}: {name}")
        if synced.refused:
            listed = ", ".join(map(repr, synced.refused))
            raise CommandError(f"Made by hand and granted already: {listed}. Rename or withdraw them first.")
        if not any(done.values()):
            self.stdout.write("Nothing to do: the roles are as declared.")

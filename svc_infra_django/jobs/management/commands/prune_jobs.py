from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from ...services.operating import prune


class Command(BaseCommand):
    help = "Delete finished jobs that have been kept long enough."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--limit", type=int, help="Delete at most so many.")

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(f"{prune(limit=options['limit'])} jobs deleted")

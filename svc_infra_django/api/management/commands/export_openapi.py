"""Write the OpenAPI document of an API, for client generators and for a diff in review."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.module_loading import import_string
from ninja import NinjaAPI
from ninja.responses import NinjaJSONEncoder


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--api", help="Dotted path of the NinjaAPI; default: `api` of the root URLconf.")
        parser.add_argument("--output", type=Path, help="The file to write; default: standard output.")
        parser.add_argument("--indent", type=int, default=2)

    def handle(self, *args: Any, api: str | None, output: Path | None, indent: int, **options: Any) -> None:
        path = api or f"{settings.ROOT_URLCONF}.api"
        try:
            found = import_string(path)
        except ImportError as error:
            raise CommandError(f"{path} cannot be imported; name the API with --api. ({error})") from None
        if not isinstance(found, NinjaAPI):
            raise CommandError(f"{path} is not a NinjaAPI.")
        document = json.dumps(found.get_openapi_schema(), indent=indent, cls=NinjaJSONEncoder)
        if output is None:
            self.stdout.write(document)
        else:
            output.write_text(f"{document}\n")

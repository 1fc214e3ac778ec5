"""Write what this project's webhooks look like as an OpenAPI 3.1 document, for those who receive them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
from django.core.management.base import BaseCommand, CommandParser

from ...services.declaring import openapi_document


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--title", default="Webhooks")
        parser.add_argument("--api-version", default="1", help="What the document says of itself.")
        parser.add_argument("--output", type=Path, help="The file to write; default: standard output.")

    def handle(self, *args: Any, title: str, api_version: str, output: Path | None, **options: Any) -> None:
        found = openapi_document(title=title, version=api_version)
        document = orjson.dumps(found, option=orjson.OPT_INDENT_2).decode()
        if output is None:
            self.stdout.write(document)
        else:
            output.write_text(f"{document}\n")

"""Try a table of who may do what; fails with every row that does not hold, and why."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from pydantic import ValidationError

from ....errors import SvcInfraError
from ...services.rehearsing import Policy, rehearse


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("files", nargs="+", type=Path, metavar="file.toml")

    def handle(self, *args: Any, files: list[Path], **options: Any) -> None:
        failed = []
        for file in files:
            policy = _read(file)
            try:
                wrong = rehearse(policy)
            except SvcInfraError as error:
                raise CommandError(f"{file}: {error.message}") from error
            failed += [f"{file}: {line}" for line in wrong]
            self.stdout.write(f"{file}: {len(policy.cases) - len(wrong)} of {len(policy.cases)} cases hold.")
        if failed:
            raise CommandError("\n".join(failed))


def _read(file: Path) -> Policy:
    try:
        return Policy.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CommandError(f"{file}: {error}") from error
    except ValidationError as error:
        lines = [
            f"{file}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}"
            for problem in error.errors(include_input=False, include_url=False)
        ]
        raise CommandError("\n".join(lines)) from error

"""Who can carry jobs to an engine. Without Django, so that a Celery app may be made before it is set up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias
from uuid import UUID

DATABASE = "database"

Publish: TypeAlias = Callable[[str, Sequence[UUID]], None]
"""Takes a queue and ids of its jobs to whoever runs them; raises if it cannot."""

publishers: dict[str, Publish] = {}
"""By engine: how the jobs are carried whose queue `engines` in the settings gives to it."""

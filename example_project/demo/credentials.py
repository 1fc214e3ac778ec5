"""Who lives in the demo. The password is public, so `seed_demo` works only locally."""

from __future__ import annotations

from dataclasses import dataclass

PASSWORD = "look-around-freely"  # noqa: S105  printed on every start of the demo


@dataclass(frozen=True, slots=True)
class Resident:
    name: str
    is_superuser: bool = False
    roles: tuple[str, ...] = ()

    @property
    def email(self) -> str:
        return f"{self.name}@example.com"


ADMIN = Resident("admin", is_superuser=True)
CLERK = Resident("clerk", roles=("order clerk",))
VISITOR = Resident("visitor")
EVERYBODY = (ADMIN, CLERK, VISITOR)

"""A password hash that counts how often it is made: what Django spends on a password, without the time."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib.auth.hashers import PBKDF2PasswordHasher


class Counted(PBKDF2PasswordHasher):
    algorithm = "counted"
    iterations = 2
    calls: ClassVar[int] = 0

    def encode(self, *args: Any, **kwargs: Any) -> str:
        Counted.calls += 1
        return super().encode(*args, **kwargs)

"""A password hash that takes long enough to be measured."""

from __future__ import annotations

from django.contrib.auth.hashers import PBKDF2PasswordHasher


class SlowEnough(PBKDF2PasswordHasher):
    algorithm = "slow_enough"
    iterations = 20_000

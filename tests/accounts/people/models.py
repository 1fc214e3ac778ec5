"""User models as projects have them: neither is the stock one."""

from __future__ import annotations

from typing import Any, ClassVar
from uuid import uuid4

from django.contrib.auth.models import (
    AbstractBaseUser,
    AbstractUser,
    BaseUserManager,
    Group,
    PermissionsMixin,
)
from django.db import models


class PersonManager(BaseUserManager["Person"]):
    def create_user(self, email: str, password: str, **fields: Any) -> Person:
        person = self.model(email=email, **fields)
        person.set_password(password)
        person.save()
        return person


class Person(AbstractBaseUser, PermissionsMixin):
    """The address is the name, there is no `username`, the key is a UUID, groups know them as people, and
    nobody keeps when they logged in."""

    id = models.UUIDField(primary_key=True, default=uuid4)
    email = models.EmailField(unique=True)
    phone = models.CharField(max_length=16, null=True, blank=True, unique=True)
    is_active = models.BooleanField(default=True)
    is_staff = models.BooleanField(default=False)
    groups = models.ManyToManyField(Group, related_name="people", blank=True)
    last_login = None

    USERNAME_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    objects = PersonManager()

    def __str__(self) -> str:
        return self.email


class Member(AbstractUser):
    """The stock user, who logs in by the address."""

    email = models.EmailField(unique=True)
    born_on = models.DateField(null=True)
    wants_news = models.BooleanField(default=False)
    seats = models.PositiveSmallIntegerField(default=1)

    USERNAME_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = ["username"]

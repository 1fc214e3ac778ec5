"""A key and its owner are read by one statement that is composed once."""

from __future__ import annotations

from collections.abc import Collection

from django.db import router

from ...lookups import PreparedLookup, Row
from ..models import ApiKey

_keys = PreparedLookup(lambda: ApiKey.objects.select_related("owner"), by="digest")


def read_key(digests: Collection[bytes]) -> tuple[Row, ...] | None:
    """What was read of the key with one of these digests, and of its owner. One query."""
    # Where the rows are written: a copy that lags behind would be believed for longer than we promise.
    return _keys.get(*digests, using=router.db_for_write(ApiKey))

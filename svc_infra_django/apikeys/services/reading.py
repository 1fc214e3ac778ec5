"""A key and its owner are read by one statement that is composed once."""

from __future__ import annotations

from collections.abc import Collection

from django.db import router

from ...rows import PreparedLookup, Row
from ..models import ApiKey

_keys = PreparedLookup(lambda: ApiKey.objects.select_related("owner"), by="digest")


def read_key(digests: Collection[bytes]) -> tuple[ApiKey, Row] | None:
    """The key with one of these digests, and what was read of its owner. One query."""
    # Where the rows are written: a copy that lags behind would be believed for longer than we promise.
    found = _keys.get(*digests, using=router.db_for_write(ApiKey))
    if found is None:
        return None
    key, owner = found
    return key.made(), owner

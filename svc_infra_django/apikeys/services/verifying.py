"""Keys are recognised: nonsense without a query, the rest with one."""

from __future__ import annotations

from datetime import datetime

from asgiref.sync import sync_to_async
from django.db.models import Q
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables

from ...observability.logging import get_logger
from ...sealing import derived_keys, key_id
from ..conf import settings
from ..errors import InvalidKey
from ..hashing import digest, parse_key
from ..models import ApiKey
from .issuing import PEPPER

logger = get_logger("svc_infra_django.apikeys")


@sensitive_variables("text", "digests")
def verify_key(text: str, *, now: datetime | None = None) -> ApiKey:
    """The usable key that `text` is, with its owner. Raises InvalidKey, whatever is wrong with it.

    A text of the wrong shape, checksum or environment is refused without a query. A digest under an
    older pepper is found in the same query and written anew under the present one.
    """
    now = now or timezone.now()
    parts = parse_key(text)
    if parts is None or parts.environment != settings.environment:
        raise InvalidKey()
    digests = {key_id(pepper): digest(text, pepper=pepper) for pepper in derived_keys(PEPPER)}
    key = next(
        iter(ApiKey.objects.select_related("owner").filter(digest__in=digests.values()).order_by()), None
    )
    if key is None:
        raise InvalidKey()
    if key.state(now=now) in ("revoked", "expired") or not key.owner.is_active:
        logger.info("api key refused", key_id=str(key.pk), state=key.state(now=now))
        raise InvalidKey()
    _note_use(key, digests, now=now)
    return key


averify_key = sync_to_async(verify_key)


@sensitive_variables("digests")
def _note_use(key: ApiKey, digests: dict[str, bytes], *, now: datetime) -> None:
    """Write when the key was used, at most once in the interval, and move it to the present pepper."""
    due = now - settings.last_used_interval
    if key.last_used_at is None or key.last_used_at <= due:
        # Of many calls at once the condition lets one write; the others have nothing to add.
        unnoted = Q(last_used_at=None) | Q(last_used_at__lte=due)
        ApiKey.objects.filter(unnoted, pk=key.pk).update(last_used_at=now)
        key.last_used_at = now
    present = next(iter(digests))
    if key.pepper_id != present:
        ApiKey.objects.filter(pk=key.pk, pepper_id=key.pepper_id).update(
            digest=digests[present], pepper_id=present
        )
        key.pepper_id = present

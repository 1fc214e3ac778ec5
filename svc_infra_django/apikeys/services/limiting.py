"""A key spends of its rate and its quota: one UPDATE that decides and counts, so that it is exact."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any, NoReturn, cast
from uuid import UUID

from django.db import router
from django.db.models import Case, F, Q, Value, When
from django.db.models.functions import Greatest

from ..errors import QuotaExceeded, RateExceeded
from ..limits import MICROSECONDS, Quota, Rate
from ..models import Allowance


def spend(key_id: UUID, *, rate: Rate | None, quota: Quota | None, now: datetime) -> None:
    """Count one use. Raises RateExceeded or QuotaExceeded, and then counts nothing.

    Of many at once, in any number of processes, the database lets exactly as many in as there are.
    """
    if rate is None and quota is None:
        return
    fits, spent = _terms(rate, quota, now=now)
    if Allowance.objects.filter(fits, pk=key_id).update(**spent):
        return
    # Not there yet for a key that was given a limit by the settings or a moment ago.
    Allowance.objects.bulk_create([Allowance(key_id=key_id)], ignore_conflicts=True)
    if not Allowance.objects.filter(fits, pk=key_id).update(**spent):
        allowance = Allowance.objects.using(router.db_for_write(Allowance)).get(pk=key_id)
        _refuse(allowance, rate, quota, now=now)


def _terms(rate: Rate | None, quota: Quota | None, *, now: datetime) -> tuple[Q, dict[str, Any]]:
    fits, spent = Q(), dict[str, Any]()
    if rate is not None:
        clock = _clock(now)
        fits &= Q(spent_until__lte=clock + rate.burst)
        spent["spent_until"] = Greatest(F("spent_until"), Value(clock)) + rate.interval
    if quota is not None:
        # "Before", not "other than": a machine whose clock is behind must not begin the month again.
        begins = quota.begins(now)
        fits &= Q(quota_since__lt=begins) | Q(quota_used__lt=quota.count)
        spent["quota_used"] = Case(When(quota_since__lt=begins, then=Value(1)), default=F("quota_used") + 1)
        spent["quota_since"] = Greatest(F("quota_since"), Value(begins))
    return fits, spent


def _refuse(allowance: Allowance, rate: Rate | None, quota: Quota | None, *, now: datetime) -> NoReturn:
    if rate is not None and (quota is None or allowance.quota_used < quota.count):
        wait = math.ceil((allowance.spent_until - rate.burst - _clock(now)) / MICROSECONDS)
        raise RateExceeded(retry_after=max(1, wait), limit=str(rate))
    spent = cast(Quota, quota)  # one of the two refused
    wait = math.ceil((spent.ends(max(now, allowance.quota_since)) - now).total_seconds())
    raise QuotaExceeded(retry_after=max(1, wait), limit=str(spent))


def _clock(now: datetime) -> int:
    return int(now.timestamp() * MICROSECONDS)

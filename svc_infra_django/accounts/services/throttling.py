"""Count attempts so that many at once count as many: a slot is taken before anything is looked at."""

from __future__ import annotations

from datetime import datetime, timedelta
from math import ceil
from typing import Any

from django.db.models import Case, F, Q, Value, When

from ..compat import addresses_of, folded, users_named
from ..errors import TooManyAttempts
from ..events import LOGIN_STOPPED, LoginStopped
from ..models import Throttle
from ..signing import subject_digest


def take_slot(scope: str, subject: str, *, limit: int, seconds: int, now: datetime) -> None:
    """Count one attempt of `subject`. Raises TooManyAttempts when `limit` were made in the window.

    One conditional UPDATE decides, so parallel attempts cannot pass the limit. The window starts with
    its first attempt and is over `seconds` later, whatever comes in between.
    """
    rows = Throttle.objects.filter(scope=scope, subject=subject_digest(subject))
    ends_at = now + timedelta(seconds=seconds)
    is_over = Q(ends_at__lte=now)
    step = {
        "count": Case(When(is_over, then=Value(1)), default=F("count") + 1),
        "started_at": Case(When(is_over, then=Value(now)), default=F("started_at")),
        "ends_at": Case(When(is_over, then=Value(ends_at)), default=F("ends_at")),
    }
    free = rows.filter(is_over | Q(count__lt=limit))
    if free.update(**step):
        return
    # A window that is running already: a caller whose clock was read earlier must not find it over.
    fresh = Throttle(scope=scope, subject=subject_digest(subject), started_at=now, ends_at=ends_at)
    Throttle.objects.bulk_create([fresh], ignore_conflicts=True)
    if free.update(**step):
        return
    until = rows.values_list("ends_at", flat=True).first() or now
    raise TooManyAttempts(retry_after=max(1, ceil((until - now).total_seconds())))


def hold(scope: str, subject: str) -> None:
    """Until the open transaction ends, let nobody else go on with a subject that was counted before."""
    list(Throttle.objects.select_for_update().filter(scope=scope, subject=subject_digest(subject)))


def take_attempt(
    scope: str, subject: str, *, limit: int, seconds: int, now: datetime, client_address: str = ""
) -> None:
    """As `take_slot`, for what somebody may be guessing at: that they were stopped is told."""
    try:
        take_slot(scope, subject, limit=limit, seconds=seconds, now=now)
    except TooManyAttempts:
        LOGIN_STOPPED.emit(
            LoginStopped(scope=scope, subject=subject_digest(subject), client_address=client_address)
        )
        raise


def counted_as(user: Any, typed: str) -> str:
    """Under what wrong passwords are counted: the account, by whichever of its addresses; or what was typed.

    The NUL is something that nobody can type, so no made-up address is counted as an account.
    """
    return f"\x00{user.pk}" if user is not None else folded(typed)


def subjects_of(text: str) -> list[str]:
    """The keyed names under which somebody may be counted: by address, username or client address."""
    named = users_named(text)
    known = [subject for user in named for subject in (str(user.pk), counted_as(user, ""))]
    known += [folded(each) for user in named for each in addresses_of(user)]
    return [subject_digest(subject) for subject in {text, folded(text), *known}]


def give_back(scope: str, subject: str) -> None:
    """The attempt was a good one: it does not count."""
    Throttle.objects.filter(scope=scope, subject=subject_digest(subject), count__gt=0).update(
        count=F("count") - 1
    )


def forget(scope: str, subject: str) -> None:
    """Start counting anew, after the subject has proved itself."""
    Throttle.objects.filter(scope=scope, subject=subject_digest(subject)).update(count=0)

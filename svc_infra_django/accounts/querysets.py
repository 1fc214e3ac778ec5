"""Questions about sessions, tokens, challenges and devices."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.models import F, Q

from ..principals import Principal

if TYPE_CHECKING:
    from .models import AuthSession, MFAChallenge, RecoveryCode, RefreshToken  # noqa: F401 - type parameters below


class AuthSessionQuerySet(models.QuerySet["AuthSession"]):
    def alive(self, *, now: datetime) -> AuthSessionQuerySet:
        """Sessions that were not ended and have not run out."""
        return self.filter(revoked_at=None, expires_at__gt=now, idle_expires_at__gt=now)

    def of_user(self, user: Any) -> AuthSessionQuerySet:
        """The user's sessions in every tenant."""
        return self.filter(owner_id=user.pk)

    def good(self, user: Any, states: Iterable[str], *, now: datetime) -> AuthSessionQuerySet:
        """The user's living sessions, of those begun in one of the password's `states`."""
        return self.of_user(user).alive(now=now).filter(password_state__in=states)

    def of_principal(self, principal: Principal) -> AuthSessionQuerySet:
        """The session that the principal came with, if it is one of these."""
        return self.filter(_came_with(principal))

    def like(self, session: AuthSession) -> AuthSessionQuerySet:
        """Earlier sessions of the same user from the same program at the same address."""
        return (
            self.filter(owner_id=session.owner_id, user_agent=session.user_agent)
            .filter(client_address=session.client_address)
            .exclude(pk=session.pk)
        )

    def others(self, principal: Principal) -> AuthSessionQuerySet:
        """The sessions of the principal's user but that one."""
        return self.of_user(principal.user).exclude(_came_with(principal))

    def revoke(self, *, now: datetime, reason: str) -> int:
        """End what is not ended yet; how many that were."""
        return self.filter(revoked_at=None).update(revoked_at=now, revoked_for=reason)

    def over(self, *, before: datetime) -> AuthSessionQuerySet:
        """Sessions that were ended, or ran out, before `before`."""
        # The idle end is never later than the absolute one.
        return self.filter(Q(revoked_at__lt=before) | Q(idle_expires_at__lt=before))


def _came_with(principal: Principal) -> Q:
    match principal.method:
        case "jwt":
            return Q(pk=principal.credential_id)
        case "session" if principal.credential_id:
            return Q(owner_id=principal.user.pk, browser_digest__startswith=principal.credential_id)
    return Q(pk__in=[])


class RefreshTokenQuerySet(models.QuerySet["RefreshToken"]):
    def use(self, digest: str, *, now: datetime) -> bool:
        """Take the token out of circulation; True for the one caller that did it."""
        return self.filter(digest=digest, used_at=None, expires_at__gt=now).update(used_at=now) == 1


class MFAChallengeQuerySet(models.QuerySet["MFAChallenge"]):
    def open(self, *, now: datetime) -> MFAChallengeQuerySet:
        return self.filter(used_at=None, expires_at__gt=now)

    def try_once(self, challenge: MFAChallenge, *, limit: int) -> bool:
        """Count one try before the code is looked at; False if there are none left."""
        rows = self.filter(pk=challenge.pk, used_at=None, tries__lt=limit)
        return rows.update(tries=F("tries") + 1) == 1

    def use(self, challenge: MFAChallenge, *, now: datetime) -> bool:
        """Finish the challenge; True for the one caller that did it."""
        return self.filter(pk=challenge.pk, used_at=None).update(used_at=now) == 1


class RecoveryCodeQuerySet(models.QuerySet["RecoveryCode"]):
    def unused(self, user: Any) -> RecoveryCodeQuerySet:
        return self.filter(owner_id=user.pk, used_at=None)

    def burn(self, user: Any, digest: str, *, now: datetime) -> bool:
        """Use up the code; True for the one caller that did it."""
        return self.unused(user).filter(digest=digest).update(used_at=now) == 1

"""What happens to accounts."""

from __future__ import annotations

from uuid import UUID

from pydantic import BaseModel

from ..events import EventType


class UserSignedUp(BaseModel):
    """Somebody made themselves an account; the address is not proven yet."""

    user_id: str


class EmailVerified(BaseModel):
    """A user proved that an address is theirs."""

    user_id: str


class EmailChangeRequested(BaseModel):
    """A user asked for another address; it has to be proven first."""

    user_id: str


class EmailChanged(BaseModel):
    """A user proved another address, which took the place of the old one."""

    user_id: str


class ProfileChanged(BaseModel):
    """A user changed something about themselves: the names of the fields."""

    user_id: str
    fields: list[str]


class UserLoggedIn(BaseModel):
    """A login was completed and a session begun."""

    user_id: str
    session_id: UUID
    amr: list[str]
    client_address: str


class AdminEntered(BaseModel):
    """A member of staff logged in to the admin."""

    user_id: str
    amr: list[str]
    client_address: str


class LoginFailed(BaseModel):
    """A password was wrong, or the account cannot log in. The account is named by a keyed digest."""

    account: str
    client_address: str


class ProofFailed(BaseModel):
    """A code was wrong, or the password of somebody who is logged in or proves their address."""

    user_id: str
    method: str
    """`otp` or `pwd` (RFC 8176)."""


class LoginStopped(BaseModel):
    """Too many attempts: an account or a client address has to wait. It is named by a keyed digest."""

    scope: str
    subject: str
    client_address: str


class SessionEnded(BaseModel):
    """A session was ended by its user or by staff."""

    user_id: str
    session_id: UUID


class SessionsEnded(BaseModel):
    """All sessions of a user were ended."""

    user_id: str
    count: int


class SessionReuseDetected(BaseModel):
    """A refresh token came a second time: it was copied. Its session is ended."""

    user_id: str
    session_id: UUID
    client_address: str


class PasswordChanged(BaseModel):
    """A user has a new password; all other sessions are over."""

    user_id: str
    by_reset: bool
    is_first: bool = False
    """Whether there was none before, because a provider made the account."""


class ProviderConnected(BaseModel):
    """A user can now log in by their account at a provider."""

    user_id: str
    provider: str


class ProviderDisconnected(BaseModel):
    """A user cannot log in by their account at a provider any more."""

    user_id: str
    provider: str


class MFAEnabled(BaseModel):
    """A user confirmed a device for their second factor."""

    user_id: str
    device: str


class MFADeviceRemoved(BaseModel):
    """A device for a user's second factor was removed; another one is left."""

    user_id: str
    device: str


class MFADisabled(BaseModel):
    """A user removed their second factor."""

    user_id: str


class RecoveryCodesReplaced(BaseModel):
    """A user made new recovery codes; the old ones are void."""

    user_id: str


class RecoveryCodeUsed(BaseModel):
    """A recovery code was used instead of a device."""

    user_id: str
    remaining: int


class SigningKeysRolled(BaseModel):
    """Another key signs access tokens. If the others were withdrawn, the tokens they signed are void."""

    kid: str
    withdrawn: bool


USER_SIGNED_UP = EventType("user.signed_up", UserSignedUp)
EMAIL_VERIFIED = EventType("user.email_verified", EmailVerified)
EMAIL_CHANGE_REQUESTED = EventType("user.email_change_requested", EmailChangeRequested)
EMAIL_CHANGED = EventType("user.email_changed", EmailChanged)
PROFILE_CHANGED = EventType("user.profile_changed", ProfileChanged)
USER_LOGGED_IN = EventType("user.logged_in", UserLoggedIn)
ADMIN_ENTERED = EventType("admin.entered", AdminEntered)
LOGIN_FAILED = EventType("login.failed", LoginFailed)
PROOF_FAILED = EventType("login.proof_failed", ProofFailed)
LOGIN_STOPPED = EventType("login.stopped", LoginStopped)
SESSION_ENDED = EventType("session.ended", SessionEnded)
SESSIONS_ENDED = EventType("session.all_ended", SessionsEnded)
SESSION_REUSE_DETECTED = EventType("session.reuse_detected", SessionReuseDetected)
PASSWORD_CHANGED = EventType("user.password_changed", PasswordChanged)
PROVIDER_CONNECTED = EventType("user.provider_connected", ProviderConnected)
PROVIDER_DISCONNECTED = EventType("user.provider_disconnected", ProviderDisconnected)
MFA_ENABLED = EventType("user.mfa_enabled", MFAEnabled)
MFA_DEVICE_REMOVED = EventType("user.mfa_device_removed", MFADeviceRemoved)
MFA_DISABLED = EventType("user.mfa_disabled", MFADisabled)
RECOVERY_CODES_REPLACED = EventType("user.recovery_codes_replaced", RecoveryCodesReplaced)
RECOVERY_CODE_USED = EventType("user.recovery_code_used", RecoveryCodeUsed)
SIGNING_KEYS_ROLLED = EventType("signing_keys.rolled", SigningKeysRolled)

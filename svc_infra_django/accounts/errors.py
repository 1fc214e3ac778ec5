"""What can be wrong with a login, a token or a code."""

from __future__ import annotations

from ..errors import (
    AuthenticationError,
    ConfigurationError,
    ConflictError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    UnavailableError,
    ValidationError,
)


class InvalidCredentials(AuthenticationError):
    """Address and password do not fit, or this account cannot log in."""

    code = "accounts.invalid_credentials"
    keeps_writes = True


class InvalidAccessToken(AuthenticationError):
    """The access token is malformed, expired or revoked."""

    code = "accounts.invalid_token"

    def __init__(self) -> None:
        # RFC 6750, section 3.1
        super().__init__(headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})


class SessionsUnreadable(UnavailableError):
    """Whether this login still stands cannot be found out now; try again."""

    code = "accounts.sessions_unreadable"


class NoSigningKey(ConfigurationError):
    """No key signs access tokens yet. Run `manage.py roll_signing_keys`."""

    code = "accounts.no_signing_key"


class KeyTooYoung(ConflictError):
    """The next signing key was published a moment ago; others may not know it yet. Wait, or use --force."""

    code = "accounts.key_too_young"


class NoSessionStore(ConfigurationError):
    """Sessions are kept in cookies alone, where nobody could end them; log in by tokens."""

    code = "accounts.no_session_store"


class SessionOver(AuthenticationError):
    """This session was ended; sign in again."""

    code = "accounts.session_over"


class InvalidRefreshToken(AuthenticationError):
    """The refresh token is unknown, expired, revoked or was used before. Log in again."""

    code = "accounts.invalid_refresh_token"
    keeps_writes = True


class InvalidMFAToken(AuthenticationError):
    """This login has expired or was finished already. Start again with the password."""

    code = "accounts.invalid_mfa_token"
    keeps_writes = True


class WrongCode(AuthenticationError):
    """The code is wrong, too old, or was used before."""

    code = "accounts.wrong_code"
    keeps_writes = True


class WrongPassword(AuthenticationError):
    """The present password is wrong."""

    code = "accounts.wrong_password"
    keeps_writes = True


class PresentPasswordMissing(ValidationError):
    """You have a password: send it as `current_password`."""

    code = "accounts.present_password_missing"


class FreshFactorRequired(AuthenticationError):
    """Prove again who you are: send `code` (or `password`, if you have no second factor), or log in anew."""

    code = "accounts.fresh_factor_required"

    def __init__(self, *, max_age: int) -> None:
        # RFC 9470, section 3
        challenge = f'Bearer error="insufficient_user_authentication", max_age="{max_age}"'
        super().__init__(headers={"WWW-Authenticate": challenge}, max_age=max_age)


class InvalidKey(ValidationError):
    """The key is wrong, expired, or was used before."""

    code = "accounts.invalid_key"


class PasswordRefused(ValidationError):
    """This password is not good enough."""

    code = "accounts.password_refused"


class AddressRefused(ValidationError):
    """This is not an e-mail address that we can send to."""

    code = "accounts.address_refused"


class SameAddress(ConflictError):
    """This is your address already."""

    code = "accounts.same_address"


class ProfileRefused(ValidationError):
    """Something in your profile cannot be what you sent."""

    code = "accounts.profile_refused"


class TooManyAttempts(RateLimitedError):
    """Too many attempts; wait as long as Retry-After says."""

    code = "accounts.too_many_attempts"
    keeps_writes = True


class SignupClosed(PermissionDeniedError):
    """New accounts are made by invitation only."""

    code = "accounts.signup_closed"


class NothingToConfirm(ConflictError):
    """No device is waiting to be confirmed. Begin with `POST auth/mfa/totp`."""

    code = "accounts.nothing_to_confirm"


class AlreadyAdded(ConflictError):
    """This is a second factor of yours already."""

    code = "accounts.already_added"


class NoMailbox(ConflictError):
    """Your account has no proven e-mail address that codes could be sent to."""

    code = "accounts.no_mailbox"


class NoSecondFactor(ConflictError):
    """There is no second factor on this account."""

    code = "accounts.no_second_factor"


class CallbackUnset(ConfigurationError):
    """Set SVC_INFRA["accounts"]["oauth_callback_url"] to the public URL of `GET oauth/callback`."""

    code = "accounts.callback_unset"


class UnknownProvider(NotFoundError):
    """Nobody logs in by this provider here."""

    code = "accounts.unknown_provider"


class ProviderRefused(AuthenticationError):
    """The provider did not confirm this login. Begin again."""

    code = "accounts.provider_refused"
    keeps_writes = True


class ProviderUnavailable(UnavailableError):
    """The provider does not answer; try again."""

    code = "accounts.provider_unavailable"
    keeps_writes = True


class InvalidState(AuthenticationError):
    """This login was not begun in this browser, has expired, or was finished already. Begin again."""

    code = "accounts.invalid_state"
    keeps_writes = True


class InvalidHandoff(AuthenticationError):
    """The code is wrong, has expired, or was used before. Begin again."""

    code = "accounts.invalid_handoff"
    keeps_writes = True


class AccountExists(ConflictError):
    """There is an account with this address. Log in to it as before, then connect the provider."""

    code = "accounts.account_exists"
    keeps_writes = True


class AddressMissing(ConflictError):
    """The provider proves no e-mail address of yours, and an account here needs one."""

    code = "accounts.address_missing"
    keeps_writes = True


class AlreadyConnected(ConflictError):
    """This account of the provider is connected to another account here."""

    code = "accounts.already_connected"
    keeps_writes = True


class LastWayIn(ConflictError):
    """You could not log in any more. Set a password first, by `POST auth/password/change` or a mail of
    `POST auth/password/reset`, or connect another provider."""

    code = "accounts.last_way_in"


class TargetRefused(ValidationError):
    """This is not a page that logins may end at."""

    code = "accounts.target_refused"

"""Settings of the accounts app."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from ..config.sections import Section, section_settings

MINUTE, DAY = 60, 24 * 60 * 60


class AccountsSettings(Section):
    section: ClassVar[str] = "accounts"

    issuer: str = Field("svc_infra_django", min_length=1)
    """The `iss` of access tokens, checked in each. Make it the public URL of your service."""

    audience: str = Field("svc_infra_django.api", min_length=1)
    """The `aud` of access tokens, checked in each."""

    signing_algorithm: Literal["EdDSA", "ES256", "RS256", "HS256"] = "EdDSA"
    """What signs access tokens. Keys made from SECRET_KEY are for EdDSA or HS256."""

    signing_keys: Literal["derived", "stored"] = "derived"
    """Where the keys come from: made from SECRET_KEY and SECRET_KEY_FALLBACKS, or rows that
    `manage.py roll_signing_keys` makes, with their private part sealed."""

    access_token_seconds: int = Field(15 * MINUTE, ge=30, le=60 * MINUTE)
    """How long an access token is valid; at most an hour."""

    token_leeway_seconds: int = Field(10, ge=0, le=60)
    """How far the clocks of two machines may differ when times in a token are checked."""

    revocation_seconds: float = Field(2, ge=0, le=60)
    """How long a process may take an access token for good after its session ended, its user was disabled
    or the password changed. 0 asks the database on every request."""

    shared_cache: str = ""
    """The alias in CACHES of a cache that all processes share, to be asked before the database whether a
    session stands. Empty for none."""

    shared_cache_seconds: int = Field(30, ge=1, le=60)
    """How long that cache keeps a session. So long, and `revocation_seconds`, may a change take that was made
    around our code, or that the cache could not be told of."""

    session_seconds: int = Field(30 * DAY, ge=MINUTE)
    """The absolute end of a session, counted from its login. Refreshing never moves it."""

    session_idle_seconds: int = Field(7 * DAY, ge=MINUTE)
    """A session that is not refreshed for so long is over."""

    audited: tuple[str, ...] = (
        *("user.*", "login.*", "session.*", "admin.*", "signing_keys.*"),
        *("api_key.*", "role.*", "access.*"),
    )
    """Events that get an audit row, by name or with a star at the end. Add those of your own project."""

    audit_seconds: int = Field(400 * DAY, ge=DAY)
    """How long audit rows are kept."""

    session_history_seconds: int = Field(90 * DAY, ge=0)
    """How long ended sessions are kept for looking back."""

    login_attempts: int = Field(10, ge=1, le=15)
    """Wrong passwords for one address within the window; then logging in to it is stopped."""

    login_attempts_per_client: int = Field(60, ge=1)
    """Wrong passwords from one client address within the window, whatever accounts they were for."""

    login_window_seconds: int = Field(15 * MINUTE, ge=1)
    """The window in which wrong passwords are counted. It starts with the first and ends the stop with it."""

    email_verification: bool = True
    """People who signed up themselves must prove their address before they can log in."""

    signup_open: bool = True
    """Whether strangers may make themselves an account by `POST auth/signup`."""

    mails_per_hour: int = Field(5, ge=1)
    """Mails of each kind (to prove an address, to set a new password, codes) that one address gets within an
    hour, whoever asks for them."""

    signups_per_client: int = Field(20, ge=1)
    """Sign-ups and reset requests from one client address within an hour."""

    email_verification_seconds: int = Field(DAY, ge=MINUTE)
    """How long the key in a verification mail is good."""

    email_verification_url: str = ""
    """The page of your front end that posts the key, with `{key}` in it: `https://app.example.com/verify#{key}`.
    If empty, the mail holds the key itself."""

    email_change_seconds: int = Field(60 * MINUTE, ge=MINUTE, le=DAY)
    """How long the key in a mail to a new address is good."""

    email_change_url: str = ""
    """As `email_verification_url`, for the page that posts the key of a new address."""

    profile_fields: tuple[str, ...] = ("first_name", "last_name")
    """Fields of your user model that people see in `GET auth/me` and change themselves by `PATCH auth/me`:
    text, whole numbers, dates, and yes or no. What decides about rights or logins is refused."""

    password_reset_seconds: int = Field(30 * MINUTE, ge=MINUTE, le=60 * MINUTE)
    """How long the key in a reset mail is good; at most an hour."""

    password_reset_url: str = ""
    """As `email_verification_url`, for the page that asks for a new password."""

    password_min_length: int = Field(8, ge=8)
    """Characters that a new password has at least, whatever AUTH_PASSWORD_VALIDATORS say."""

    breached_passwords_file: str = ""
    """A file of SHA-1 digests of passwords that are known, sorted, one a line: those are refused."""

    password_site_words: tuple[str, ...] = ()
    """Your own names: passwords that are little more than one of them are refused."""

    mfa_attempts: int = Field(10, ge=1, le=10)
    """Wrong codes of one user within the window, over all devices and logins; then codes are refused."""

    mfa_window_seconds: int = Field(15 * MINUTE, ge=1)
    """The window in which wrong codes are counted."""

    mfa_challenge_seconds: int = Field(5 * MINUTE, ge=30, le=5 * MINUTE)
    """How long the second step of a login may take."""

    mfa_challenge_attempts: int = Field(5, ge=1, le=10)
    """Codes that may be tried with one `mfa_token`."""

    new_device_mails: bool = True
    """Tell users by mail of a login by a program, or from an address, that they never used before."""

    new_key_mails: bool = True
    """Tell users by mail of a new API key that acts for them."""

    email_code_seconds: int = Field(10 * MINUTE, ge=MINUTE, le=10 * MINUTE)
    """How long a code is good that was mailed as a second factor."""

    fresh_factor_seconds: int = Field(10 * MINUTE, ge=MINUTE, le=60 * MINUTE)
    """How long after a login the factors count as fresh, for changes to the factors themselves."""

    staff_second_factor: bool = True
    """Staff and superusers get no tokens, and no page of `SecondFactorAdminSite`, without a second factor.
    Who has none is made to add one while logging in."""

    totp_issuer: str = Field("svc-infra-django", min_length=1)
    """The name that an authenticator app shows beside the account."""

    oauth_callback_url: str = ""
    """The public URL of `GET oauth/callback`, exactly as it is registered with the providers."""

    oauth_front_ends: tuple[str, ...] = ()
    """Pages of your front end that a login by a provider may end at, exactly as they are named in `next`."""

    first_passwords: bool = True
    """Whether an account without a password, which is used by a provider, may be given one by its user. Not
    where people must come by the provider, or a directory keeps their passwords."""

    oauth_trusted_providers: tuple[str, ...] = ()
    """Providers whose word opens an account that has the same proven address. People who come by any other
    log in as before and connect it themselves. Staff always do."""

    oauth_flow_seconds: int = Field(10 * MINUTE, ge=MINUTE, le=10 * MINUTE)
    """How long a login may be away at the provider."""

    oauth_flows_per_client: int = Field(60, ge=1)
    """Logins by providers that one client may begin within `login_window_seconds`."""

    oauth_handoff_seconds: int = Field(60, ge=10, le=60)
    """How long the code that ends at a front end may be exchanged for tokens."""

    recovery_codes: int = Field(10, ge=8, le=20)
    """How many recovery codes a user gets."""

    @model_validator(mode="after")
    def _can_be_derived(self) -> Self:
        if self.signing_keys == "derived" and self.signing_algorithm not in ("EdDSA", "HS256"):
            raise ValueError(f"{self.signing_algorithm} needs signing_keys = 'stored'.")
        return self


settings = section_settings(AccountsSettings)

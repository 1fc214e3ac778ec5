"""What goes in and out of `auth/`."""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import UUID

import ninja
from django.http import HttpRequest
from pydantic import Field, create_model

from ..api import Schema, Text
from ..observability.middleware import client_address
from .services.beginning_browsers import BrowserLogin
from .services.editing_profiles import TEXT, profile_fields
from .services.issuing_tokens import Client, Tokens
from .services.logging_in import SecondStep
from .services.noting_browsers import user_agent

if TYPE_CHECKING:
    Address = str
    AnyToken = str
    Code = str
    Key = str
    Name = str
    Password = str
    Returned = str
    Target = str
    Token = str
else:
    Address = Text(min_length=1, max_length=320)
    AnyToken = Text(min_length=1, max_length=4096)
    Code = Text(min_length=1, max_length=64)
    Key = Text(min_length=1, max_length=512)
    Name = Text(min_length=1, max_length=64)
    # Longer ones are refused before anything is hashed; nothing is cut.
    Password = Text(min_length=1, max_length=4096)
    Returned = Text(max_length=4096)
    Target = Text(max_length=2000)
    Token = Text(min_length=1, max_length=256)


class _Begins(Schema):
    session: bool = Field(
        False,
        description="For a page in a browser: a session with a cookie in the place of tokens. It wants the "
        "CSRF token, see `GET auth/csrf`.",
    )


class LoginIn(_Begins):
    email: Address
    password: Password = Field(repr=False)


class CsrfOut(ninja.Schema):
    csrf_token: str = Field(repr=False, description="Send it as X-CSRFToken.")


class BrowserLoginOut(CsrfOut):
    session: Literal[True] = True
    expires_in: int = Field(description="Seconds that the session lasts.")


class TokensOut(ninja.Schema):
    access_token: str = Field(repr=False)
    refresh_token: str = Field(repr=False)
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105  # the name of a scheme (RFC 6750)
    expires_in: int = Field(description="Seconds that the access token is valid.")


class SecondStepOut(ninja.Schema):
    mfa_required: Literal[True] = True
    mfa_enrolment_required: bool = Field(
        description="You have no device and must add one: `POST auth/mfa/enrol`, not `auth/mfa/verify`."
    )
    mfa_token: str = Field(repr=False, description="For `POST auth/mfa/verify` and nothing else; good once.")
    expires_in: int


class MailCodeIn(Schema):
    mfa_token: Token = Field(repr=False)


class BeginEnrolmentIn(Schema):
    mfa_token: Token = Field(repr=False)
    name: Name = "Authenticator app"


class SignupIn(Schema):
    email: Address
    password: Password = Field(repr=False)


class VerifyIn(Schema):
    key: Key = Field(repr=False, description="The key from the mail.")
    password: Password = Field(repr=False, description="The password of the sign-up.")


class ResetIn(Schema):
    email: Address


class ConfirmResetIn(Schema):
    key: Key = Field(repr=False, description="The key from the mail.")
    password: Password = Field(repr=False, description="The new password.")


class ChangePasswordIn(Schema):
    current_password: Password | None = Field(
        None, repr=False, description="Wanted of all but accounts that a provider made and that have none."
    )
    password: Password = Field(repr=False, description="The new password.")
    code: Code | None = Field(
        None, repr=False, description="For a first password, with a second factor and a login of long ago."
    )


class FreshFactorIn(Schema):
    password: Password | None = Field(
        None, repr=False, description="If you have no second factor and logged in long ago."
    )
    code: Code | None = Field(None, repr=False, description="If you have a second factor.")


class ChangeAddressIn(FreshFactorIn):
    email: Address = Field(description="The new address.")


class KeyIn(Schema):
    key: Key = Field(repr=False, description="The key from the mail.")


class AcceptedOut(ninja.Schema):
    detail: str


class CodeIn(Schema):
    code: Code = Field(repr=False)


class FinishLoginIn(_Begins):
    mfa_token: Token = Field(repr=False)
    code: Code = Field(repr=False, description="A code of one of your devices, or a recovery code.")


class RefreshIn(Schema):
    refresh_token: Token = Field(repr=False)


class TokenIn(ninja.Schema):
    """A form (RFC 7662, RFC 7009); other fields of it are ignored, as these want."""

    token: AnyToken = Field(repr=False)


class StandingOut(ninja.Schema):
    active: bool
    token_type: Literal["access_token", "refresh_token"] | None = None
    sub: str | None = None
    """The user's id."""
    sid: UUID | None = None
    """The session's id."""
    iss: str | None = None
    aud: str | None = None
    jti: str | None = None
    iat: int | None = None
    exp: int | None = None
    auth_time: int | None = None
    amr: list[str] | None = None
    acr: str | None = None
    tenant: str | None = None


class _Me(ninja.Schema):
    id: str
    username: str
    email: str
    tenant: str
    method: str = Field(description="How this request was authenticated: `session`, `jwt` or `api_key`.")
    amr: list[str] = Field(description="Authentication methods used (RFC 8176).")
    auth_time: datetime | None


def _written(field: Any) -> Any:
    """A field of the user model as it is sent: absent for what stays as it is."""
    kind = Text(max_length=field.max_length) if field.get_internal_type() in TEXT else _kind(field)
    return (kind | None if field.null else kind), None


def _read(field: Any) -> Any:
    kind = _kind(field)
    return (kind | None if field.null else kind), ...


def _kind(field: Any) -> Any:
    match field.get_internal_type():
        case "BooleanField":
            return bool
        case "DateField":
            return date
        case kind if kind in TEXT:
            return str
    return int


if TYPE_CHECKING:

    class ProfileIn(Schema): ...

    class MeOut(_Me): ...
else:
    ProfileIn = create_model(
        "ProfileIn", __base__=Schema, **{field.name: _written(field) for field in profile_fields()}
    )
    MeOut = create_model("MeOut", __base__=_Me, **{field.name: _read(field) for field in profile_fields()})


class SessionOut(ninja.Schema):
    id: UUID
    created_at: datetime
    refreshed_at: datetime
    expires_at: datetime = Field(description="The absolute end; refreshing does not move it.")
    amr: list[str]
    user_agent: str
    client_address: str | None
    is_current: bool
    kind: str = Field(description="`tokens`, or `browser` for a session with a cookie.")

    @classmethod
    def of(cls, row: Any, *, is_current: bool) -> SessionOut:
        return cls(
            id=row.pk,
            created_at=row.created_at,
            refreshed_at=row.refreshed_at,
            expires_at=row.expires_at,
            amr=list(row.methods),
            user_agent=row.user_agent,
            client_address=row.client_address,
            is_current=is_current,
            kind=row.kind,
        )


class AuditFilter(ninja.Schema):
    name: Annotated[str, Text(max_length=100)] = ""
    subject: Annotated[str, Text(max_length=64)] = ""


class AuditEventOut(ninja.Schema):
    id: UUID
    name: str
    subject: str
    actor: str
    tenant: str
    client_address: str | None
    request_id: str
    data: dict[str, Any]
    created_at: datetime
    number: int | None = Field(description="Its place in the chain, once it has one.")
    digest: str


class BeginTOTPIn(FreshFactorIn):
    name: Name = "Authenticator app"


class EnrolmentOut(ninja.Schema):
    secret: str = Field(repr=False, description="The key in base 32. Shown this once.")
    url: str = Field(repr=False, description="`otpauth://` URL for a QR code. Shown this once.")
    qr_svg: str = Field(repr=False, description="That QR code, as one `<svg>` element. Shown this once.")


class RecoveryCodesOut(ninja.Schema):
    recovery_codes: list[str] = Field(
        repr=False, description="Each is good once. Shown this once; empty if you have some already."
    )


class EnrolledOut(TokensOut, RecoveryCodesOut):
    pass


class EnrolledBrowserOut(BrowserLoginOut, RecoveryCodesOut):
    pass


class ProviderOut(ninja.Schema):
    id: str
    name: str


class DepartureOut(ninja.Schema):
    authorization_url: str = Field(repr=False, description="Send the browser there.")
    state: str = Field(repr=False, description="Keep it in the page: `POST oauth/exchange` wants it.")
    expires_in: int = Field(description="Seconds that the login may be away at the provider.")


class ExchangeIn(_Begins):
    code: Token = Field(repr=False, description="The `code` that the browser came back with.")
    state: Token = Field(repr=False, description="The `state` that `oauth/authorize` answered.")


class ConnectIn(FreshFactorIn):
    provider: Name
    next: Target = Field("", description="The page to end at, one of `oauth_front_ends`, or a path here.")


class ConnectedOut(ninja.Schema):
    id: int
    provider: str
    connected_at: datetime
    last_login_at: datetime

    @classmethod
    def of(cls, row: Any) -> ConnectedOut:
        return cls(
            id=row.pk, provider=row.provider, connected_at=row.date_joined, last_login_at=row.last_login
        )


class ConnectedAccountsOut(ninja.Schema):
    accounts: list[ConnectedOut]
    has_password: bool


class DeviceOut(ninja.Schema):
    id: str
    kind: str
    name: str


class DevicesOut(ninja.Schema):
    devices: list[DeviceOut]
    recovery_codes_left: int


def client_of(request: HttpRequest) -> Client:
    """Where the request comes from."""
    return Client(address=client_address(request), user_agent=user_agent(request))


def shown(outcome: Tokens | BrowserLogin | SecondStep) -> TokensOut | BrowserLoginOut | SecondStepOut:
    """What the client gets to see of a login."""
    if isinstance(outcome, BrowserLogin):
        return BrowserLoginOut(csrf_token=outcome.csrf_token, expires_in=outcome.expires_in)
    if isinstance(outcome, SecondStep):
        return SecondStepOut(
            mfa_token=outcome.mfa_token,
            mfa_enrolment_required=outcome.must_enrol,
            expires_in=outcome.expires_in,
        )
    return TokensOut(
        access_token=outcome.access_token, refresh_token=outcome.refresh_token, expires_in=outcome.expires_in
    )

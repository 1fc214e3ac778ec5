"""The door of the accounts: log in, stay in, log out."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import django_otp
from django.contrib.auth import logout as end_browser_session
from django.contrib.auth import update_session_auth_hash
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import get_token
from django.shortcuts import get_object_or_404
from django.utils import timezone
from ninja import Form, Query, Router, Status

from ..api import ApiRequest, Page, PageQuery, not_delegated, paginated, requires
from ..api.authentication import LOGIN_SESSION_KEY, demand_csrf
from ..errors import NotFoundError
from ..principals import Principal
from .conf import settings
from .models import AuditEvent, AuthSession, RecoveryCode
from .querysets import AuthSessionQuerySet
from .schemas import (
    AcceptedOut,
    AuditEventOut,
    AuditFilter,
    BeginEnrolmentIn,
    BeginTOTPIn,
    BrowserLoginOut,
    ChangeAddressIn,
    ChangePasswordIn,
    CodeIn,
    ConfirmResetIn,
    CsrfOut,
    DeviceOut,
    DevicesOut,
    EnrolledBrowserOut,
    EnrolledOut,
    EnrolmentOut,
    FinishLoginIn,
    FreshFactorIn,
    KeyIn,
    LoginIn,
    MailCodeIn,
    MeOut,
    ProfileIn,
    RecoveryCodesOut,
    RefreshIn,
    ResetIn,
    SecondStepOut,
    SessionOut,
    SignupIn,
    StandingOut,
    TokenIn,
    TokensOut,
    VerifyIn,
    client_of,
    shown,
)
from .services.beginning_browsers import begin, forget_device
from .services.changing_addresses import change_address, request_address
from .services.changing_passwords import change_password, request_reset, reset_password
from .services.editing_profiles import edit_profile, profile_fields
from .services.ending_sessions import end_all_sessions, end_session
from .services.enrolling_mfa import (
    Confirmed,
    Enrolment,
    begin_email,
    begin_enrolment,
    begin_totp,
    confirm_email,
    confirm_totp,
    disable_mfa,
    finish_enrolment,
    mail_code,
    remove_device,
    replace_recovery_codes,
    require_fresh_factor,
    step_up,
)
from .services.introspecting import introspect, revoke_token
from .services.issuing_tokens import refresh_tokens
from .services.logging_in import SecondStep, prove_login
from .services.signing_up import sign_up, verify_email
from .services.verifying_mfa import Proven, challenge_of, finish_second_step
from .signing import password_states

router = Router(tags=["auth"])


@router.get("csrf", auth=None, response=CsrfOut)
def csrf(request: HttpRequest, response: HttpResponse) -> Any:
    """A CSRF token and its cookie: with them a page in a browser logs in with `session`."""
    _not_stored(response)
    return CsrfOut(csrf_token=get_token(request))


@router.post("login", auth=None, response=TokensOut | BrowserLoginOut | SecondStepOut)
def login(request: HttpRequest, response: HttpResponse, body: LoginIn) -> Any:
    """Log in by address and password: two tokens or a session, or a token for the second step."""
    _not_stored(response)
    if body.session:
        demand_csrf(request)
    now = timezone.now()
    outcome = prove_login(body.email, body.password, client=client_of(request), now=now)
    return _begun(request, outcome, in_browser=body.session, now=now)


@router.post("signup", auth=None, response={202: AcceptedOut})
def signup(request: HttpRequest, body: SignupIn) -> Any:
    """Make yourself an account. The answer is the same for an address that has one; the mail is not."""
    sign_up(body.email, body.password, client=client_of(request), now=timezone.now())
    return Status(202, AcceptedOut(detail="Look into your mail: it says how to go on."))


@router.post("email/verify", auth=None, response={204: None})
def verify_address(request: HttpRequest, body: VerifyIn) -> Any:
    """Prove an address with the key from the mail, and the password that you signed up with."""
    verify_email(body.key, body.password, now=timezone.now())
    return Status(204, None)


@router.post("email/change", response={202: AcceptedOut})
@not_delegated
def request_another_address(request: ApiRequest, body: ChangeAddressIn) -> Any:
    """Ask for another address. It is yours once the key that is mailed to it came back; the answer is the
    same for an address that somebody has."""
    principal, now = request.principal, timezone.now()
    require_fresh_factor(principal, password=body.password, code=body.code, now=now)
    request_address(principal, body.email, client=client_of(request), now=now)
    return Status(202, AcceptedOut(detail="Look into the mail at the new address: it says how to go on."))


@router.post("email/change/confirm", response={204: None})
@not_delegated
def confirm_another_address(request: ApiRequest, body: KeyIn) -> Any:
    """Prove the address that you asked for with the key from the mail. The old one hears of it."""
    change_address(request.principal, body.key, now=timezone.now())
    return Status(204, None)


@router.post("password/reset", auth=None, response={202: AcceptedOut})
def request_password_reset(request: HttpRequest, body: ResetIn) -> Any:
    """Ask for a mail with a key to set a new password. The answer is the same for unknown addresses."""
    request_reset(body.email, client=client_of(request), now=timezone.now())
    return Status(202, AcceptedOut(detail="If we know the address, a mail is on its way to it."))


@router.post("password/reset/confirm", auth=None, response={204: None})
def confirm_password_reset(request: HttpRequest, body: ConfirmResetIn) -> Any:
    """Set a new password with the key from the mail. All sessions are over; log in anew."""
    reset_password(body.key, body.password, now=timezone.now())
    return Status(204, None)


@router.post("password/change", response={204: None})
@not_delegated
def change_own_password(request: ApiRequest, body: ChangePasswordIn) -> Any:
    """Set a new password with the present one. All your other sessions are over.

    An account that a provider made gets its first one with a fresh login instead.
    """
    principal, now = request.principal, timezone.now()
    change_password(principal, current=body.current_password, new=body.password, code=body.code, now=now)
    if principal.method == "session":
        update_session_auth_hash(request, principal.user)
    return Status(204, None)


@router.post("mfa/verify", auth=None, response=TokensOut | BrowserLoginOut)
def verify_second_factor(request: HttpRequest, response: HttpResponse, body: FinishLoginIn) -> Any:
    """The second step of a login."""
    _not_stored(response)
    if body.session:
        demand_csrf(request)
    now = timezone.now()
    proven = finish_second_step(challenge_of(body.mfa_token, now=now), body.code, now=now)
    return _begun(request, proven, in_browser=body.session, now=now)


@router.post("mfa/email/send", auth=None, response={202: AcceptedOut})
def mail_code_for_login(request: HttpRequest, body: MailCodeIn) -> Any:
    """Have a code mailed for the second step, if your mailbox is a second factor."""
    now = timezone.now()
    mail_code(challenge_of(body.mfa_token, now=now).owner, now=now)
    return Status(202, AcceptedOut(detail="A code is on its way to you."))


@router.post("mfa/enrol", auth=None, response={201: EnrolmentOut})
def begin_required_totp(request: HttpRequest, response: HttpResponse, body: BeginEnrolmentIn) -> Any:
    """Add an authenticator app while logging in, if `mfa_enrolment_required` says that you must."""
    _not_stored(response)
    now = timezone.now()
    enrolment = begin_enrolment(challenge_of(body.mfa_token, now=now), name=body.name, now=now)
    return Status(201, _enrolment(enrolment))


@router.post("mfa/enrol/confirm", auth=None, response=EnrolledOut | EnrolledBrowserOut)
def confirm_required_totp(request: HttpRequest, response: HttpResponse, body: FinishLoginIn) -> Any:
    """Confirm it by a code of it, and be logged in."""
    _not_stored(response)
    if body.session:
        demand_csrf(request)
    now = timezone.now()
    proven, codes = finish_enrolment(challenge_of(body.mfa_token, now=now), body.code, now=now)
    login = _begun(request, proven, in_browser=body.session, now=now).model_dump()
    return (EnrolledBrowserOut if body.session else EnrolledOut)(**login, recovery_codes=codes)


@router.post("refresh", auth=None, response=TokensOut)
def refresh(request: HttpRequest, response: HttpResponse, body: RefreshIn) -> Any:
    """Exchange a refresh token for the next pair. Each is good once; a second use ends the session."""
    _not_stored(response)
    return shown(refresh_tokens(body.refresh_token, client=client_of(request), now=timezone.now()))


@router.post("introspect", response=StandingOut, exclude_none=True)
@requires("svc_accounts.introspect_token")
def introspect_token(request: ApiRequest, body: Form[TokenIn]) -> Any:
    """What one of our tokens is worth now (RFC 7662). Nothing but `active: false` is said of a bad one, nor
    to a credential of a tenant of one from elsewhere."""
    standing = introspect(body.token, now=timezone.now())
    if standing is None or request.principal.tenant not in ("", standing.session.tenant):
        return StandingOut(active=False)
    session = standing.session
    return StandingOut(
        active=True,
        token_type=standing.kind,
        sub=str(session.owner_id),
        sid=session.pk,
        iss=settings.issuer,
        aud=settings.audience,
        jti=standing.token_id or None,
        iat=standing.issued_at,
        exp=standing.expires_at,
        auth_time=int(session.auth_time.timestamp()),
        amr=list(session.methods),
        acr=session.acr,
        tenant=session.tenant,
    )


@router.post("revoke", auth=None, response={200: None})
def take_token_back(request: HttpRequest, body: Form[TokenIn]) -> Any:
    """End the session of a token that you have (RFC 7009). The answer is the same for one we do not know."""
    revoke_token(body.token, now=timezone.now())
    return Status(200, None)


@router.post("logout", response={204: None})
@not_delegated
def logout(request: ApiRequest) -> Any:
    """End this session: both tokens are dead at once."""
    for session in AuthSession.objects.of_principal(request.principal).select_related("owner"):
        end_session(session, reason=AuthSession.Reason.LOGOUT, now=timezone.now())
    if request.principal.method == "session":
        end_browser_session(request)
    return Status(204, None)


@router.post("logout-all", response={204: None})
@not_delegated
def logout_everywhere(request: ApiRequest) -> Any:
    """End every session of yours, this one too."""
    end_all_sessions(request.principal.user, reason=AuthSession.Reason.LOGOUT_ALL, now=timezone.now())
    if request.principal.method == "session":
        end_browser_session(request)
    return Status(204, None)


@router.get("me", response=MeOut)
def me(request: ApiRequest) -> Any:
    """Who you are to this service, and how it knows."""
    return _me(request.principal, request.principal.user)


@router.patch("me", response=MeOut)
@not_delegated
def edit_me(request: ApiRequest, body: ProfileIn) -> Any:
    """Change what `profile_fields` names, as far as the user model has it; what is not sent stays."""
    return _me(request.principal, edit_profile(request.principal.user, body.model_dump(exclude_unset=True)))


@router.get("audit", response=Page[AuditEventOut])
@requires("svc_accounts.view_auditevent")
def list_audit_events(request: ApiRequest, page: Query[PageQuery], wanted: Query[AuditFilter]) -> Any:
    """What happened that matters to security, the newest first; by `name` or `subject` if you like.

    A credential of a tenant sees what happened in it.
    """
    asked = {"name": wanted.name, "subject": wanted.subject, "tenant": request.principal.tenant}
    rows = AuditEvent.objects.filter(**{column: text for column, text in asked.items() if text})
    return paginated(rows, page)


@router.get("sessions", response=Page[SessionOut])
@not_delegated
def list_sessions(request: ApiRequest, page: Query[PageQuery]) -> Any:
    """Your living sessions, the newest first."""
    rows = _good_sessions(request)
    found = paginated(rows, page)
    items = [SessionOut.of(row, is_current=row.is_of(request.principal)) for row in found["items"]]
    return {**found, "items": items}


@router.delete("sessions/{session_id}", response={204: None})
@not_delegated
def delete_session(request: ApiRequest, session_id: UUID) -> Any:
    """End one of your sessions."""
    session = get_object_or_404(_good_sessions(request), pk=session_id)
    end_session(session, reason=AuthSession.Reason.LOGOUT, now=timezone.now())
    return Status(204, None)


@router.post("mfa/totp", response={201: EnrolmentOut})
@not_delegated
def add_totp(request: ApiRequest, body: BeginTOTPIn) -> Any:
    """Begin with an authenticator app. It counts once a code of it was confirmed."""
    now = timezone.now()
    require_fresh_factor(request.principal, password=body.password, code=body.code, now=now)
    enrolment = begin_totp(request.principal.user, name=body.name, now=now)
    return Status(201, _enrolment(enrolment))


@router.post("mfa/totp/confirm", response=RecoveryCodesOut)
@not_delegated
def confirm_totp_device(request: ApiRequest, body: CodeIn) -> Any:
    """Confirm the authenticator app by a code of it. From now on every login wants one."""
    return _begin_to_ask(request, confirm_totp(request.principal, body.code, now=timezone.now()))


@router.post("mfa/email", response={202: AcceptedOut})
@not_delegated
def add_mailbox(request: ApiRequest, body: FreshFactorIn) -> Any:
    """Begin to use your mailbox as a second factor: a code is mailed. It counts once that was confirmed."""
    now = timezone.now()
    require_fresh_factor(request.principal, password=body.password, code=body.code, now=now)
    begin_email(request.principal.user, now=now)
    return Status(202, AcceptedOut(detail="A code is on its way to you."))


@router.post("mfa/email/confirm", response=RecoveryCodesOut)
@not_delegated
def confirm_mailbox(request: ApiRequest, body: CodeIn) -> Any:
    """Confirm the mailbox by the code that was sent to it. From now on every login wants a code."""
    return _begin_to_ask(request, confirm_email(request.principal, body.code, now=timezone.now()))


@router.post("mfa/email/code", response={202: AcceptedOut})
@not_delegated
def mail_code_to_oneself(request: ApiRequest) -> Any:
    """Have a code mailed, for `auth/step-up` and whatever else wants one."""
    mail_code(request.principal.user, now=timezone.now())
    return Status(202, AcceptedOut(detail="A code is on its way to you."))


@router.post("step-up", response={204: None})
@not_delegated
def prove_anew(request: ApiRequest, body: FreshFactorIn) -> Any:
    """Prove anew who you are, in this session. After it, refresh: the next access token says so."""
    now = timezone.now()
    amr = step_up(request.principal, password=body.password, code=body.code, now=now)
    if request.principal.method == "session":
        request.session[LOGIN_SESSION_KEY] = {"amr": list(amr), "auth_time": int(now.timestamp())}
    return Status(204, None)


@router.get("mfa/devices", response=DevicesOut)
@not_delegated
def list_devices(request: ApiRequest) -> Any:
    """What your second step may be done with."""
    user = request.principal.user
    devices = [
        DeviceOut(id=device.persistent_id, kind=device._meta.model_name, name=device.name)
        for device in django_otp.devices_for_user(user)
    ]
    return DevicesOut(devices=devices, recovery_codes_left=RecoveryCode.objects.unused(user).count())


@router.delete("mfa/devices/{path:device_id}", response={204: None})
@not_delegated
def delete_device(request: ApiRequest, device_id: str) -> Any:
    """Remove one device; with the last one goes the second factor. It wants a fresh code: `auth/step-up`."""
    now = timezone.now()
    devices = django_otp.devices_for_user(request.principal.user)
    device = next((each for each in devices if each.persistent_id == device_id), None)
    if device is None:
        raise NotFoundError("Device")
    require_fresh_factor(request.principal, password=None, code=None, now=now)
    remove_device(request.principal, device, now=now)
    _ask_no_more(request)
    return Status(204, None)


@router.post("mfa/recovery-codes", response=RecoveryCodesOut)
@not_delegated
def renew_recovery_codes(request: ApiRequest, body: FreshFactorIn) -> Any:
    """New recovery codes; the old ones are void."""
    now = timezone.now()
    require_fresh_factor(request.principal, password=body.password, code=body.code, now=now)
    return RecoveryCodesOut(recovery_codes=replace_recovery_codes(request.principal.user, now=now))


@router.post("mfa/disable", response={204: None})
@not_delegated
def remove_second_factor(request: ApiRequest, body: CodeIn) -> Any:
    """Remove your second factor, on a fresh code. Staff are logged out: they must have one."""
    disable_mfa(request.principal, body.code, now=timezone.now())
    _ask_no_more(request)
    return Status(204, None)


def _me(principal: Principal, user: Any) -> MeOut:
    return MeOut(
        id=str(user.pk),
        username=user.get_username(),
        email=getattr(user, user.get_email_field_name(), "") or "",
        tenant=principal.tenant,
        method=principal.method,
        amr=list(principal.amr),
        auth_time=principal.auth_time,
        **{field.name: getattr(user, field.name) for field in profile_fields()},
    )


def _good_sessions(request: ApiRequest) -> AuthSessionQuerySet:
    user = request.principal.user
    return AuthSession.objects.good(user, password_states(user), now=timezone.now())


def _begun(request: HttpRequest, outcome: Proven | SecondStep, *, in_browser: bool, now: datetime) -> Any:
    return shown(begin(request, outcome, in_browser=in_browser, client=client_of(request), now=now))


def _enrolment(enrolment: Enrolment) -> EnrolmentOut:
    return EnrolmentOut(secret=enrolment.secret, url=enrolment.url, qr_svg=enrolment.qr_svg)


def _not_stored(response: HttpResponse) -> None:
    # RFC 6749, section 5.1
    response["Cache-Control"] = "no-store"


def _begin_to_ask(request: ApiRequest, confirmed: Confirmed) -> RecoveryCodesOut:
    """The browser session that confirmed the device has proved it: it is not asked again."""
    if request.principal.method == "session":
        django_otp.login(request, confirmed.device)
    return RecoveryCodesOut(recovery_codes=confirmed.recovery_codes)


def _ask_no_more(request: ApiRequest) -> None:
    """The browser session that removed the last device is one without a second factor."""
    principal = request.principal
    if principal.method == "session" and not django_otp.user_has_device(principal.user):
        forget_device(request, principal.user, now=timezone.now())

"""Compose and send the mails about an account. Keys are made here and leave in the mail only."""

from __future__ import annotations

from django.contrib.auth import get_user_model
from django.core.mail import send_mail
from django.template.loader import render_to_string
from django.utils import timezone

from .compat import (
    addresses_of,
    belongs_to_another,
    email_of,
    may_have_a_first_password,
    stored_address,
    user_with_address,
    waiting_address,
)
from .conf import settings
from .models import AuthSession, EmailDevice
from .signing import CHANGE, RESET, VERIFY, address_state, make_key, reset_state, verification_state

NOTICES = (
    *("password_changed", "session_reused", "mfa_enabled", "mfa_disabled", "recovery_codes_replaced"),
    *("password_set", "mfa_device_removed", "api_key_issued", "provider_connected", "provider_disconnected"),
    "codes_stopped",
)


def mail_after_signup(address: str) -> None:
    """A key to prove the address, or word to its owner that somebody tried to sign up with it."""
    waiting = waiting_address(address)
    if waiting is not None and settings.email_verification:
        key = make_key(VERIFY, waiting.pk, verification_state(waiting))
        _send("verify_email", waiting.email, key=key, url=_link(settings.email_verification_url, key))
        return
    owner = user_with_address(address)
    if owner is not None and owner.is_active:
        _send("account_exists", stored_address(owner, address))


def mail_reset_key(address: str) -> None:
    """A key to set a new password, if the address is known; to the address as it is stored.

    A first one, for an account that a provider made. Whose password a directory keeps gets none.
    """
    user = user_with_address(address)
    if user is None or not user.is_active:
        return
    if not (user.has_usable_password() or may_have_a_first_password(user)):
        return
    key = make_key(RESET, f"{user.pk}:{address}", reset_state(user, addresses_of(user)))
    _send(
        "reset_password", stored_address(user, address), key=key, url=_link(settings.password_reset_url, key)
    )


def mail_address_key(user_id: str, address: str) -> None:
    """A key to make the address the user's, or word to its owner that somebody tried to."""
    user = get_user_model()._default_manager.filter(pk=user_id, is_active=True).first()
    if user is None:
        return
    if belongs_to_another(user, address):
        _send("address_taken", stored_address(user_with_address(address), address))
        return
    key = make_key(CHANGE, f"{user.pk}:{address}", address_state(user, addresses_of(user)))
    _send("confirm_address", address, key=key, url=_link(settings.email_change_url, key))


def mail_address_changed(address: str) -> None:
    """Tell whoever reads the old address that the account has another one now."""
    _send("address_changed", address)


def mail_notice(user_id: str, kind: str) -> None:
    """Tell a user that something about their account changed. `kind` is one of NOTICES."""
    if kind not in NOTICES:
        raise ValueError(f"There is no notice {kind!r}.")
    user = get_user_model()._default_manager.filter(pk=user_id).first()
    if user is not None and email_of(user):
        _send(kind, email_of(user))


def mail_new_device(session_id: str) -> None:
    """Tell a user where a session was begun that is like none of their earlier ones."""
    session = AuthSession.objects.select_related("owner").filter(pk=session_id).first()
    if session is not None and email_of(session.owner):
        when = f"{session.created_at:%Y-%m-%d %H:%M} UTC"
        agent, address = session.user_agent or "unknown", session.client_address or "unknown"
        _send("new_device", email_of(session.owner), when=when, agent=agent, address=address)


def mail_code(device_id: int) -> None:
    """A code for the second step, good for `email_code_seconds`; an earlier one is void."""
    device = EmailDevice.objects.select_related("user").filter(pk=device_id).first()
    if device is None or not device.user.is_active or not email_of(device.user):
        return
    _send("mfa_code", email_of(device.user), code=device.new_code(now=timezone.now()))


def _link(template: str, key: str) -> str:
    return template.replace("{key}", key)


def _send(kind: str, to: str, **context: str) -> None:
    """The first line of the template is the subject."""
    text = render_to_string(f"svc_accounts/email/{kind}.txt", {"service": settings.totp_issuer, **context})
    subject, _, body = text.strip().partition("\n")
    send_mail(subject.strip(), body.strip() + "\n", None, [to])

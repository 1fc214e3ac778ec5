"""What others do to users, and the sessions must hear of; and what users must hear of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.conf import settings as django_settings
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.db.models.signals import post_delete, post_save
from django.http import HttpRequest
from django.utils import timezone

from ..events import Event, any_event
from .conf import settings
from .events import USER_LOGGED_IN, UserLoggedIn
from .services.auditing import record_event
from .services.changing_passwords import tell_of_password
from .services.ending_sessions import end_noted_browser
from .services.noticing_devices import notice_new_device
from .services.noting_browsers import note_browser
from .services.sharing_sessions import forget_sessions
from .tasks import send_notice


# The user model is the project's: that its admin, or a shell, disables somebody is seen here only.
def forget_changed_user(
    *, instance: Any, using: str, update_fields: Iterable[str] | None = None, **_: Any
) -> None:
    """Have the sessions of a user who was saved or deleted looked at anew."""
    if update_fields is None or set(update_fields) != {"last_login"}:
        forget_sessions(instance.pk, using=using)


# A password set in the admin or a shell may be an attacker's; the API's own paths tell for themselves.
def look_at_password(*, instance: Any, created: bool, **_: Any) -> None:
    """Tell the user of a new password. Django keeps what was set, and not only hashed anew, until the row is
    written."""
    is_told = instance.__dict__.pop("is_told", False)
    if getattr(instance, "_password", None) is not None and not (created or is_told):
        tell_of_password(instance)


post_save.connect(
    look_at_password,
    sender=django_settings.AUTH_USER_MODEL,
    dispatch_uid="svc_infra_django.accounts.receivers.look_at_password",
)

for signal in (post_save, post_delete):
    signal.connect(
        forget_changed_user,
        sender=django_settings.AUTH_USER_MODEL,
        dispatch_uid="svc_infra_django.accounts.receivers",
    )


def audit(*, event: Event[Any], **_: Any) -> None:
    """Have a row for what matters to security, whichever app tells it."""
    record_event(event)


any_event.connect(audit, dispatch_uid="svc_infra_django.accounts.receivers.audit")


def note_login(*, request: HttpRequest, user: Any, **_: Any) -> None:
    """Have a row for a browser's session, by whatever view it was begun."""
    note_browser(request, user, now=timezone.now())


def note_logout(*, request: HttpRequest, user: Any, **_: Any) -> None:
    """A browser's session ends, by whatever view."""
    if user is not None:
        end_noted_browser(request, user, now=timezone.now())


user_logged_in.connect(note_login, dispatch_uid="svc_infra_django.accounts.receivers")
user_logged_out.connect(note_logout, dispatch_uid="svc_infra_django.accounts.receivers")


def tell_of_key(*, event: Event[Any], **_: Any) -> None:
    """Tell the user of a new key. Another app makes keys, so their events are known by name."""
    is_new = event.type.name in ("api_key.issued", "api_key.rotated")
    if is_new and event.owner is not None and settings.new_key_mails:
        send_notice.enqueue(str(event.owner.pk), "api_key_issued")


any_event.connect(tell_of_key, dispatch_uid="svc_infra_django.accounts.receivers.tell_of_key")


def look_at_device(*, event: Event[UserLoggedIn], **_: Any) -> None:
    """Tell the user of a login that is like none before."""
    notice_new_device(event.payload.session_id)


USER_LOGGED_IN.connect(look_at_device, dispatch_uid="svc_infra_django.accounts.receivers.look_at_device")

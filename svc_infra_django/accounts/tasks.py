"""Mails, and forgetting what is long over. Arguments hold no key and no token: the mailer makes them."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from ..chains import lengthen, prune
from ..jobs import periodic, task
from .conf import settings
from .mailer import (
    mail_address_changed,
    mail_address_key,
    mail_after_signup,
    mail_code,
    mail_new_device,
    mail_notice,
    mail_reset_key,
)
from .models import AuditHead, AuthSession, MFAChallenge, OAuthFlow, OAuthHandoff, RepeatedEvent, Throttle

BATCH = 500


@task()
def send_signup_mail(address: str) -> None:
    mail_after_signup(address)


@task()
def send_reset_mail(address: str) -> None:
    mail_reset_key(address)


@task()
def send_address_key(user_id: str, address: str) -> None:
    mail_address_key(user_id, address)


@task()
def send_address_changed(address: str) -> None:
    mail_address_changed(address)


@task()
def send_notice(user_id: str, kind: str) -> None:
    mail_notice(user_id, kind)


@task()
def send_new_device(session_id: str) -> None:
    mail_new_device(session_id)


# A code that comes late is worth nothing.
@task(max_attempts=2)
def send_code(device_id: int) -> None:
    mail_code(device_id)


@periodic(every=timedelta(minutes=1))
@task()
def chain_audit_events() -> None:
    now = timezone.now()
    for repeated in RepeatedEvent.objects.filter(ends_at__lte=now):
        repeated.tell(now=now)
    lengthen(AuditHead)


@periodic(every=timedelta(hours=1))
@task()
def prune_accounts() -> None:
    now = timezone.now()
    over = AuthSession.objects.over(before=now - timedelta(seconds=settings.session_history_seconds))
    while batch := list(over.values_list("pk", flat=True)[:BATCH]):
        AuthSession.objects.filter(pk__in=batch).delete()
    MFAChallenge.objects.filter(expires_at__lt=now).delete()
    long_ago = now - timedelta(seconds=settings.audit_seconds)
    prune(AuditHead, before=long_ago)
    OAuthFlow.objects.filter(expires_at__lt=now).delete()
    OAuthHandoff.objects.filter(expires_at__lt=now).delete()
    Throttle.objects.filter(ends_at__lt=now).delete()

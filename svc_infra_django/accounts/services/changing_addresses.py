"""Another e-mail address for an account: asked for with a fresh factor, proved by the key in a mail to it.

Until then nothing is stored, so the present address stays and nobody is kept from the new one.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.contrib.auth import get_user_model
from django.db import IntegrityError, transaction
from django.views.decorators.debug import sensitive_variables

from ...principals import Principal
from ...rows import locked
from ..compat import addresses_of, belongs_to_another, email_of, folded, replace_address
from ..conf import settings
from ..errors import SameAddress
from ..events import (
    EMAIL_CHANGE_REQUESTED,
    EMAIL_CHANGED,
    EmailChanged,
    EmailChangeRequested,
)
from ..models import EmailDevice, Throttle
from ..signing import CHANGE, address_state, bad_key, demand_state, subject_of
from ..tasks import send_address_changed, send_address_key
from .issuing_tokens import Client
from .signing_up import HOUR, demand_good_address, take_mail_slots
from .throttling import counted_as, take_slot


@transaction.atomic
def request_address(principal: Principal, email: str, *, client: Client, now: datetime) -> None:
    """Have a key mailed to the address that the principal wants; to its owner, word of it instead.

    The caller has made sure of a fresh factor. Raises AddressRefused, SameAddress or TooManyAttempts.
    """
    user = principal.user
    address = folded(email)
    demand_good_address(address)
    if address == folded(email_of(user)):
        raise SameAddress()
    take_slot(Throttle.Scope.MAIL, counted_as(user, ""), limit=settings.mails_per_hour, seconds=HOUR, now=now)
    take_mail_slots(address, client=client, now=now)
    # Whether anybody has the address is looked up when the mail is made, so this takes the same time.
    send_address_key.enqueue(str(user.pk), address)
    EMAIL_CHANGE_REQUESTED.emit(EmailChangeRequested(user_id=str(user.pk)), owner=user)


@sensitive_variables("key")
@transaction.atomic
def change_address(principal: Principal, key: str, *, now: datetime) -> None:
    """Take the key from the mail: the new address is the user's and the old one is not.

    The key alone is not enough, it wants the user who asked: whoever owns an address that was mistyped, or
    given on purpose, must neither get somebody's account nor be made part of it by following the mail.
    Sessions go on; keys and codes that were mailed to the old address are dead. Raises InvalidKey.
    """
    subject, wanted = subject_of(CHANGE, key, max_age=settings.email_change_seconds)
    user_id, _, address = subject.partition(":")
    if user_id != str(principal.user.pk):
        raise bad_key()
    user = locked(get_user_model()._default_manager.all(), principal.user.pk)
    demand_state(CHANGE, wanted, address_state(user, addresses_of(user)))
    former = email_of(user)
    if not _replaced(user, address):
        raise bad_key()
    EmailDevice.objects.filter(user=user).update(digest="")
    if former:
        send_address_changed.enqueue(former)
    EMAIL_CHANGED.emit(EmailChanged(user_id=str(user.pk)), owner=user)


def _replaced(user: Any, address: str) -> bool:
    if belongs_to_another(user, address):
        return False
    try:
        with transaction.atomic():
            return replace_address(user, address)
    except IntegrityError:
        # Somebody else was faster, or signed up with it where the user model has each address once.
        return False

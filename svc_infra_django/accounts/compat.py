"""django-allauth, and all that we ask of it.

`EmailAddress` says who owns which address; the account adapter says which addresses and passwords are
taken and what a new user looks like, so a project's own adapter is honoured. Nothing private is used.
"""

from __future__ import annotations

from string import ascii_uppercase
from types import SimpleNamespace
from typing import Any

from allauth.account import signals
from allauth.account.adapter import get_adapter
from allauth.account.models import EmailAddress
from allauth.account.utils import user_email, user_field
from django.apps import apps
from django.conf import settings as django_settings
from django.contrib.auth import get_user_model
from django.contrib.auth.password_validation import get_password_validators, validate_password
from django.core.exceptions import ValidationError
from django.core.validators import validate_email

from .conf import settings

# For projects that name no validators of their own.
VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "CommonPasswordValidator", "NumericPasswordValidator")
]


NAMES = ("first_name", "last_name")
ASCII_LOWER = str.maketrans({letter: letter.lower() for letter in ascii_uppercase})


def folded(address: str) -> str:
    """An e-mail address as it is compared: ASCII letters in lower case, blanks around it gone.

    Unicode is never folded: the Kelvin sign and the dotless i are not k and i.
    """
    return address.strip(" \t\r\n").translate(ASCII_LOWER)


def user_with_address(address: str) -> Any:
    """The one user who logs in by this (folded) address, or None.

    A proven address decides. Otherwise it is whoever has the address on the user itself, then whoever
    waits to prove it; several of a kind are nobody.
    """
    # Both are asked in any case, so that the time does not tell which of them knew the address.
    owned = list(EmailAddress.objects.select_related("user").filter(email=address))
    named = get_user_model()._default_manager.filter(**{f"{_email_field()}__iexact": address})
    # How a database folds Unicode is its own affair; here only ASCII is folded.
    users = {user.pk: user for user in named if folded(email_of(user)) == address}

    for row in owned:
        if row.verified:
            return row.user
    waiting = {row.user_id: row.user for row in owned}
    # Anybody can wait for an address; that must not get in the way of the user who has it from staff.
    trusted = {pk: user for pk, user in users.items() if pk not in waiting}
    found = list((trusted or users | waiting).values())
    return found[0] if len(found) == 1 else None


def users_named(name: str) -> list[Any]:
    """The users with this username or this address, of whatever kind."""
    found = get_user_model()._default_manager.filter(**{get_user_model().USERNAME_FIELD: name})
    by_address = user_with_address(folded(name))
    return [*found, *([by_address] if by_address is not None else [])]


def staff_named(name: str) -> Any:
    """The member of staff with this username, or else with this address; or None."""
    return next((user for user in users_named(name) if getattr(user, "is_staff", False)), None)


def address_is_proven(user: Any, address: str) -> bool:
    """Whether nobody doubts that the (folded) address is the user's.

    Addresses that staff wrote into the user are not doubted; those of people who signed up themselves
    are, until the key from the mail came back.
    """
    return not EmailAddress.objects.filter(user_id=user.pk, email=address, verified=False).exists()


def email_of(user: Any) -> str:
    """The address on the user itself, or an empty string."""
    return getattr(user, _email_field(), "") or ""


def addresses_of(user: Any) -> list[str]:
    """Every address of the user, in a fixed order."""
    rows = EmailAddress.objects.filter(user_id=user.pk).values_list("email", flat=True)
    return sorted({email_of(user), *rows})


def locked_user(pk: Any) -> Any:
    """The user as they are now, locked until the transaction ends, or None.

    Raises ValueError or ValidationError for what is no key of a user.
    """
    return get_user_model()._default_manager.select_for_update().filter(pk=pk).first()


def may_have_a_first_password(user: Any) -> bool:
    """Whether the account has no password, is used by a provider, and the project lets it have one."""
    if user.has_usable_password() or not settings.first_passwords:
        return False
    if not apps.is_installed("allauth.socialaccount"):
        return False
    # Its app may be missing, and then its models must not be imported.
    from allauth.socialaccount.models import SocialAccount

    return bool(SocialAccount.objects.filter(user_id=user.pk).exists())


def waiting_address(address: str) -> EmailAddress | None:
    """The row of a (folded) address that somebody signed up with, and that nobody has proven or used."""
    user = user_with_address(address)
    # Not every user model knows staff.
    if user is None or getattr(user, "is_staff", False) or user.last_login is not None or not user.is_active:
        return None
    return (
        EmailAddress.objects.select_related("user").filter(user=user, email=address, verified=False).first()
    )


def locked_address(pk: str) -> EmailAddress | None:
    """The row and its user, as they are now, locked until the transaction ends."""
    rows = EmailAddress.objects.select_for_update(of=("self", "user")).select_related("user")
    return rows.filter(pk=pk).first() if pk.isdecimal() else None


def unproven_address(user: Any, address: str) -> EmailAddress | None:
    """The user's row for a (folded) address, if it still has to be proven."""
    return EmailAddress.objects.filter(user_id=user.pk, email=address, verified=False).first()


def is_taken(address: str) -> bool:
    """Whether the (folded) address is anybody's, proven or not."""
    return user_with_address(address) is not None or EmailAddress.objects.filter(email=address).exists()


def belongs_to_another(user: Any, address: str) -> bool:
    """Whether the (folded) address is somebody else's. Who only waits to prove it does not have it yet."""
    owner = user_with_address(address)
    return owner is not None and owner.pk != user.pk and waiting_address(address) is None


def stored_address(user: Any, address: str) -> str:
    """The address as it is stored: mail goes there, not to what a stranger typed."""
    row = EmailAddress.objects.filter(user_id=user.pk, email=address).first()
    return row.email if row is not None else email_of(user)


def new_user(address: str, password: str) -> Any:
    """Make a user as the project's adapter makes them, with an address still to be proven."""
    adapter = get_adapter()
    form = SimpleNamespace(cleaned_data={"email": address, "password1": password})
    user = adapter.save_user(None, adapter.new_user(None), form)
    EmailAddress.objects.create(user=user, email=address, primary=True, verified=False)
    return user


def new_federated_user(address: str, names: dict[str, str]) -> Any:
    """Make a user as the project's adapter makes them, without a password; the (folded) address is proven.

    An empty address is no address.
    """
    adapter = get_adapter()
    user = adapter.new_user(None)
    user.set_unusable_password()
    user_email(user, address)
    for name in NAMES:
        user_field(user, name, names.get(name, ""))
    adapter.populate_username(None, user)
    user.save()
    if address:
        EmailAddress.objects.create(user=user, email=address, primary=True, verified=True)
    return user


def fill_names(user: Any, names: dict[str, str]) -> None:
    """Give the user the names that they lack; what they are called already stays."""
    missing = [name for name in NAMES if names.get(name) and getattr(user, name, None) == ""]
    for name in missing:
        user_field(user, name, names[name])
    if missing:
        user.save(update_fields=missing)


def address_is_required() -> bool:
    """Whether the project's user model has no users without an address."""
    model = get_user_model()
    return _email_field() == model.USERNAME_FIELD


def mark_proven(address: EmailAddress) -> bool:
    """The address is its user's; False if it is proven to be another's."""
    if not address.set_verified():
        return False
    address.set_as_primary(conditional=True)
    signals.email_confirmed.send(sender=EmailAddress, request=None, email_address=address)
    return True


def replace_address(user: Any, address: str) -> bool:
    """The (folded) address, which is proven, takes the place of the user's; False if it is another's."""
    former = EmailAddress.objects.filter(user_id=user.pk, email__in={email_of(user), folded(email_of(user))})
    old = former.first()
    row, _ = EmailAddress.objects.get_or_create(user_id=user.pk, email=address)
    row.user = user
    if not row.set_verified():
        return False
    row.set_as_primary()
    former.exclude(pk=row.pk).delete()
    signals.email_confirmed.send(sender=EmailAddress, request=None, email_address=row)
    signals.email_changed.send(
        sender=EmailAddress, request=None, user=user, from_email_address=old, to_email_address=row
    )
    return True


def check_address(address: str) -> None:
    """Raise Django's ValidationError for an address that nobody may sign up with.

    Only ASCII is taken: letters that look alike would make addresses that look alike. Mailers do not agree
    on whose address a quoted name, an encoded word (RFC 2047) or a number for the host is, so nobody has one.
    """
    if not address.isascii():
        raise ValidationError("Only ASCII is accepted; write an international domain in its xn-- form.")
    if '"' in address or "=?" in address or "@[" in address:
        raise ValidationError("Write it without quotes, encoded words and numbers for the host.")
    validate_email(address)
    get_adapter().clean_email(address)


def check_password_rules(password: str, user: Any) -> None:
    """Raise Django's ValidationError for a password that breaks the project's rules, or ours."""
    if len(password) < settings.password_min_length:
        raise ValidationError(f"Use at least {settings.password_min_length} characters.")
    if not django_settings.AUTH_PASSWORD_VALIDATORS:
        validate_password(password, user, get_password_validators(VALIDATORS))
    get_adapter().clean_password(password, user=user)


def _email_field() -> str:
    return get_user_model().get_email_field_name()

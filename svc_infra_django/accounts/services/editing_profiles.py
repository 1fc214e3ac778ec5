"""What people may change of themselves: the fields of the project's user model that it names for that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db import IntegrityError, models, transaction

from ...errors import FieldProblem
from ...rows import locked
from ..conf import settings
from ..errors import ProfileRefused
from ..events import PROFILE_CHANGED, ProfileChanged

TEXT = ("CharField", "TextField", "SlugField")
NUMBERS = tuple(
    f"{size}IntegerField" for size in ("", "Small", "Big", "Positive", "PositiveSmall", "PositiveBig")
)
KINDS = (*TEXT, *NUMBERS, "BooleanField", "DateField")

# Who somebody is and what they may is not theirs to say; nor is what `auth/me` says of a request.
KEPT = frozenset(
    (
        *("username", "email", "password", "is_active", "is_staff", "is_superuser"),
        *("last_login", "date_joined", "id", "tenant", "method", "amr", "auth_time"),
    )
)


def profile_fields() -> list[Any]:
    """The fields of `profile_fields` that the user model has and that may be changed."""
    fields = {field.name: field for field in get_user_model()._meta.concrete_fields}
    return [
        fields[name] for name in settings.profile_fields if name in fields and may_be_edited(fields[name])
    ]


def may_be_edited(field: models.Field[Any, Any]) -> bool:
    """Whether the field is text, a number, a date or a yes or no, and says nothing of a user's rights."""
    model = get_user_model()
    is_kept = field.name in {*KEPT, model.USERNAME_FIELD, model.get_email_field_name()}
    is_plain = field.get_internal_type() in KINDS and not field.primary_key
    return is_plain and field.editable and not is_kept


@transaction.atomic
def edit_profile(user: Any, changes: Mapping[str, Any]) -> Any:
    """Write what changes into the user, and give them as they are then.

    Raises ProfileRefused for what the user model refuses, and ValueError for a field that is not theirs.
    """
    alien = changes.keys() - {field.name for field in profile_fields()}
    if alien:
        raise ValueError(f"Nobody changes {', '.join(sorted(alien))} of themselves.")
    present = locked(get_user_model()._default_manager.all(), user.pk)
    changed = [name for name, value in changes.items() if getattr(present, name) != value]
    for name in changed:
        setattr(present, name, changes[name])
    if changed:
        _save(present, changed)
        PROFILE_CHANGED.emit(ProfileChanged(user_id=str(present.pk), fields=changed), owner=present)
    return present


def _save(user: Any, changed: list[str]) -> None:
    try:
        user.full_clean(exclude={field.name for field in user._meta.fields} - set(changed))
        with transaction.atomic():
            user.save(update_fields=changed)
    except ValidationError as error:
        raise ProfileRefused(errors=list(_problems(error))) from None
    except IntegrityError:
        # Somebody else has it since a moment ago.
        raise ProfileRefused() from None


def _problems(error: ValidationError) -> Any:
    for name, texts in error.message_dict.items():
        pointer = "/body" if name == NON_FIELD_ERRORS else f"/body/{name}"
        for text in texts:
            yield FieldProblem(pointer, "profile_refused", text)

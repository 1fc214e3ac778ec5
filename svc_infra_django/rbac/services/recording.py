"""What was changed and by whom, in a row of the same transaction, from which every process learns of it."""

from __future__ import annotations

from typing import Any

from ..models import RoleChange
from .deciding import EVERYWHERE, Scope
from .remembering import forget


def record(kind: RoleChange.Kind, *, user: Any = None, scope: Scope = EVERYWHERE, **told: Any) -> RoleChange:
    """Write the row and forget the rights that it changes: the user's, or everybody's if it names none.

    The rest is as `RoleChange.objects.append` takes it.
    """
    change = RoleChange.objects.append(kind, user=user, **scope._asdict(), **told)
    forget(user, change)
    return change

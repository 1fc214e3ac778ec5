"""What was changed and by whom, in a row of the same transaction, from which every process learns of it."""

from __future__ import annotations

from typing import Any

from ...observability.context import request_id
from ...principals import Principal
from ..models import Role, RoleChange
from .checking import user_of
from .deciding import EVERYWHERE, Scope
from .remembering import forget


def record(
    kind: RoleChange.Kind,
    *,
    role: Role | None = None,
    user: Any = None,
    group: Any = None,
    scope: Scope = EVERYWHERE,
    actor: Any = None,
    actor_key: str = "",
    **fields: Any,
) -> RoleChange:
    """Write the row and forget the rights that it changes: the user's, or everybody's if it names none.

    `actor_key` is for changes that Django makes, and of which only a signal tells: whoever is signed in.
    """
    change = RoleChange.objects.create(
        kind=kind,
        tenant=scope.tenant,
        object_type=scope.object_type,
        object_id=scope.object_id,
        user_key="" if user is None else str(user.pk),
        group="" if group is None else group.name,
        role_id=None if role is None else role.pk,
        role="" if role is None else role.name,
        actor_key=actor_key if actor is None else str(user_of(actor).pk),
        method=actor.method if isinstance(actor, Principal) else "",
        credential_id=actor.credential_id if isinstance(actor, Principal) else "",
        request_id=request_id(),
        **fields,
    )
    forget(user, change)
    return change

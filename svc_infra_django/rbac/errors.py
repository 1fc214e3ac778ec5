"""What the rbac app refuses, in the words its caller reads."""

from __future__ import annotations

from ..errors import ConflictError, NotFoundError, PermissionDeniedError


class BeyondOwnRights(PermissionDeniedError):
    """Nobody gives what they lack: you do not hold all that this role permits there, or not for that long."""

    code = "rbac.beyond_own_rights"


class NotForDelegates(PermissionDeniedError):
    """An API key cannot change roles or grants; sign in as a user."""

    code = "rbac.not_for_delegates"


class RoleUnknown(NotFoundError):
    """There is no such role in this tenant."""

    code = "rbac.role_unknown"


class NotGranted(NotFoundError):
    """This user does not have this role in this tenant."""

    code = "rbac.not_granted"


class RoleOfAnotherTenant(ConflictError):
    """This role belongs to another tenant."""

    code = "rbac.role_of_another_tenant"


class RoleExists(ConflictError):
    """This tenant has a role of that name already."""

    code = "rbac.role_exists"


class RoleInUse(ConflictError):
    """Somebody has this role; withdraw it from everybody first."""

    code = "rbac.role_in_use"


class RoleRetired(ConflictError):
    """The settings declare this role no more; it can be withdrawn, not granted."""

    code = "rbac.role_retired"


class RoleDeclared(ConflictError):
    """This role is declared in the project's settings; change it there."""

    code = "rbac.role_declared"


class RoleCycle(ConflictError):
    """A role cannot include itself, not even through others."""

    code = "rbac.role_cycle"


class RoleIncluded(ConflictError):
    """Another role includes this one; change that first."""

    code = "rbac.role_included"

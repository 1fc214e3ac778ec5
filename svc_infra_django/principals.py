"""Who asks, through which credential, and what that credential may do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.contrib import auth
from django.core.signals import setting_changed
from django.utils.functional import SimpleLazyObject, empty

TEST_TENANT = "test:"

ANSWERS = "_svc_answers"
"""Where a backend with `verdict` may leave with a user what it answered of late: an object with `verdicts` by
permission, and `fresh_until` on the monotonic clock, which it sets back when they are true no more."""


def tenant_of_tests(tenant: str) -> str:
    """Where a test credential of `tenant` acts: a tenant of its own, so that its rows are never live ones."""
    return TEST_TENANT + tenant


# Not frozen, as one is made at every request, and to freeze it takes longer than the rest of the making.
@dataclass(slots=True, unsafe_hash=True)
class Principal:
    """The identity behind a request, whatever credential brought it. It is never changed.

    `scopes` narrows what the user may do: None means everything the user may, a set means only what
    both the set and the user's own permissions allow.
    """

    user: Any
    method: str
    """How the caller proved it: `session`, `jwt` or `api_key`."""

    credential_id: str = ""
    """Identifies the session or key in logs and audits; never the secret itself."""

    tenant: str = ""
    scopes: frozenset[str] | None = None
    amr: tuple[str, ...] = ()
    """Authentication methods used (RFC 8176), such as `pwd` and `otp`."""

    auth_time: datetime | None = None
    _answers: Any = field(default=None, init=False, compare=False, repr=False)

    def can(self, permission: str, obj: Any = None) -> bool:
        """Whether credential and user both allow `permission` (`app_label.codename`), to `obj` if given.

        What is allowed everywhere is allowed for every object. A credential of one tenant reaches no object
        of another. Nobody anonymous or inactive may do anything, whatever an authentication backend says.
        """
        answers = self._answers
        # For as long as what roles said is believed, so is that the user is active.
        if (
            obj is None
            and answers is not None
            and answers.fresh_until > monotonic()
            and answers.verdicts.get(permission)
        ):
            return True
        user, scopes = self.user, self.scopes
        if scopes is not None and not covered(permission, scopes):
            return False
        if obj is None and not self.tenant:
            # The commonest question, without building every backend anew and without reading a user who is
            # not read yet. Whoever is inactive gets no verdict.
            first = _deciders.get(type(user)) or _decider(type(user))
            verdict = first(user, permission)
            if verdict and scopes is None:
                self._answers = user.__dict__.get(ANSWERS)
            if verdict is not None:
                return verdict or bool(user.is_superuser)
        return self._can(permission, obj)

    def _can(self, permission: str, obj: Any) -> bool:
        user = self.user
        if not (user.is_authenticated and user.is_active):
            return False
        if self.tenant and obj is not None:
            home = getattr(obj, "tenant", "")
            # Rows without a tenant are live ones: a test credential reaches none of them.
            if home != self.tenant and (self.is_test or (isinstance(home, str) and home != "")):
                return False
        # Backends that know tenants read `.tenant` of the object; the rest answer False to a stranger.
        here = self if self.tenant else None
        places = (here,) if obj is None else (here, obj)
        verdicts = [_decider(type(user))(user, permission, place) for place in places]
        # As Django's loop and the denials below would have it.
        if False in verdicts or verdicts[-1] is True:
            return False not in verdicts or bool(user.is_superuser)
        about = places[-1]
        if not (user.has_perm(permission) or (about is not None and user.has_perm(permission, about))):
            return False
        return not any(
            backend.denies(user, permission, place)
            for backend in auth.get_backends()
            if hasattr(backend, "denies")
            for place in places
        )

    acan = sync_to_async(can)

    @property
    def is_test(self) -> bool:
        """True for a credential of the test environment beside the live one: see `tenant_of_tests`."""
        return self.tenant.startswith(TEST_TENANT)

    @property
    def acr(self) -> str:
        """How well the user was authenticated: `mfa` by two factors, `sfa` by one."""
        return "mfa" if "mfa" in self.amr else "sfa"

    @property
    def bounded_user(self) -> Any:
        """The user as far as the credential goes: for code that asks the user, and not the principal."""
        return self.user if self.scopes is None else BoundedUser(self)

    @property
    def is_delegated(self) -> bool:
        """True for keys and other credentials that act for a user without being the user."""
        return self.method == "api_key"


if TYPE_CHECKING:
    _Lazy = SimpleLazyObject[Any]
else:
    # Generic for the type checker only.
    _Lazy = SimpleLazyObject


class LazyUser(_Lazy):
    """A user who is read from the database when more is asked than the key and whether they are active.

    Whoever makes one has made sure a moment ago that the user is there and active.
    """

    _wrapped = empty
    is_authenticated = True
    is_anonymous = False
    # Django's own, in Python, hides the special methods from `hasattr`, and is asked for every attribute.
    __getattribute__ = object.__getattribute__

    def __init__(self, pk: Any, read: Callable[[], Any]) -> None:
        # Past Django's `__setattr__`: one is made at every request.
        values = self.__dict__
        values["pk"], values["is_active"], values["_setupfunc"] = pk, True, read

    def _setup(self) -> None:
        self._wrapped = self._setupfunc()
        del self.__dict__["pk"], self.__dict__["is_active"]  # from now on the user is asked


class BoundedUser(_Lazy):
    """The user behind a credential with scopes: no staff, no superuser, and allowed what its principal is."""

    is_staff = is_superuser = False

    def __init__(self, principal: Principal) -> None:
        object.__getattribute__(self, "__dict__").update(_wrapped=principal.user, _principal=principal)

    def has_perm(self, perm: str, obj: Any = None) -> bool:
        """As the user's own, within the scopes."""
        allowed: bool = self._principal.can(perm, obj)
        return allowed

    def has_perms(self, perm_list: Iterable[str], obj: Any = None) -> bool:
        """As the user's own, within the scopes."""
        return all(self.has_perm(perm, obj) for perm in perm_list)

    def has_module_perms(self, app_label: str) -> bool:
        """As the user's own, if a scope names the app."""
        named = any(scope.partition(".")[0] in (app_label, "*") for scope in self._principal.scopes)
        return named and self._wrapped.has_module_perms(app_label)

    def get_all_permissions(self, obj: Any = None) -> set[str]:
        """As the user's own, within the scopes."""
        return {perm for perm in self._wrapped.get_all_permissions(obj) if self.has_perm(perm, obj)}

    ahas_perm = sync_to_async(has_perm)
    ahas_perms = sync_to_async(has_perms)
    ahas_module_perms = sync_to_async(has_module_perms)
    aget_all_permissions = sync_to_async(get_all_permissions)


def loaded(user: Any) -> Any:
    """The user, read now if it was not yet: for code on an event loop, which could not read it later."""
    if isinstance(user, LazyUser) and user._wrapped is empty:
        user._setup()
    return user


Verdict = Callable[..., bool | None]

_deciders: dict[type, Verdict] = {}


def _decider(kind: type) -> Verdict:
    """How the project's first backend decides about users of this type, if nothing else could say otherwise.

    It must have `verdict` and `denies`, no backend behind it may deny, and the users must answer permission
    questions as Django's own do. Else this is a function that leaves all to the others.
    """
    if kind not in _deciders:
        from django.contrib.auth.models import PermissionsMixin

        model: Any = auth.get_user_model()
        first, *others = auth.get_backends()
        is_plain = getattr(model, "has_perm", None) is PermissionsMixin.has_perm
        decides = hasattr(first, "denies") and not any(hasattr(backend, "denies") for backend in others)
        usual: Verdict = getattr(first, "verdict", _no_verdict)
        _deciders[kind] = usual if is_plain and decides and kind in (model, LazyUser) else _no_verdict
    return _deciders[kind]


def _no_verdict(user: Any, permission: str, obj: Any = None) -> None:
    return None


def _forget_deciders(*, setting: str, **_: Any) -> None:
    if setting in ("AUTHENTICATION_BACKENDS", "AUTH_USER_MODEL"):
        _deciders.clear()


setting_changed.connect(_forget_deciders, dispatch_uid="svc_infra_django.principals")


PATTERN = re.compile(r"\*|[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_-]+)*\.(\*|[A-Za-z0-9_-]+)")
"""What a permission or a wildcard over permissions looks like: `orders.add_order`, `orders.*`, `*`."""

PATTERN_LENGTH = 200


def is_pattern(text: str) -> bool:
    """Whether `text` is a permission or a wildcard, and short enough to store."""
    return len(text) <= PATTERN_LENGTH and PATTERN.fullmatch(text) is not None


def covered(permission: str, patterns: Iterable[str]) -> bool:
    """Whether one of `patterns` is the permission itself or a wildcard above it.

    `*` covers everything and `svc_webhooks.*` every permission of that app; a star stands for whole
    dotted parts at the end, never for a piece of a word.
    """
    if isinstance(patterns, str):
        # Its characters would be the patterns, and the star of "orders.*" would cover everything.
        raise TypeError("Pass a collection of patterns, not one string.")
    return any(
        pattern in (permission, "*") or (pattern.endswith(".*") and permission.startswith(pattern[:-1]))
        for pattern in patterns
    )

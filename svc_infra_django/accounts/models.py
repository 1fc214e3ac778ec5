"""Sessions, their tokens, second factors, and counts of attempts. The user model is the project's own."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from secrets import token_bytes, token_hex
from typing import Any, ClassVar

from django.conf import settings as django_settings
from django.db import models, transaction
from django.utils import timezone
from django_otp.models import Device, ThrottlingMixin

from ..chains import ChainedQuerySet, ChainedRow, ChainHead
from ..principals import Principal
from ..rows import id_field, tenant_field
from ..sealing import seal, unseal
from .conf import settings
from .jwt import Key, made_key, new_private
from .querysets import (
    AuthSessionQuerySet,
    MFAChallengeQuerySet,
    RecoveryCodeQuerySet,
    RefreshTokenQuerySet,
)
from .signing import has_password_state, keyed_states
from .totp import KEY_BYTES, MAILED_CODE, matching_step, new_mailed_code, step_at


def _owner() -> models.ForeignKey[Any, Any]:
    # Without a name for the way back: other apps have devices that are called as ours are.
    return models.ForeignKey(django_settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")


def lacks_factor(user: Any, methods: Collection[str]) -> bool:
    """Whether the user is staff, who must prove two factors, and `methods` (RFC 8176) are one."""
    is_staff = getattr(user, "is_staff", False) or getattr(user, "is_superuser", False)
    return settings.staff_second_factor and is_staff and "mfa" not in methods


def methods(amr: str) -> tuple[str, ...]:
    """The authentication methods that a column names, with blanks between."""
    return tuple(amr.split())


def without_device(methods: Iterable[str]) -> tuple[str, ...]:
    """What a login still has of its methods when its user has no second factor any more."""
    return tuple(method for method in methods if method not in ("otp", "mfa"))


def stands(session: Any, owner: Any) -> bool:
    """Whether the columns of a session and its owner, objects or rows, let it stand: a part of `is_good`."""
    return session.revoked_at is None and has_password_state(owner, session.password_state)


def may_speak(owner: Any, methods: Collection[str], *, until: datetime, now: datetime) -> bool:
    """Whether a session that stands `until` then speaks for its owner now: the other part of `is_good`."""
    return until > now and owner.is_active and not lacks_factor(owner, methods)


class AuthSession(models.Model):
    """One login on one device: the family of its refresh tokens and what its access tokens stand on, or a
    session of Django's in a browser, with its key sealed."""

    class Reason(models.TextChoices):
        LOGOUT = "logout", "logged out"
        LOGOUT_ALL = "logout_all", "logged out everywhere"
        PASSWORD = "password", "password changed"  # a reason, not a password
        MFA = "mfa", "second factor changed"
        PROVIDER = "provider", "provider disconnected"
        REUSE = "reuse", "refresh token reused"
        ADMIN = "admin", "ended by staff"

    id = id_field()
    owner = _owner()
    tenant = tenant_field()
    amr = models.CharField(
        "methods", max_length=64, help_text="Authentication methods (RFC 8176), with blanks between."
    )
    auth_time = models.DateTimeField("authenticated at")
    password_state = models.CharField(max_length=64, editable=False)
    created_at = models.DateTimeField()
    refreshed_at = models.DateTimeField()
    idle_expires_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True, blank=True)
    revoked_for = models.CharField(max_length=16, choices=Reason, blank=True)
    user_agent = models.CharField(max_length=255, blank=True)
    client_address = models.GenericIPAddressField(null=True, blank=True)
    # NULL where there is none, because each is unique.
    browser_digest = models.CharField(max_length=64, null=True, editable=False)  # noqa: DJ001
    browser_key = models.TextField(editable=False, blank=True)

    objects = AuthSessionQuerySet.as_manager()

    class Meta:
        verbose_name = "session"
        permissions = [("introspect_token", "Can ask what a token is worth")]
        ordering = ["-created_at", "-id"]
        constraints = [
            models.CheckConstraint(
                name="svc_accounts_session_revoked_for_a_reason",
                condition=models.Q(revoked_at=None, revoked_for="")
                | models.Q(revoked_at__isnull=False) & ~models.Q(revoked_for=""),
            ),
            models.CheckConstraint(
                name="svc_accounts_session_idle_before_end",
                condition=models.Q(idle_expires_at__lte=models.F("expires_at")),
            ),
            models.UniqueConstraint(fields=["browser_digest"], name="svc_accounts_session_browser"),
        ]
        indexes = [
            models.Index(fields=["owner", "-created_at", "-id"], name="svc_accounts_session_owner"),
            models.Index(fields=["idle_expires_at"], name="svc_accounts_session_idle"),
            models.Index(
                fields=["revoked_at"],
                name="svc_accounts_session_revoked",
                condition=models.Q(revoked_at__isnull=False),
            ),
            models.Index(
                fields=["owner"],
                name="svc_accounts_session_open",
                condition=models.Q(revoked_at=None),
            ),
        ]

    def __str__(self) -> str:
        return str(self.pk)

    @property
    def kind(self) -> str:
        """`browser` for a session of Django's, which has a cookie and no tokens; else `tokens`."""
        return "browser" if self.browser_digest else "tokens"

    def is_of(self, principal: Principal) -> bool:
        """Whether the principal came with this session."""
        if principal.method == "session":
            return (self.browser_digest or "").startswith(principal.credential_id)
        return str(self.pk) == principal.credential_id

    @property
    def methods(self) -> tuple[str, ...]:
        """Authentication methods used at login (RFC 8176)."""
        return methods(self.amr)

    @property
    def acr(self) -> str:
        """How well its user was authenticated, as `Principal.acr` says it."""
        return Principal(self.owner, method="jwt", amr=self.methods).acr

    def is_good(self, *, now: datetime) -> bool:
        """Whether the session still speaks for its user: alive, user active, password and factors right."""
        # The idle end is never later than the absolute one.
        return stands(self, self.owner) and may_speak(
            self.owner, self.methods, until=self.idle_expires_at, now=now
        )


class RefreshToken(models.Model):
    """One member of a session's family of refresh tokens; only its digest is kept."""

    id = id_field()
    session = models.ForeignKey(AuthSession, on_delete=models.CASCADE, related_name="refresh_tokens")
    # A family goes as a whole, with its session: nothing to look for token by token.
    parent = models.OneToOneField("self", null=True, on_delete=models.DO_NOTHING, related_name="successor")
    digest = models.CharField(max_length=64, editable=False)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True)

    objects = RefreshTokenQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["digest"], name="svc_accounts_refreshtoken_digest")]

    def __str__(self) -> str:
        return str(self.pk)


class SigningKey(models.Model):
    """A key that signs access tokens, or will, or did. The private part is sealed.

    next -> active -> retiring -> deleted. The next key is published before it signs, so that whoever
    keeps our key set has it by then; a retiring one verifies until the last token it signed is over.
    """

    class State(models.TextChoices):
        NEXT = "next", "published, signs none yet"
        ACTIVE = "active", "signs"
        RETIRING = "retiring", "verifies what it signed"

    id = id_field()
    kid = models.CharField("key id", max_length=64)
    algorithm = models.CharField(max_length=8)
    state = models.CharField(max_length=8, choices=State)
    sealed_private = models.TextField(editable=False)
    created_at = models.DateTimeField()
    activated_at = models.DateTimeField(null=True)
    retires_at = models.DateTimeField(null=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["-created_at", "-id"]
        constraints = [
            models.UniqueConstraint(fields=["kid"], name="svc_accounts_signingkey_kid"),
            models.UniqueConstraint(
                fields=["state"],
                name="svc_accounts_signingkey_one_each",
                condition=models.Q(state__in=["next", "active"]),
            ),
            models.CheckConstraint(
                name="svc_accounts_signingkey_times",
                condition=models.Q(state="next", activated_at=None, retires_at=None)
                | models.Q(state="active", activated_at__isnull=False, retires_at=None)
                | models.Q(state="retiring", activated_at__isnull=False, retires_at__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return self.kid

    @classmethod
    def make(cls, algorithm: str, *, state: State, now: datetime) -> SigningKey:
        """A new key, sealed and stored."""
        kid = token_hex(8)
        return cls.objects.create(
            kid=kid,
            algorithm=algorithm,
            state=state,
            sealed_private=seal(new_private(algorithm), context=_signing_context(kid)),
            created_at=now,
            activated_at=now if state == cls.State.ACTIVE else None,
        )

    def opened(self) -> Key:
        """The key itself."""
        private = unseal(self.sealed_private, context=_signing_context(self.kid))
        return made_key(self.kid, self.algorithm, private)


def _signing_context(kid: str) -> str:
    return f"accounts.signing_key:{kid}"


class AuditEvent(ChainedRow):
    """Something that matters to security: who, what, where, in which request. Never a secret."""

    name = models.CharField(max_length=100)
    subject = models.CharField(max_length=64, blank=True, help_text="Id of the user whom it is about.")
    actor = models.CharField(max_length=64, blank=True, help_text="Id of the user who did it, if signed in.")
    tenant = tenant_field()
    client_address = models.GenericIPAddressField(null=True, blank=True)
    request_id = models.CharField(max_length=128, blank=True)
    data = models.JSONField(default=dict)

    objects = ChainedQuerySet.as_manager()

    class Meta(ChainedRow.Meta):
        verbose_name = "audit event"
        ordering: ClassVar[list[str]] = ["-created_at", "-id"]
        indexes: ClassVar[list[Any]] = [
            *ChainedRow.Meta.indexes,
            models.Index(fields=["-created_at", "-id"], name="svc_accounts_audit_latest"),
            models.Index(fields=["subject", "-created_at", "-id"], name="svc_accounts_audit_subject"),
            models.Index(fields=["name", "-created_at", "-id"], name="svc_accounts_audit_name"),
        ]

    def __str__(self) -> str:
        return f"{self.name} {self.pk}"


class AuditHead(ChainHead):
    """The end of the chain of audit events."""

    chain_of = AuditEvent

    class Meta(ChainHead.Meta):
        pass


class RepeatedEvent(models.Model):
    """An event that came again within a minute of its row: counted, and told when the minute is over."""

    digest = models.CharField(max_length=64, editable=False)
    told = models.JSONField(help_text="What the row says, where it came from left out.")
    count = models.PositiveIntegerField(default=0)
    ends_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["digest"], name="svc_accounts_repeatedevent_digest")]
        indexes = [models.Index(fields=["ends_at"], name="svc_accounts_repeated_ends")]

    def __str__(self) -> str:
        return f"{self.told['name']} {self.count}"

    @transaction.atomic
    def tell(self, *, now: datetime) -> None:
        """Write an audit row with the count, once, and forget it."""
        # Of several who would tell it, the one does who deleted it.
        if RepeatedEvent.objects.filter(pk=self.pk).delete()[0] and self.count:
            data = {**self.told["data"], "repeated": self.count}
            AuditEvent.objects.create(**{**self.told, "data": data}, created_at=now)


class MFAChallenge(models.Model):
    """A login between password and code. Its token is good at the second step and nowhere else."""

    id = id_field()
    owner = _owner()
    tenant = tenant_field()
    digest = models.CharField(max_length=64, editable=False)
    amr = models.CharField("methods", max_length=64)
    password_state = models.CharField(max_length=64, editable=False)
    tries = models.PositiveSmallIntegerField(default=0)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True)

    objects = MFAChallengeQuerySet.as_manager()

    class Meta:
        verbose_name = "MFA challenge"
        constraints = [models.UniqueConstraint(fields=["digest"], name="svc_accounts_mfachallenge_digest")]
        indexes = [models.Index(fields=["expires_at"], name="svc_accounts_challenge_expires")]

    def __str__(self) -> str:
        return str(self.pk)

    @property
    def methods(self) -> tuple[str, ...]:
        """Authentication methods used so far (RFC 8176)."""
        return methods(self.amr)


class OAuthFlow(models.Model):
    """A login that is away at a provider. Its state brings it back once, and to the same browser.

    With an owner it is no login: it connects the provider to their account.
    """

    id = id_field()
    provider = models.CharField(max_length=200)
    digest = models.CharField(max_length=64, editable=False)
    browser_digest = models.CharField(max_length=64, editable=False)
    sealed_secrets = models.TextField(editable=False)
    target = models.CharField(max_length=2000, blank=True)
    owner = models.ForeignKey(
        django_settings.AUTH_USER_MODEL, null=True, on_delete=models.CASCADE, related_name="+"
    )
    password_state = models.CharField(max_length=64, blank=True, editable=False)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()

    class Meta:
        verbose_name = "login at a provider"
        constraints = [models.UniqueConstraint(fields=["digest"], name="svc_accounts_oauthflow_digest")]
        indexes = [models.Index(fields=["expires_at"], name="svc_accounts_oauthflow_expires")]

    def __str__(self) -> str:
        return str(self.pk)


class OAuthHandoff(models.Model):
    """A login that has ended at a front end, which exchanges its code for tokens, once."""

    id = id_field()
    owner = _owner()
    digest = models.CharField(max_length=64, editable=False)
    state_digest = models.CharField(max_length=64, editable=False)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()

    class Meta:
        verbose_name = "login at a front end"
        constraints = [models.UniqueConstraint(fields=["digest"], name="svc_accounts_oauthhandoff_digest")]
        indexes = [models.Index(fields=["expires_at"], name="svc_accounts_handoff_expires")]

    def __str__(self) -> str:
        return str(self.pk)


class TOTPDevice(ThrottlingMixin, Device):  # type: ignore[misc]  # django-otp is untyped
    """An authenticator app. The key is sealed; a step that was used, and any before it, is used up."""

    user = _owner()
    sealed_key = models.TextField(editable=False)
    last_step = models.BigIntegerField(default=-1, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    last_used_at = models.DateTimeField(null=True, editable=False)

    class Meta(Device.Meta):  # type: ignore[misc]  # django-otp is untyped
        verbose_name = "authenticator app"

    @classmethod
    def begin(cls, user: Any, *, name: str, now: datetime) -> TOTPDevice:
        """A new device with a fresh key of 160 bits, not confirmed yet. It replaces one still waiting."""
        cls.objects.filter(user=user, confirmed=False).delete()
        sealed = seal(token_bytes(KEY_BYTES).hex(), context=_key_context(user.pk))
        device: TOTPDevice = cls.objects.create(
            user=user, name=name, confirmed=False, sealed_key=sealed, created_at=now
        )
        return device

    @property
    def bin_key(self) -> bytes:
        """The key itself."""
        return bytes.fromhex(unseal(self.sealed_key, context=_key_context(self.user_id)))

    def verify_token(self, token: str) -> bool:
        """Whether `token` is the code of a step that was not used yet; uses it up.

        Call it through `django_otp.verify_token`, which locks the row. A second caller loses even
        without the lock: the step only moves forward.
        """
        allowed, _ = self.verify_is_allowed()
        if not allowed:
            return False
        now = timezone.now()
        step = matching_step(self.bin_key, token, step=step_at(now), after=self.last_step)
        if step is None or not self._move_to(step, now=now):
            self.throttle_increment()
            return False
        return True

    def get_throttle_factor(self) -> float:
        return getattr(django_settings, "OTP_TOTP_THROTTLE_FACTOR", 1)

    def _move_to(self, step: int, *, now: datetime) -> bool:
        moved: int = TOTPDevice.objects.filter(pk=self.pk, last_step__lt=step).update(
            last_step=step, last_used_at=now, throttling_failure_timestamp=None, throttling_failure_count=0
        )
        return moved == 1


class EmailDevice(ThrottlingMixin, Device):  # type: ignore[misc]  # django-otp is untyped
    """The user's mailbox as a second factor: a code is mailed when one is asked for, and is good once."""

    user = _owner()
    digest = models.CharField(max_length=64, blank=True, editable=False)
    expires_at = models.DateTimeField(null=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    last_used_at = models.DateTimeField(null=True, editable=False)

    class Meta(Device.Meta):  # type: ignore[misc]  # django-otp is untyped
        verbose_name = "mailbox"
        verbose_name_plural = "mailboxes"
        constraints = [models.UniqueConstraint(fields=["user"], name="svc_accounts_one_mailbox_a_user")]

    def new_code(self, *, now: datetime) -> str:
        """A fresh code; one that was made before is void. Only a keyed digest is kept."""
        code = new_mailed_code()
        expires_at = now + timedelta(seconds=settings.email_code_seconds)
        EmailDevice.objects.filter(pk=self.pk).update(digest=self._digests(code)[0], expires_at=expires_at)
        return code

    def verify_token(self, token: str) -> bool:
        """Whether `token` is the code that was mailed last; uses it up. Of several callers one wins."""
        allowed, _ = self.verify_is_allowed()
        if not allowed:
            return False
        now = timezone.now()
        if not MAILED_CODE.fullmatch(token) or not self._use(token, now=now):
            self.throttle_increment()
            return False
        return True

    def get_throttle_factor(self) -> float:
        return getattr(django_settings, "OTP_TOTP_THROTTLE_FACTOR", 1)

    def _use(self, code: str, *, now: datetime) -> bool:
        waiting = EmailDevice.objects.filter(pk=self.pk, digest__in=self._digests(code), expires_at__gt=now)
        used: int = waiting.update(
            digest="",
            last_used_at=now,
            throttling_failure_timestamp=None,
            throttling_failure_count=0,
        )
        return used == 1

    def _digests(self, code: str) -> list[str]:
        return keyed_states("accounts.mailed_code", self.pk, code)


def _key_context(user_id: Any) -> str:
    return f"accounts.totp:{user_id}"


class RecoveryCode(models.Model):
    """A code for the day the device is lost: 120 random bits, kept as a digest, good once."""

    id = id_field()
    owner = _owner()
    digest = models.CharField(max_length=64, editable=False)
    created_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True)

    objects = RecoveryCodeQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["digest"], name="svc_accounts_recoverycode_digest")]

    def __str__(self) -> str:
        return str(self.pk)


class Throttle(models.Model):
    """How many attempts one subject made in its window. The subject is a keyed digest."""

    class Scope(models.TextChoices):
        LOGIN = "login", "wrong passwords for an address"
        CLIENT = "client", "wrong passwords from a client"
        PASSWORD = "password", "wrong present passwords"  # the name of a count
        MFA = "mfa", "wrong codes"
        MAIL = "mail", "mails to an address, or asked for by a user"
        RESET = "reset", "mails to an address with a key for a new password"
        CODE = "code", "codes mailed to an address"
        SIGNUP = "signup", "sign-ups and resets from a client"
        OAUTH = "oauth", "logins by providers from a client"
        NOTICE = "notice", "mails about wrong codes, or sent again by a login"

    scope = models.CharField(max_length=16, choices=Scope)
    subject = models.CharField(max_length=64)
    count = models.PositiveIntegerField(default=0)
    started_at = models.DateTimeField()
    ends_at = models.DateTimeField()

    class Meta:
        verbose_name = "count of attempts"
        verbose_name_plural = "counts of attempts"
        ordering: ClassVar[list[str]] = ["-ends_at", "-pk"]
        constraints = [
            models.UniqueConstraint(fields=["subject", "scope"], name="svc_accounts_throttle_subject"),
        ]
        indexes = [models.Index(fields=["ends_at"], name="svc_accounts_throttle_ends")]

    def __str__(self) -> str:
        return f"{self.scope} {self.subject[:12]}"

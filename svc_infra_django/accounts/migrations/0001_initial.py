import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models

import svc_infra_django.identifiers


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="AuditEvent",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=svc_infra_django.identifiers.uuid7,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ("number", models.PositiveBigIntegerField(editable=False, null=True, unique=True)),
                ("previous", models.CharField(blank=True, editable=False, max_length=64)),
                ("digest", models.CharField(editable=False, max_length=64)),
                ("name", models.CharField(max_length=100)),
                (
                    "subject",
                    models.CharField(blank=True, help_text="Id of the user whom it is about.", max_length=64),
                ),
                (
                    "actor",
                    models.CharField(
                        blank=True, help_text="Id of the user who did it, if signed in.", max_length=64
                    ),
                ),
                ("tenant", models.CharField(blank=True, db_index=True, default="", max_length=128)),
                ("client_address", models.GenericIPAddressField(blank=True, null=True)),
                ("request_id", models.CharField(blank=True, max_length=128)),
                ("data", models.JSONField(default=dict)),
            ],
            options={
                "verbose_name": "audit event",
                "ordering": ["-created_at", "-id"],
                "abstract": False,
                "indexes": [
                    models.Index(
                        condition=models.Q(("number", None)),
                        fields=["id"],
                        name="svc_accounts_auditevent_loose",
                    ),
                    models.Index(fields=["-created_at", "-id"], name="svc_accounts_audit_latest"),
                    models.Index(fields=["subject", "-created_at", "-id"], name="svc_accounts_audit_subject"),
                    models.Index(fields=["name", "-created_at", "-id"], name="svc_accounts_audit_name"),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("digest", ""), _negated=True),
                        name="svc_accounts_auditevent_digest",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="AuditHead",
            fields=[
                ("id", models.PositiveSmallIntegerField(default=1, primary_key=True, serialize=False)),
                ("pruned", models.PositiveBigIntegerField(default=0)),
                ("number", models.PositiveBigIntegerField(default=0)),
                ("digest", models.CharField(blank=True, max_length=64)),
                ("seal", models.CharField(blank=True, max_length=64)),
            ],
            options={
                "abstract": False,
                "constraints": [
                    models.CheckConstraint(condition=models.Q(("id", 1)), name="svc_accounts_one_audithead")
                ],
            },
        ),
        migrations.CreateModel(
            name="RepeatedEvent",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("digest", models.CharField(editable=False, max_length=64)),
                ("told", models.JSONField(help_text="What the row says, where it came from left out.")),
                ("count", models.PositiveIntegerField(default=0)),
                ("ends_at", models.DateTimeField()),
            ],
            options={
                "indexes": [models.Index(fields=["ends_at"], name="svc_accounts_repeated_ends")],
                "constraints": [
                    models.UniqueConstraint(fields=("digest",), name="svc_accounts_repeatedevent_digest")
                ],
            },
        ),
        migrations.CreateModel(
            name="AuthSession",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=svc_infra_django.identifiers.uuid7,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("tenant", models.CharField(blank=True, db_index=True, default="", max_length=128)),
                (
                    "amr",
                    models.CharField(
                        help_text="Authentication methods (RFC 8176), with blanks between.",
                        max_length=64,
                        verbose_name="methods",
                    ),
                ),
                ("auth_time", models.DateTimeField(verbose_name="authenticated at")),
                ("password_state", models.CharField(editable=False, max_length=64)),
                ("created_at", models.DateTimeField()),
                ("refreshed_at", models.DateTimeField()),
                ("idle_expires_at", models.DateTimeField()),
                ("expires_at", models.DateTimeField()),
                ("revoked_at", models.DateTimeField(blank=True, null=True)),
                (
                    "revoked_for",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("logout", "logged out"),
                            ("logout_all", "logged out everywhere"),
                            ("password", "password changed"),
                            ("mfa", "second factor changed"),
                            ("provider", "provider disconnected"),
                            ("reuse", "refresh token reused"),
                            ("admin", "ended by staff"),
                        ],
                        max_length=16,
                    ),
                ),
                ("user_agent", models.CharField(blank=True, max_length=255)),
                ("client_address", models.GenericIPAddressField(blank=True, null=True)),
                ("browser_digest", models.CharField(editable=False, max_length=64, null=True)),
                ("browser_key", models.TextField(blank=True, editable=False)),
                (
                    "owner",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "verbose_name": "session",
                "ordering": ["-created_at", "-id"],
                "permissions": [("introspect_token", "Can ask what a token is worth")],
                "indexes": [
                    models.Index(fields=["owner", "-created_at", "-id"], name="svc_accounts_session_owner"),
                    models.Index(fields=["idle_expires_at"], name="svc_accounts_session_idle"),
                    models.Index(
                        condition=models.Q(("revoked_at__isnull", False)),
                        fields=["revoked_at"],
                        name="svc_accounts_session_revoked",
                    ),
                    models.Index(
                        condition=models.Q(("revoked_at", None)),
                        fields=["owner"],
                        name="svc_accounts_session_open",
                    ),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("revoked_at", None), ("revoked_for", "")),
                            models.Q(
                                ("revoked_at__isnull", False), models.Q(("revoked_for", ""), _negated=True)
                            ),
                            _connector="OR",
                        ),
                        name="svc_accounts_session_revoked_for_a_reason",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("idle_expires_at__lte", models.F("expires_at"))),
                        name="svc_accounts_session_idle_before_end",
                    ),
                    models.UniqueConstraint(fields=("browser_digest",), name="svc_accounts_session_browser"),
                ],
            },
        ),
        migrations.CreateModel(
            name="EmailDevice",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "name",
                    models.CharField(help_text="The human-readable name of this device.", max_length=64),
                ),
                ("confirmed", models.BooleanField(default=True, help_text="Is this device ready for use?")),
                (
                    "throttling_failure_timestamp",
                    models.DateTimeField(
                        blank=True,
                        default=None,
                        help_text="A timestamp of the last failed verification attempt. Null if last attempt succeeded.",
                        null=True,
                    ),
                ),
                (
                    "throttling_failure_count",
                    models.PositiveIntegerField(default=0, help_text="Number of successive failed attempts."),
                ),
                ("digest", models.CharField(blank=True, editable=False, max_length=64)),
                ("expires_at", models.DateTimeField(editable=False, null=True)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ("last_used_at", models.DateTimeField(editable=False, null=True)),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "verbose_name": "mailbox",
                "verbose_name_plural": "mailboxes",
                "abstract": False,
                "constraints": [
                    models.UniqueConstraint(fields=("user",), name="svc_accounts_one_mailbox_a_user")
                ],
            },
        ),
        migrations.CreateModel(
            name="MFAChallenge",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=svc_infra_django.identifiers.uuid7,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("tenant", models.CharField(blank=True, db_index=True, default="", max_length=128)),
                ("digest", models.CharField(editable=False, max_length=64)),
                ("amr", models.CharField(max_length=64, verbose_name="methods")),
                ("password_state", models.CharField(editable=False, max_length=64)),
                ("tries", models.PositiveSmallIntegerField(default=0)),
                ("created_at", models.DateTimeField()),
                ("expires_at", models.DateTimeField()),
                ("used_at", models.DateTimeField(null=True)),
                (
                    "owner",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "verbose_name": "MFA challenge",
                "indexes": [models.Index(fields=["expires_at"], name="svc_accounts_challenge_expires")],
                "constraints": [
                    models.UniqueConstraint(fields=("digest",), name="svc_accounts_mfachallenge_digest")
                ],
            },
        ),
        migrations.CreateModel(
            name="OAuthFlow",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=svc_infra_django.identifiers.uuid7,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("provider", models.CharField(max_length=200)),
                ("digest", models.CharField(editable=False, max_length=64)),
                ("browser_digest", models.CharField(editable=False, max_length=64)),
                ("sealed_secrets", models.TextField(editable=False)),
                ("target", models.CharField(blank=True, max_length=2000)),
                ("password_state", models.CharField(blank=True, editable=False, max_length=64)),
                ("created_at", models.DateTimeField()),
                ("expires_at", models.DateTimeField()),
                (
                    "owner",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "verbose_name": "login at a provider",
                "indexes": [models.Index(fields=["expires_at"], name="svc_accounts_oauthflow_expires")],
                "constraints": [
                    models.UniqueConstraint(fields=("digest",), name="svc_accounts_oauthflow_digest")
                ],
            },
        ),
        migrations.CreateModel(
            name="OAuthHandoff",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=svc_infra_django.identifiers.uuid7,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("digest", models.CharField(editable=False, max_length=64)),
                ("state_digest", models.CharField(editable=False, max_length=64)),
                ("created_at", models.DateTimeField()),
                ("expires_at", models.DateTimeField()),
                (
                    "owner",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "verbose_name": "login at a front end",
                "indexes": [models.Index(fields=["expires_at"], name="svc_accounts_handoff_expires")],
                "constraints": [
                    models.UniqueConstraint(fields=("digest",), name="svc_accounts_oauthhandoff_digest")
                ],
            },
        ),
        migrations.CreateModel(
            name="RecoveryCode",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=svc_infra_django.identifiers.uuid7,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("digest", models.CharField(editable=False, max_length=64)),
                ("created_at", models.DateTimeField()),
                ("used_at", models.DateTimeField(null=True)),
                (
                    "owner",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("digest",), name="svc_accounts_recoverycode_digest")
                ],
            },
        ),
        migrations.CreateModel(
            name="RefreshToken",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=svc_infra_django.identifiers.uuid7,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("digest", models.CharField(editable=False, max_length=64)),
                ("created_at", models.DateTimeField()),
                ("expires_at", models.DateTimeField()),
                ("used_at", models.DateTimeField(null=True)),
                (
                    "parent",
                    models.OneToOneField(
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="successor",
                        to="svc_accounts.refreshtoken",
                    ),
                ),
                (
                    "session",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="refresh_tokens",
                        to="svc_accounts.authsession",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("digest",), name="svc_accounts_refreshtoken_digest")
                ],
            },
        ),
        migrations.CreateModel(
            name="SigningKey",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=svc_infra_django.identifiers.uuid7,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("kid", models.CharField(max_length=64, verbose_name="key id")),
                ("algorithm", models.CharField(max_length=8)),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("next", "published, signs none yet"),
                            ("active", "signs"),
                            ("retiring", "verifies what it signed"),
                        ],
                        max_length=8,
                    ),
                ),
                ("sealed_private", models.TextField(editable=False)),
                ("created_at", models.DateTimeField()),
                ("activated_at", models.DateTimeField(null=True)),
                ("retires_at", models.DateTimeField(null=True)),
            ],
            options={
                "ordering": ["-created_at", "-id"],
                "constraints": [
                    models.UniqueConstraint(fields=("kid",), name="svc_accounts_signingkey_kid"),
                    models.UniqueConstraint(
                        condition=models.Q(("state__in", ["next", "active"])),
                        fields=("state",),
                        name="svc_accounts_signingkey_one_each",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("activated_at", None), ("retires_at", None), ("state", "next")),
                            models.Q(
                                ("activated_at__isnull", False), ("retires_at", None), ("state", "active")
                            ),
                            models.Q(
                                ("activated_at__isnull", False),
                                ("retires_at__isnull", False),
                                ("state", "retiring"),
                            ),
                            _connector="OR",
                        ),
                        name="svc_accounts_signingkey_times",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Throttle",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "scope",
                    models.CharField(
                        choices=[
                            ("login", "wrong passwords for an address"),
                            ("client", "wrong passwords from a client"),
                            ("password", "wrong present passwords"),
                            ("mfa", "wrong codes"),
                            ("mail", "mails to an address, or asked for by a user"),
                            ("reset", "mails to an address with a key for a new password"),
                            ("code", "codes mailed to an address"),
                            ("signup", "sign-ups and resets from a client"),
                            ("oauth", "logins by providers from a client"),
                            ("notice", "mails about wrong codes, or sent again by a login"),
                        ],
                        max_length=16,
                    ),
                ),
                ("subject", models.CharField(max_length=64)),
                ("count", models.PositiveIntegerField(default=0)),
                ("started_at", models.DateTimeField()),
                ("ends_at", models.DateTimeField()),
            ],
            options={
                "verbose_name": "count of attempts",
                "verbose_name_plural": "counts of attempts",
                "ordering": ["-ends_at", "-pk"],
                "indexes": [models.Index(fields=["ends_at"], name="svc_accounts_throttle_ends")],
                "constraints": [
                    models.UniqueConstraint(fields=("subject", "scope"), name="svc_accounts_throttle_subject")
                ],
            },
        ),
        migrations.CreateModel(
            name="TOTPDevice",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "name",
                    models.CharField(help_text="The human-readable name of this device.", max_length=64),
                ),
                ("confirmed", models.BooleanField(default=True, help_text="Is this device ready for use?")),
                (
                    "throttling_failure_timestamp",
                    models.DateTimeField(
                        blank=True,
                        default=None,
                        help_text="A timestamp of the last failed verification attempt. Null if last attempt succeeded.",
                        null=True,
                    ),
                ),
                (
                    "throttling_failure_count",
                    models.PositiveIntegerField(default=0, help_text="Number of successive failed attempts."),
                ),
                ("sealed_key", models.TextField(editable=False)),
                ("last_step", models.BigIntegerField(default=-1, editable=False)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ("last_used_at", models.DateTimeField(editable=False, null=True)),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "verbose_name": "authenticator app",
                "abstract": False,
            },
        ),
    ]

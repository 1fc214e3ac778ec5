import datetime

import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models

import svc_infra_django.apikeys.models
import svc_infra_django.identifiers


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="ApiKey",
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
                ("name", models.CharField(max_length=100)),
                ("prefix", models.CharField(editable=False, max_length=32)),
                ("last4", models.CharField(db_index=True, editable=False, max_length=4)),
                (
                    "environment",
                    models.CharField(
                        choices=[("live", "Live"), ("test", "Test")], editable=False, max_length=4
                    ),
                ),
                ("digest", models.BinaryField(max_length=32, unique=True)),
                ("pepper_id", models.CharField(editable=False, max_length=8)),
                ("scopes", models.JSONField(blank=True, null=True)),
                (
                    "allowed_networks",
                    models.JSONField(
                        blank=True,
                        default=list,
                        help_text="Addresses and networks (192.0.2.0/24). Empty: from anywhere.",
                    ),
                ),
                (
                    "rate",
                    models.CharField(
                        blank=True,
                        default="",
                        help_text="Such as 600/minute. Empty: the project's default.",
                        max_length=24,
                        validators=[svc_infra_django.apikeys.models.check_rate],
                    ),
                ),
                (
                    "quota",
                    models.CharField(
                        blank=True,
                        default="",
                        help_text="Such as 10000/month. Empty: the project's default.",
                        max_length=24,
                        validators=[svc_infra_django.apikeys.models.check_quota],
                    ),
                ),
                ("created_at", models.DateTimeField(editable=False)),
                ("expires_at", models.DateTimeField(blank=True, null=True)),
                ("revoked_at", models.DateTimeField(blank=True, editable=False, null=True)),
                ("last_used_at", models.DateTimeField(blank=True, editable=False, null=True)),
                (
                    "owner",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "successor",
                    models.OneToOneField(
                        blank=True,
                        editable=False,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="predecessor",
                        to="svc_apikeys.apikey",
                    ),
                ),
            ],
            options={
                "verbose_name": "API key",
                "ordering": ["-created_at", "-id"],
                "indexes": [
                    models.Index(
                        fields=["owner", "tenant", "-created_at", "-id"], name="svc_apikeys_key_of_owner"
                    ),
                    models.Index(fields=["-created_at", "-id"], name="svc_apikeys_key_newest"),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("owner__isnull", False)), name="svc_apikeys_key_has_owner"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("environment__in", ["live", "test"])),
                        name="svc_apikeys_key_environment",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("successor", None),
                            models.Q(("successor", models.F("id")), _negated=True),
                            _connector="OR",
                        ),
                        name="svc_apikeys_key_not_own_successor",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Allowance",
            fields=[
                (
                    "key",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="allowance",
                        serialize=False,
                        to="svc_apikeys.apikey",
                    ),
                ),
                ("spent_until", models.BigIntegerField(default=0)),
                (
                    "quota_since",
                    models.DateTimeField(default=datetime.datetime(1970, 1, 1, 0, 0, tzinfo=datetime.UTC)),
                ),
                ("quota_used", models.BigIntegerField(default=0)),
            ],
        ),
        migrations.CreateModel(
            name="AuditEntry",
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
                (
                    "action",
                    models.CharField(
                        choices=[
                            ("issued", "Issued"),
                            ("rotated", "Rotated"),
                            ("revoked", "Revoked"),
                            ("changed", "Changed"),
                            ("deleted", "Deleted"),
                            ("refused", "Refused"),
                        ],
                        max_length=16,
                    ),
                ),
                ("key_id", models.UUIDField(db_index=True)),
                ("key_name", models.CharField(max_length=100)),
                ("key_hint", models.CharField(max_length=40)),
                ("owner", models.CharField(db_index=True, max_length=64)),
                ("tenant", models.CharField(blank=True, max_length=128)),
                ("actor", models.CharField(blank=True, max_length=64)),
                ("actor_method", models.CharField(blank=True, max_length=16)),
                ("request_id", models.CharField(blank=True, max_length=128)),
                ("details", models.JSONField(default=dict)),
            ],
            options={
                "verbose_name_plural": "audit entries",
                "ordering": ["-created_at", "-id"],
                "abstract": False,
                "indexes": [
                    models.Index(
                        condition=models.Q(("number", None)),
                        fields=["id"],
                        name="svc_apikeys_auditentry_loose",
                    ),
                    models.Index(fields=["-created_at", "-id"], name="svc_apikeys_audit_latest"),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("digest", ""), _negated=True),
                        name="svc_apikeys_auditentry_digest",
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
                    models.CheckConstraint(condition=models.Q(("id", 1)), name="svc_apikeys_one_audithead")
                ],
            },
        ),
        migrations.CreateModel(
            name="UsageHour",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("hour", models.DateTimeField(db_index=True)),
                ("used", models.BigIntegerField(default=0)),
                ("refused", models.BigIntegerField(default=0)),
                (
                    "key",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="hours",
                        to="svc_apikeys.apikey",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("key", "hour"), name="svc_apikeys_usage_once")
                ],
            },
        ),
    ]

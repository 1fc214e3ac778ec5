import django.db.models.deletion
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
    ]

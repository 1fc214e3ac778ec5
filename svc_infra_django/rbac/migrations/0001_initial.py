import django.core.validators
import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models

import svc_infra_django.identifiers


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("auth", "0012_alter_user_first_name_max_length"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="Role",
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
                    "name",
                    models.CharField(
                        max_length=100,
                        validators=[
                            django.core.validators.RegexValidator(
                                "\\A[^\\x00-\\x1f\\x7f]+\\Z", "A name has no control characters."
                            )
                        ],
                    ),
                ),
                ("description", models.CharField(blank=True, max_length=500)),
                (
                    "source",
                    models.CharField(
                        choices=[("admin", "made by hand"), ("code", "declared in the settings")],
                        default="admin",
                        editable=False,
                        max_length=8,
                    ),
                ),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "includes",
                    models.ManyToManyField(blank=True, related_name="included_by", to="svc_rbac.role"),
                ),
                (
                    "owner",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "ordering": ["tenant", "name"],
                "constraints": [
                    models.UniqueConstraint(fields=("tenant", "name"), name="svc_rbac_role_name"),
                    models.CheckConstraint(
                        condition=models.Q(("source__in", ["admin", "code"])), name="svc_rbac_role_source"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("source", "code"), _negated=True), ("tenant", ""), _connector="OR"
                        ),
                        name="svc_rbac_code_role_is_global",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Assignment",
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
                ("object_type", models.CharField(blank=True, max_length=200)),
                ("object_id", models.CharField(blank=True, max_length=64)),
                ("expires_at", models.DateTimeField(blank=True, null=True)),
                ("reason", models.CharField(blank=True, max_length=500)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "granted_by",
                    models.ForeignKey(
                        blank=True,
                        editable=False,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "group",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="auth.group",
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "role",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="assignments",
                        to="svc_rbac.role",
                    ),
                ),
            ],
            options={
                "verbose_name": "grant",
                "ordering": ["-created_at", "-id"],
                "indexes": [
                    models.Index(fields=["-created_at", "-id"], name="svc_rbac_grant_newest"),
                    models.Index(fields=["tenant", "-created_at", "-id"], name="svc_rbac_grant_of_tenant"),
                    models.Index(
                        condition=models.Q(("object_type", ""), _negated=True),
                        fields=["object_type", "object_id"],
                        name="svc_rbac_grant_on_object",
                    ),
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("user", "role", "tenant", "object_type", "object_id"),
                        name="svc_rbac_grant_once",
                    ),
                    models.UniqueConstraint(
                        fields=("group", "role", "tenant", "object_type", "object_id"),
                        name="svc_rbac_group_grant_once",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("group__isnull", False), ("user", None)),
                            models.Q(("group", None), ("user__isnull", False)),
                            _connector="OR",
                        ),
                        name="svc_rbac_grant_has_one_holder",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("object_id", ""), ("object_type", "")),
                            models.Q(
                                models.Q(("object_type", ""), _negated=True),
                                models.Q(("object_id", ""), _negated=True),
                            ),
                            _connector="OR",
                        ),
                        name="svc_rbac_grant_names_an_object",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="RoleChange",
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
                    "kind",
                    models.CharField(
                        choices=[
                            ("granted", "granted"),
                            ("moved", "grant changed"),
                            ("withdrawn", "withdrawn"),
                            ("joined", "joined a group"),
                            ("left", "left a group"),
                            ("defined", "role made"),
                            ("changed", "role changed"),
                            ("removed", "role removed"),
                        ],
                        max_length=12,
                    ),
                ),
                ("tenant", models.CharField(blank=True, db_index=True, default="", max_length=128)),
                ("user_key", models.CharField(blank=True, db_index=True, max_length=64, verbose_name="user")),
                ("group", models.CharField(blank=True, max_length=150)),
                ("role_id", models.UUIDField(blank=True, db_index=True, null=True)),
                ("role", models.CharField(blank=True, max_length=100)),
                ("object_type", models.CharField(blank=True, max_length=200)),
                ("object_id", models.CharField(blank=True, max_length=64)),
                ("expires_at", models.DateTimeField(blank=True, null=True)),
                ("details", models.JSONField(blank=True, default=dict)),
                ("reason", models.CharField(blank=True, max_length=500)),
                ("actor_key", models.CharField(blank=True, max_length=64, verbose_name="by")),
                ("method", models.CharField(blank=True, max_length=32)),
                ("credential_id", models.CharField(blank=True, max_length=64)),
                ("request_id", models.CharField(blank=True, max_length=128)),
            ],
            options={
                "verbose_name": "change",
                "ordering": ["-created_at", "-id"],
                "abstract": False,
                "indexes": [
                    models.Index(
                        condition=models.Q(("number", None)), fields=["id"], name="svc_rbac_rolechange_loose"
                    ),
                    models.Index(fields=["-created_at", "-id"], name="svc_rbac_change_latest"),
                    models.Index(fields=["tenant", "-created_at", "-id"], name="svc_rbac_change_of_tenant"),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("digest", ""), _negated=True), name="svc_rbac_rolechange_digest"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            (
                                "kind__in",
                                [
                                    "granted",
                                    "moved",
                                    "withdrawn",
                                    "joined",
                                    "left",
                                    "defined",
                                    "changed",
                                    "removed",
                                ],
                            )
                        ),
                        name="svc_rbac_change_kind",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="RoleChangeHead",
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
                    models.CheckConstraint(condition=models.Q(("id", 1)), name="svc_rbac_one_rolechangehead")
                ],
            },
        ),
        migrations.CreateModel(
            name="RolePermission",
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
                ("pattern", models.CharField(max_length=200, verbose_name="permission")),
                ("denies", models.BooleanField(default=False)),
                (
                    "role",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="permissions",
                        to="svc_rbac.role",
                    ),
                ),
            ],
            options={
                "ordering": ["pattern"],
                "constraints": [
                    models.UniqueConstraint(fields=("role", "pattern"), name="svc_rbac_permission_once")
                ],
            },
        ),
    ]

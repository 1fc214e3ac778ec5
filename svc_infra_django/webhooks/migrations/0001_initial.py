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
            name="Endpoint",
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
                ("url", models.CharField(max_length=2000, verbose_name="URL")),
                ("description", models.CharField(blank=True, default="", max_length=200)),
                ("event_types", models.JSONField(default=list)),
                ("sealed_headers", models.TextField(blank=True, default="", editable=False)),
                ("timeout_seconds", models.FloatField(blank=True, null=True)),
                ("retry_schedule", models.JSONField(blank=True, null=True)),
                ("rate_limit", models.FloatField(blank=True, null=True)),
                ("max_in_flight", models.PositiveSmallIntegerField(blank=True, null=True)),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("enabled", "enabled"),
                            ("paused", "paused: its queue is kept"),
                            ("disabled", "disabled: it gets nothing"),
                        ],
                        default="enabled",
                        max_length=8,
                    ),
                ),
                ("reason", models.CharField(blank=True, default="", max_length=200)),
                ("disabled_at", models.DateTimeField(blank=True, null=True)),
                ("held_until", models.DateTimeField(blank=True, null=True)),
                ("breaker_trips", models.PositiveSmallIntegerField(default=0)),
                ("paced_until", models.DateTimeField(blank=True, editable=False, null=True)),
                ("replays_paid_until", models.DateTimeField(blank=True, editable=False, null=True)),
                ("first_failure_at", models.DateTimeField(blank=True, null=True)),
                ("consecutive_failures", models.PositiveIntegerField(default=0)),
                ("last_success_at", models.DateTimeField(blank=True, null=True)),
                ("last_failure_at", models.DateTimeField(blank=True, null=True)),
                ("last_notice_at", models.DateTimeField(blank=True, null=True)),
                ("last_alarm_at", models.DateTimeField(blank=True, editable=False, null=True)),
                ("is_alarmed", models.BooleanField(default=False, editable=False)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ("updated_at", models.DateTimeField(auto_now=True)),
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
            ],
            options={
                "ordering": ["-created_at", "-id"],
                "indexes": [
                    models.Index(
                        condition=models.Q(("state__in", ["enabled", "paused"])),
                        fields=["tenant", "owner"],
                        name="svc_webhooks_listening",
                    ),
                    models.Index(
                        condition=models.Q(
                            ("state", "enabled"),
                            models.Q(
                                ("rate_limit__isnull", False),
                                ("max_in_flight__isnull", False),
                                ("breaker_trips__gt", 0),
                                _connector="OR",
                            ),
                        ),
                        fields=["paced_until"],
                        name="svc_webhooks_paced",
                    ),
                    models.Index(fields=["owner", "-created_at", "-id"], name="svc_webhooks_endpoint_list"),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("state__in", ["enabled", "paused", "disabled"])),
                        name="svc_webhooks_endpoint_state",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("disabled_at__isnull", False), ("state", "disabled")),
                            models.Q(
                                models.Q(("state", "disabled"), _negated=True), ("disabled_at__isnull", True)
                            ),
                            _connector="OR",
                        ),
                        name="svc_webhooks_endpoint_disabled_at",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("timeout_seconds__isnull", True),
                            models.Q(("timeout_seconds__gt", 0), ("timeout_seconds__lte", 30)),
                            _connector="OR",
                        ),
                        name="svc_webhooks_endpoint_timeout",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("rate_limit__isnull", True),
                            models.Q(("rate_limit__gt", 0), ("rate_limit__lte", 1000)),
                            _connector="OR",
                        ),
                        name="svc_webhooks_endpoint_rate",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("max_in_flight__isnull", True), ("max_in_flight__gte", 1), _connector="OR"
                        ),
                        name="svc_webhooks_endpoint_in_flight",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="EventType",
            fields=[
                ("name", models.CharField(max_length=128, primary_key=True, serialize=False)),
                ("description", models.TextField(blank=True, default="")),
                ("schema", models.JSONField(blank=True, default=dict)),
                ("version", models.PositiveIntegerField(default=1, editable=False)),
                ("examples", models.JSONField(blank=True, default=list)),
                ("retry_schedule", models.JSONField(blank=True, null=True)),
                (
                    "source",
                    models.CharField(
                        choices=[("code", "declared in code"), ("admin", "written in the admin")],
                        default="admin",
                        max_length=8,
                    ),
                ),
                ("is_archived", models.BooleanField(default=False)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
            ],
            options={
                "verbose_name": "event type",
                "ordering": ["name"],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("source__in", ["code", "admin"])),
                        name="svc_webhooks_event_source",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="EventTypeVersion",
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
                ("version", models.PositiveIntegerField()),
                ("schema", models.JSONField(default=dict)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                (
                    "event_type",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="versions",
                        to="svc_webhooks.eventtype",
                    ),
                ),
            ],
            options={
                "ordering": ["-version"],
                "constraints": [
                    models.UniqueConstraint(
                        models.F("event_type"), models.F("version"), name="svc_webhooks_schema_version"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Message",
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
                ("uid", models.CharField(editable=False, max_length=40, unique=True)),
                ("tenant", models.CharField(blank=True, db_index=True, default="", max_length=128)),
                ("event_type", models.CharField(max_length=128)),
                ("schema_version", models.PositiveIntegerField(editable=False, null=True)),
                ("body", models.BinaryField()),
                ("idempotency_key", models.CharField(blank=True, max_length=255, null=True)),
                (
                    "idempotency_digest",
                    models.CharField(editable=False, max_length=64, null=True, unique=True),
                ),
                ("context", models.JSONField(default=dict)),
                ("expunged_at", models.DateTimeField(blank=True, editable=False, null=True)),
                ("occurred_at", models.DateTimeField()),
                ("deliver_at", models.DateTimeField()),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
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
                "ordering": ["-created_at", "-id"],
                "indexes": [
                    models.Index(fields=["owner", "-created_at", "-id"], name="svc_webhooks_message_list"),
                    models.Index(fields=["-created_at", "-id"], name="svc_webhooks_message_newest"),
                ],
            },
        ),
        migrations.CreateModel(
            name="Delivery",
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
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("pending", "pending"),
                            ("sending", "sending"),
                            ("succeeded", "succeeded"),
                            ("dead", "dead"),
                            ("cancelled", "cancelled"),
                        ],
                        default="pending",
                        max_length=9,
                    ),
                ),
                (
                    "lane",
                    models.SmallIntegerField(
                        choices=[(0, "first attempts"), (1, "retries and replays"), (2, "not due yet")],
                        default=0,
                    ),
                ),
                (
                    "trigger",
                    models.CharField(
                        choices=[
                            ("publish", "first attempt"),
                            ("retry", "retry"),
                            ("replay", "replay"),
                            ("test", "test"),
                        ],
                        default="publish",
                        max_length=8,
                    ),
                ),
                ("due_at", models.DateTimeField()),
                ("attempts", models.PositiveIntegerField(default=0)),
                ("attempts_before", models.PositiveIntegerField(default=0)),
                ("lease_until", models.DateTimeField(blank=True, null=True)),
                ("epoch", models.PositiveIntegerField(default=0)),
                ("last_status", models.PositiveSmallIntegerField(blank=True, null=True)),
                ("last_error", models.CharField(blank=True, default="", max_length=16)),
                ("settled_at", models.DateTimeField(blank=True, null=True)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                (
                    "endpoint",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="deliveries",
                        to="svc_webhooks.endpoint",
                    ),
                ),
                (
                    "message",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="deliveries",
                        to="svc_webhooks.message",
                    ),
                ),
            ],
            options={
                "verbose_name_plural": "deliveries",
                "ordering": ["-id"],
                "indexes": [
                    models.Index(
                        condition=models.Q(("state", "pending")),
                        fields=["lane", "endpoint", "due_at"],
                        name="svc_webhooks_queue",
                    ),
                    models.Index(
                        condition=models.Q(("lane", 2), ("state", "pending")),
                        fields=["due_at"],
                        name="svc_webhooks_waiting",
                    ),
                    models.Index(
                        condition=models.Q(("state", "sending")),
                        fields=["lease_until"],
                        name="svc_webhooks_leases",
                    ),
                    models.Index(
                        fields=["endpoint", "-created_at", "-id"], name="svc_webhooks_delivery_list"
                    ),
                    models.Index(
                        condition=models.Q(("state", "dead")), fields=["-id"], name="svc_webhooks_dead"
                    ),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            ("state__in", ["pending", "sending", "succeeded", "dead", "cancelled"])
                        ),
                        name="svc_webhooks_delivery_state",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("lease_until__isnull", False), ("state", "sending")),
                            models.Q(
                                models.Q(("state", "sending"), _negated=True), ("lease_until__isnull", True)
                            ),
                            _connector="OR",
                        ),
                        name="svc_webhooks_delivery_lease",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("lane__in", [0, 1, 2])), name="svc_webhooks_delivery_lane"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("attempts_before__lte", models.F("attempts"))),
                        name="svc_webhooks_delivery_attempts",
                    ),
                    models.UniqueConstraint(
                        models.F("message"), models.F("endpoint"), name="svc_webhooks_once_an_endpoint"
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Replay",
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
                ("since", models.DateTimeField(null=True)),
                ("only_failed", models.BooleanField(default=True)),
                ("per_second", models.FloatField()),
                (
                    "state",
                    models.CharField(
                        choices=[("running", "running"), ("done", "done"), ("cancelled", "cancelled")],
                        default="running",
                        max_length=9,
                    ),
                ),
                ("total", models.PositiveIntegerField()),
                ("done", models.PositiveIntegerField(default=0)),
                ("steps", models.PositiveIntegerField(default=0)),
                ("reached_at", models.DateTimeField(editable=False, null=True)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ("finished_at", models.DateTimeField(editable=False, null=True)),
                (
                    "endpoint",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="replays",
                        to="svc_webhooks.endpoint",
                    ),
                ),
                (
                    "message",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="replays",
                        to="svc_webhooks.message",
                    ),
                ),
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
            ],
            options={
                "ordering": ["-created_at", "-id"],
                "indexes": [
                    models.Index(fields=["owner", "-created_at", "-id"], name="svc_webhooks_replay_list")
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("finished_at__isnull", True), ("state", "running")),
                            models.Q(("finished_at__isnull", False), ("state__in", ["done", "cancelled"])),
                            _connector="OR",
                        ),
                        name="svc_webhooks_replay_state",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("per_second__gt", 0)), name="svc_webhooks_replay_rate"
                    ),
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
                (
                    "kind",
                    models.CharField(
                        choices=[("v1", "v1 (HMAC-SHA256)"), ("v1a", "v1a (Ed25519)")],
                        default="v1",
                        max_length=4,
                    ),
                ),
                ("sealed_secret", models.TextField(editable=False)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ("expires_at", models.DateTimeField(blank=True, null=True)),
                (
                    "endpoint",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="signing_keys",
                        to="svc_webhooks.endpoint",
                    ),
                ),
            ],
            options={
                "ordering": ["-created_at", "-id"],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("kind__in", ["v1", "v1a"])), name="svc_webhooks_key_kind"
                    ),
                    models.UniqueConstraint(
                        models.F("endpoint"),
                        models.F("kind"),
                        condition=models.Q(("expires_at__isnull", True)),
                        name="svc_webhooks_one_lasting_key",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Attempt",
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
                ("n", models.PositiveIntegerField()),
                ("at", models.DateTimeField()),
                (
                    "trigger",
                    models.CharField(
                        choices=[
                            ("publish", "first attempt"),
                            ("retry", "retry"),
                            ("replay", "replay"),
                            ("test", "test"),
                        ],
                        max_length=8,
                    ),
                ),
                ("status_code", models.PositiveSmallIntegerField(blank=True, null=True)),
                ("error", models.CharField(blank=True, default="", max_length=16)),
                ("duration_ms", models.PositiveIntegerField()),
                ("response_head", models.TextField(blank=True, default="")),
                ("response_headers", models.JSONField(blank=True, default=dict)),
                (
                    "delivery",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="attempt_set",
                        to="svc_webhooks.delivery",
                    ),
                ),
            ],
            options={
                "ordering": ["-at", "-id"],
                "constraints": [
                    models.UniqueConstraint(
                        models.F("delivery"), models.F("n"), name="svc_webhooks_attempt_n"
                    )
                ],
            },
        ),
    ]

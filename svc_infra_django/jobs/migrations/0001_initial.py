import django.core.validators
import django.db.models.deletion
import django.db.models.functions.datetime
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
            name="Pace",
            fields=[
                ("key", models.CharField(max_length=200, primary_key=True, serialize=False)),
                ("free_at", models.DateTimeField(help_text="When the whole burst is free again.")),
                (
                    "line_at",
                    models.DateTimeField(help_text="The end of the line of those that have to wait."),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Queue",
            fields=[
                ("name", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("paused_at", models.DateTimeField(blank=True, null=True)),
                (
                    "keep_succeeded_hours",
                    models.FloatField(
                        blank=True,
                        help_text="How long such jobs are kept; empty for what the settings say.",
                        null=True,
                        validators=[
                            django.core.validators.MinValueValidator(0.0),
                            django.core.validators.MaxValueValidator(87840),
                        ],
                    ),
                ),
                (
                    "keep_cancelled_hours",
                    models.FloatField(
                        blank=True,
                        help_text="How long such jobs are kept; empty for what the settings say.",
                        null=True,
                        validators=[
                            django.core.validators.MinValueValidator(0.0),
                            django.core.validators.MaxValueValidator(87840),
                        ],
                    ),
                ),
                (
                    "keep_failed_hours",
                    models.FloatField(
                        blank=True,
                        help_text="How long such jobs are kept; empty for what the settings say.",
                        null=True,
                        validators=[
                            django.core.validators.MinValueValidator(0.0),
                            django.core.validators.MaxValueValidator(87840),
                        ],
                    ),
                ),
            ],
            options={
                "ordering": ["name"],
            },
        ),
        migrations.CreateModel(
            name="Worker",
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
                ("name", models.CharField(max_length=255)),
                ("host", models.CharField(max_length=255)),
                ("pid", models.PositiveIntegerField()),
                ("queues", models.JSONField(default=list, help_text="Empty for all.")),
                ("concurrency", models.PositiveIntegerField()),
                ("started_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("heartbeat_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("is_stopping", models.BooleanField(default=False)),
            ],
        ),
        migrations.CreateModel(
            name="Effect",
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
                ("task", models.CharField(max_length=255)),
                ("key", models.CharField(max_length=200)),
                ("job_id", models.UUIDField(help_text="The job that did it.")),
                ("done_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                "constraints": [models.UniqueConstraint(fields=("task", "key"), name="svc_jobs_effect_once")],
            },
        ),
        migrations.CreateModel(
            name="Job",
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
                ("tenant", models.CharField(blank=True, default="", max_length=128)),
                ("queue", models.CharField(max_length=64)),
                ("task", models.CharField(max_length=255)),
                ("args", models.JSONField(help_text='{"args": [...], "kwargs": {...}}')),
                (
                    "headers",
                    models.JSONField(default=dict, help_text="The context of whoever enqueued the job."),
                ),
                (
                    "backend",
                    models.CharField(default="default", help_text="The alias in TASKS.", max_length=64),
                ),
                ("priority", models.SmallIntegerField(default=0)),
                (
                    "state",
                    models.SmallIntegerField(
                        choices=[
                            (0, "ready"),
                            (1, "running"),
                            (2, "succeeded"),
                            (3, "failed"),
                            (4, "cancelled"),
                            (5, "scheduled"),
                            (6, "blocked"),
                        ],
                        default=0,
                    ),
                ),
                ("run_at", models.DateTimeField(help_text="When a scheduled job falls due.", null=True)),
                ("created_at", models.DateTimeField()),
                ("started_at", models.DateTimeField(help_text="Start of the first attempt.", null=True)),
                ("attempted_at", models.DateTimeField(help_text="Start of the last attempt.", null=True)),
                ("finished_at", models.DateTimeField(null=True)),
                ("attempt", models.PositiveSmallIntegerField(default=0, help_text="Attempts begun.")),
                ("max_attempts", models.PositiveSmallIntegerField(default=5)),
                (
                    "crashes",
                    models.PositiveSmallIntegerField(
                        default=0, help_text="Attempts that took their worker along."
                    ),
                ),
                (
                    "epoch",
                    models.PositiveIntegerField(default=0, help_text="Raised at every change of hands."),
                ),
                ("worker_id", models.UUIDField(null=True)),
                (
                    "publish_at",
                    models.DateTimeField(
                        help_text="When a ready job of another engine's queue is to be published, again or at all.",
                        null=True,
                    ),
                ),
                (
                    "publishes",
                    models.PositiveSmallIntegerField(default=0, help_text="How often it was swept up."),
                ),
                ("unique_key", models.CharField(max_length=64, null=True)),
                (
                    "unique_until",
                    models.SmallIntegerField(
                        choices=[(1, "started"), (2, "finished"), (3, "the end of a time")], null=True
                    ),
                ),
                ("unique_expires_at", models.DateTimeField(null=True)),
                ("concurrency_key", models.CharField(max_length=200, null=True)),
                ("concurrency_limit", models.PositiveSmallIntegerField(null=True)),
                ("rate_key", models.CharField(max_length=200, null=True)),
                ("rate_seconds", models.FloatField(help_text="Seconds between two starts.", null=True)),
                ("rate_burst", models.PositiveSmallIntegerField(null=True)),
                ("result", models.JSONField(null=True)),
                ("progress", models.JSONField(help_text='{"n": 3, "total": 10, "note": "..."}', null=True)),
                (
                    "error",
                    models.CharField(
                        blank=True, default="", help_text="Path of the last exception.", max_length=255
                    ),
                ),
                ("traceback", models.TextField(blank=True, default="")),
                (
                    "owner",
                    models.ForeignKey(
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(
                        models.F("queue"),
                        models.OrderBy(models.F("priority"), descending=True),
                        models.F("id"),
                        condition=models.Q(("state", 0)),
                        name="svc_jobs_job_ready",
                    ),
                    models.Index(
                        models.F("run_at"), condition=models.Q(("state", 5)), name="svc_jobs_job_scheduled"
                    ),
                    models.Index(
                        models.F("concurrency_key"),
                        models.OrderBy(models.F("priority"), descending=True),
                        models.F("id"),
                        condition=models.Q(("state", 6)),
                        name="svc_jobs_job_blocked",
                    ),
                    models.Index(
                        models.F("concurrency_key"),
                        condition=models.Q(("concurrency_key__isnull", False), ("state__lt", 2)),
                        name="svc_jobs_job_holding",
                    ),
                    models.Index(
                        models.F("rate_key"),
                        models.F("run_at"),
                        condition=models.Q(("rate_key__isnull", False), ("state", 5)),
                        name="svc_jobs_job_in_line",
                    ),
                    models.Index(
                        models.F("rate_key"),
                        condition=models.Q(("rate_key__isnull", False), ("state", 0)),
                        name="svc_jobs_job_rated",
                    ),
                    models.Index(
                        models.F("worker_id"), condition=models.Q(("state", 1)), name="svc_jobs_job_running"
                    ),
                    models.Index(
                        models.F("publish_at"),
                        condition=models.Q(("publish_at__isnull", False), ("state", 0)),
                        name="svc_jobs_job_publish",
                    ),
                    models.Index(
                        models.F("id"), condition=models.Q(("state", 3)), name="svc_jobs_job_failed"
                    ),
                    models.Index(
                        models.F("owner"),
                        condition=models.Q(("owner__isnull", False)),
                        name="svc_jobs_job_owner",
                    ),
                    models.Index(
                        models.F("tenant"),
                        condition=models.Q(("tenant", ""), _negated=True),
                        name="svc_jobs_job_tenant",
                    ),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("state__in", range(0, 7))), name="svc_jobs_job_state"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("priority__gte", -100), ("priority__lte", 100)),
                        name="svc_jobs_job_priority",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("state", 1), _negated=True),
                            models.Q(("attempted_at__isnull", False), ("worker_id__isnull", False)),
                            _connector="OR",
                        ),
                        name="svc_jobs_job_running_has_worker",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("state__in", (2, 3, 4)), _negated=True),
                            ("finished_at__isnull", False),
                            _connector="OR",
                        ),
                        name="svc_jobs_job_final_has_end",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("state", 5), _negated=True), ("run_at__isnull", False), _connector="OR"
                        ),
                        name="svc_jobs_job_scheduled_has_time",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("state", 6), _negated=True),
                            models.Q(("concurrency_key__isnull", False), ("concurrency_limit__gte", 1)),
                            _connector="OR",
                        ),
                        name="svc_jobs_job_blocked_has_limit",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("rate_key__isnull", True),
                            models.Q(("rate_burst__gte", 1), ("rate_seconds__gt", 0)),
                            _connector="OR",
                        ),
                        name="svc_jobs_job_rate",
                    ),
                    models.UniqueConstraint(
                        condition=models.Q(("unique_key__isnull", False)),
                        fields=("unique_key",),
                        name="svc_jobs_job_unique_key",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="JobAttempt",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("attempt", models.PositiveSmallIntegerField()),
                ("worker_id", models.UUIDField(null=True)),
                ("started_at", models.DateTimeField(null=True)),
                ("finished_at", models.DateTimeField()),
                (
                    "outcome",
                    models.CharField(
                        choices=[
                            ("retried", "Retried"),
                            ("failed", "Failed"),
                            ("discarded", "Discarded"),
                            ("crashed", "Crashed"),
                            ("cancelled", "Cancelled"),
                        ],
                        max_length=16,
                    ),
                ),
                ("error", models.CharField(blank=True, default="", max_length=255)),
                ("traceback", models.TextField(blank=True, default="")),
                (
                    "job",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="attempts",
                        to="svc_jobs.job",
                    ),
                ),
            ],
            options={
                "ordering": ["id"],
            },
        ),
        migrations.CreateModel(
            name="Schedule",
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
                ("key", models.CharField(max_length=255, unique=True)),
                ("task", models.CharField(max_length=255)),
                (
                    "args",
                    models.JSONField(blank=True, default=dict, help_text='{"args": [...], "kwargs": {...}}'),
                ),
                (
                    "queue",
                    models.CharField(
                        blank=True, default="", help_text="Empty for the task's own.", max_length=64
                    ),
                ),
                (
                    "cron",
                    models.CharField(
                        blank=True, default="", help_text="Five fields, as in crontab(5).", max_length=255
                    ),
                ),
                ("every_seconds", models.FloatField(blank=True, null=True)),
                ("tz", models.CharField(default="UTC", max_length=64, verbose_name="time zone")),
                (
                    "catch_up",
                    models.CharField(
                        choices=[
                            ("skip", "drop them"),
                            ("once", "make up for all by one job"),
                            ("all", "make a job for each"),
                        ],
                        default="once",
                        help_text="What becomes of missed times.",
                        max_length=4,
                    ),
                ),
                (
                    "window_seconds",
                    models.FloatField(
                        blank=True,
                        help_text="Times that are longer past are not made up for; empty for no end.",
                        null=True,
                    ),
                ),
                (
                    "max_catch_up",
                    models.PositiveSmallIntegerField(
                        default=24, help_text="At most so many missed times at once, the latest."
                    ),
                ),
                ("enabled", models.BooleanField(default=True)),
                (
                    "source",
                    models.CharField(
                        choices=[("code", "@periodic in the code"), ("admin", "written here")],
                        default="admin",
                        editable=False,
                        max_length=8,
                    ),
                ),
                ("next_fire_at", models.DateTimeField(editable=False)),
                ("last_fire_at", models.DateTimeField(editable=False, null=True)),
                (
                    "declared_at",
                    models.DateTimeField(
                        editable=False,
                        help_text="When a worker last had this schedule in its code.",
                        null=True,
                    ),
                ),
                (
                    "error",
                    models.CharField(
                        blank=True,
                        default="",
                        editable=False,
                        help_text="Why it did not fire when due.",
                        max_length=255,
                    ),
                ),
            ],
            options={
                "ordering": ["key"],
                "indexes": [
                    models.Index(
                        models.F("next_fire_at"),
                        condition=models.Q(("enabled", True)),
                        name="svc_jobs_schedule_due",
                    )
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("cron", ""), ("every_seconds__gt", 0)),
                            models.Q(models.Q(("cron", ""), _negated=True), ("every_seconds__isnull", True)),
                            _connector="OR",
                        ),
                        name="svc_jobs_schedule_cron_or_every",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("catch_up__in", ("skip", "once", "all")), ("max_catch_up__gte", 1)
                        ),
                        name="svc_jobs_schedule_catch_up",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Throughput",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("minute", models.DateTimeField()),
                ("queue", models.CharField(max_length=64)),
                ("succeeded", models.PositiveIntegerField(default=0)),
                ("failed", models.PositiveIntegerField(default=0)),
                ("cancelled", models.PositiveIntegerField(default=0)),
                ("retried", models.PositiveIntegerField(default=0)),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("minute", "queue"), name="svc_jobs_throughput_minute")
                ],
            },
        ),
    ]

import django.db.models.deletion
from django.db import migrations, models

import svc_infra_django.identifiers


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Receiver",
            fields=[
                ("slug", models.SlugField(primary_key=True, serialize=False)),
                ("sealed_secret", models.TextField(blank=True, editable=False)),
                (
                    "is_failing",
                    models.BooleanField(default=False, help_text="Answers 500 while this is ticked."),
                ),
            ],
        ),
        migrations.CreateModel(
            name="ReceivedWebhook",
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
                ("message_id", models.CharField(max_length=100)),
                ("event_type", models.CharField(max_length=128)),
                ("body", models.JSONField()),
                ("request_id", models.CharField(blank=True, max_length=128)),
                ("received_at", models.DateTimeField(auto_now_add=True)),
                (
                    "receiver",
                    models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="demo.receiver"),
                ),
            ],
            options={
                "ordering": ["-id"],
                "constraints": [
                    models.UniqueConstraint(fields=("receiver", "message_id"), name="received_webhook_once")
                ],
            },
        ),
    ]

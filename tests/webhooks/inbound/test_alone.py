"""Who only receives installs the inbox without the app that sends."""

from __future__ import annotations

import os
import subprocess
import sys

PROJECT = """
import django
from django.conf import settings

apps = ["django.contrib.auth", "django.contrib.contenttypes", "ninja"] + [
    f"svc_infra_django.{app}" for app in ("config", "observability", "api", "jobs", "webhooks.inbound")
]
settings.configure(
    SECRET_KEY="k" * 50, USE_TZ=True, INSTALLED_APPS=apps, ROOT_URLCONF=__name__,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    TASKS={"default": {"BACKEND": "svc_infra_django.jobs.backends.DatabaseBackend"}},
    SVC_INFRA={"inbound": {"sources": {"shop": {"preset": "github"}}}},
)
django.setup()

from django.core.management import call_command
from django.test.utils import setup_test_environment
from django.urls import path
from svc_infra_django.testing.senders import WebhookSender
from svc_infra_django.webhooks.inbound import webhook_receiver

heard = []
urlpatterns = [path("hook", webhook_receiver("shop", secrets=lambda request: ["hush"])(heard.append))]
call_command("check")
call_command("migrate", verbosity=0)
setup_test_environment()
print(WebhookSender("shop", secret="hush").post("/hook", {"n": 1}).status_code, heard[0].data)
"""


def test_the_inbox_needs_no_app_that_sends() -> None:
    elsewhere = ("DJANGO_SETTINGS_MODULE", "DATABASE_URL", "SVC_ENVIRONMENT")
    kept = {name: value for name, value in os.environ.items() if name not in elsewhere}
    done = subprocess.run(
        [sys.executable, "-c", PROJECT], capture_output=True, text=True, check=False, env=kept
    )

    assert done.stdout.splitlines()[-1:] == ["204 {'n': 1}"], done.stdout + done.stderr

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ROOT

TUTORIAL = ROOT / "docs/tutorial/first-service.md"
BLOCK = re.compile(r"(All|At the end) of `([\w/.]+)`:\n\n```py\n(.*?)```", re.DOTALL)

# What the reader does in the browser and with curl, by Django's own test client.
USE = """
import json, os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "service.settings"
import django
django.setup()
from django.contrib.auth.models import User
from django.core import mail
from django.test import Client
from django.test.utils import setup_test_environment
from svc_infra_django.apikeys import issue_key
from svc_infra_django.jobs.worker import drain
from svc_infra_django.webhooks.models import Delivery
from svc_infra_django.webhooks.services.subscribing import create_endpoint

setup_test_environment()
ada = User.objects.create_superuser("ada", "ada@example.com", "correct horse battery staple 7")
bob = User.objects.create_user("bob", "bob@example.com", "correct horse battery staple 8")
create_endpoint(owner=ada, url="http://127.0.0.1:9/", event_types=["entry.*"])
ask = Client()
def sign(user):
    key = issue_key(owner=user, name="first")[1]
    body = {"text": "Hello"}
    return ask.post("/api/entries", body, content_type="application/json", headers={"X-API-Key": key})
allowed, refused = sign(ada), sign(bob)
drain()
print(json.dumps({
    "allowed": [allowed.status_code, allowed.json()["text"]],
    "refused": [refused.status_code, refused.json()["permission"]],
    "mails": sorted(each.subject for each in mail.outbox),
    "deliveries": Delivery.objects.count(),
}))
"""


@pytest.mark.sqlite
def test_the_tutorials_files_make_the_service_that_it_promises(tmp_path: Path) -> None:
    run(tmp_path, "-m", "django", "startproject", "service", ".")
    run(tmp_path, "manage.py", "startapp", "guestbook")
    for how, name, text in BLOCK.findall(TUTORIAL.read_text()):
        file = tmp_path / name
        file.write_text(f"{file.read_text()}\n{text}" if how == "At the end" else text)

    run(tmp_path, "manage.py", "makemigrations", "guestbook")
    run(tmp_path, "manage.py", "migrate", "--verbosity", "0")
    run(tmp_path, "manage.py", "check", "--fail-level", "WARNING")
    said = run(tmp_path, "-c", USE).splitlines()[-1]

    assert said == (
        '{"allowed": [201, "Hello"], "refused": [403, "guestbook.add_entry"], '
        '"mails": ["A new API key acts for you", "A new API key acts for you", "Thank you"], "deliveries": 1}'
    )


def run(folder: Path, *arguments: str) -> str:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("DJANGO", "SVC_"))
    }
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout

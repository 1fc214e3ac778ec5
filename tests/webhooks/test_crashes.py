from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connection
from django.utils import timezone

from svc_infra_django.webhooks import publish_many
from svc_infra_django.webhooks.delivery import deliver_due
from svc_infra_django.webhooks.models import Delivery, Endpoint
from svc_infra_django.webhooks.services.publishing import Publication

from .conftest import Receiver

ROOT = Path(__file__).parents[2]
DELIVERER = """
import sys
from django.conf import settings
import tests.settings as base
values = {name: getattr(base, name) for name in dir(base) if name.isupper()}
values["DATABASES"] = {"default": {**values["DATABASES"]["default"], **eval(sys.argv[1])}}
values["SVC_INFRA"] = {"webhooks": {"allow_http": True, "allowed_networks": ("127.0.0.0/8",)}}
settings.configure(**values)
import django
django.setup()
from svc_infra_django.webhooks.delivery import deliver_due
deliver_due()
"""


@pytest.mark.django_db(transaction=True)
def test_what_a_killed_deliverer_was_sending_is_sent_again(
    make_endpoint: Callable[..., Endpoint], receiver: Receiver
) -> None:
    make_endpoint()
    publish_many([Publication("order.placed", {"n": n}) for n in range(3)])
    receiver.delay = 30
    database = {"NAME": str(connection.settings_dict["NAME"])}
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(DELIVERER), repr(database)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    limit = time.monotonic() + 60
    while len(receiver.requests) < 3 and time.monotonic() < limit and process.poll() is None:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert len(receiver.requests) == 3
    assert Delivery.objects.filter(state="sending").count() == 3

    receiver.delay = 0
    assert deliver_due() == 0
    assert deliver_due(now=timezone.now() + timedelta(seconds=120)) == 3

    assert Delivery.objects.filter(state="succeeded").count() == 3
    assert sorted(receiver.ids()[:3]) == sorted(receiver.ids()[3:])

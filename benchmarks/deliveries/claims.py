"""`python -m benchmarks.deliveries.claims HOW` prints the microseconds that claiming a delivery takes.

HOW is `fair`, our claim, which goes round the endpoints and takes a few of each, or `fifo`, a statement that
takes what is due longest whoever it is for. Both lock, mark and read the same.
"""

from __future__ import annotations

import sys
import time
from datetime import datetime, timedelta
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from benchmarks.deliveries import drive, ours
from svc_infra_django.webhooks.models import Delivery
from svc_infra_django.webhooks.queue import NIL, Claimed, LaneClaim

DELIVERIES = 20_000
TOGETHER = 200
CLAIMS = 60
LEASE = timedelta(seconds=90)


def fair(now: datetime) -> list[Claimed]:
    return Delivery.objects.claim(
        [LaneClaim(0, TOGETHER, NIL)], share=10, full=[], now=now, lease_until=now + LEASE
    )


def fifo(now: datetime) -> list[Claimed]:
    oldest = (
        "SELECT id FROM svc_webhooks_delivery WHERE state = 'pending' AND lane = 0 AND due_at <= %s"
        " ORDER BY due_at LIMIT %s FOR UPDATE SKIP LOCKED"
    )
    values: list[Any] = [now, TOGETHER]
    return Delivery.objects.all()._take(oldest, values, now=now, lease_until=now + LEASE)


def main(how: str) -> None:
    claim = {"fair": fair, "fifo": fifo}[how]
    with drive.fresh_database():
        for number in range(drive.ENDPOINTS):
            ours.subscribe(f"bench.event{number}", f"http://127.0.0.1:9/hook/{number}")
        drive.publish_all(DELIVERIES, ours.publish, together=500)
        with connection.cursor() as cursor:
            # The index that goes by time alone, as a queue without fairness would have it.
            cursor.execute(
                "CREATE INDEX fifo ON svc_webhooks_delivery (due_at) WHERE state = 'pending' AND lane = 0"
            )
            cursor.execute("VACUUM ANALYZE")
        claim(timezone.now())
        started, count = time.perf_counter(), 0
        for _ in range(CLAIMS):
            with transaction.atomic():
                count += len(claim(timezone.now()))
        print((time.perf_counter() - started) / count * 1e6)


if __name__ == "__main__":
    main(sys.argv[1])

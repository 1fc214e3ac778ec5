"""How long the deliveries to fifty quick endpoints take, alone and beside one endpoint that never answers.

`python -m benchmarks.deliveries.hanging alone|beside` prints the 99th percentile in milliseconds, from
publishing to the row that says it was delivered. Each of the fifty gets a message every second, the one
that hangs as many as all of them together.
"""

from __future__ import annotations

import socket
import sys
import time
from contextlib import ExitStack
from statistics import quantiles

from benchmarks.deliveries import drive, ours
from svc_infra_django.webhooks import publish_many
from svc_infra_django.webhooks.models import Delivery
from svc_infra_django.webhooks.services.publishing import Publication

QUICK = 50
SECONDS = 8
EACH_SECOND = 10
DEADLINE_SECONDS = 60
HANGING = "bench.hanging"


def main(how: str) -> None:
    with ExitStack() as stack:
        stack.enter_context(drive.fresh_database())
        port, _ = stack.enter_context(drive.receiver())
        for number in range(QUICK):
            ours.subscribe(f"bench.event{number}", f"http://127.0.0.1:{port}/hook/{number}")
        # The kernel takes the connections; nobody reads them.
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1000))
        ours.subscribe(HANGING, f"http://127.0.0.1:{silent.getsockname()[1]}/")
        stack.enter_context(drive.running([sys.executable, "-m", "benchmarks.deliveries.ours", "work"]))

        # Until the worker is up and knows everybody, nothing is measured.
        publish_many(Publication(f"bench.event{number}", {}) for number in range(QUICK))
        _waits(QUICK)

        started = time.monotonic()
        together = QUICK // EACH_SECOND
        for turn in range(SECONDS * EACH_SECOND):
            first = turn * together
            quick = [f"bench.event{number % QUICK}" for number in range(first, first + together)]
            publish_many(Publication(name, {"turn": turn}) for name in quick)
            if how == "beside":
                publish_many([Publication(HANGING, {"turn": turn})] * together)
            time.sleep(max(started + (turn + 1) / EACH_SECOND - time.monotonic(), 0))
        print(quantiles(_waits((SECONDS + 1) * QUICK)[QUICK:], n=100)[98] * 1000)


def _waits(count: int) -> list[float]:
    """Seconds from publishing to the record, in order of publishing, once there are so many."""
    done = Delivery.objects.filter(state=Delivery.State.SUCCEEDED)
    limit = time.monotonic() + DEADLINE_SECONDS
    while done.count() < count:
        if time.monotonic() > limit:
            raise SystemExit(f"{done.count()} of {count} were delivered in {DEADLINE_SECONDS} s")
        time.sleep(0.1)
    moments = done.order_by("created_at").values_list("settled_at", "created_at")
    return [(settled - created).total_seconds() for settled, created in moments]


if __name__ == "__main__":
    main(sys.argv[1])

"""What a delivery costs where little has happened yet, and where much has.

`python -m benchmarks.deliveries.growth fresh|grown` prints the microseconds of CPU, the deliverer's and
PostgreSQL's together, of a delivery to ten endpoints. Grown means: a million deliveries with their attempts
are past, and there are ten thousand endpoints more, at each of which a retry waits for its time.
"""

from __future__ import annotations

import sys
import time

from django.db import connection

from benchmarks.deliveries import drive, ours
from svc_infra_django.webhooks.delivery import Deliverer

DELIVERIES = 5_000
WARM_UP = 1_000
ENDPOINTS = 10_000
PAST = 1_000_000

GROW = f"""
-- A superuser's: or the foreign keys would be asked two million times.
SET session_replication_role = replica;

INSERT INTO svc_webhooks_endpoint
SELECT (jsonb_populate_record(
    e, jsonb_build_object('id', gen_random_uuid(), 'event_types', '["other"]'::jsonb)
)).*
FROM svc_webhooks_endpoint e, generate_series(1, {ENDPOINTS}) WHERE e.url LIKE '%/hook/0';

INSERT INTO svc_webhooks_message (id, uid, tenant, event_type, body, context, occurred_at, deliver_at,
    created_at)
SELECT gen_random_uuid(), 'msg_past' || n, '', 'other', '{{}}', '{{}}', past.at, past.at, past.at
FROM generate_series(1, {PAST // 100}) n, LATERAL (SELECT now() - n * interval '1 second' AS at) past;

CREATE TEMPORARY TABLE listeners AS
SELECT row_number() OVER (ORDER BY id) % 100 AS share, id
FROM svc_webhooks_endpoint WHERE event_types = '["other"]';

CREATE TEMPORARY TABLE told AS
SELECT row_number() OVER (ORDER BY id) % 100 AS share, id, created_at FROM svc_webhooks_message;

INSERT INTO svc_webhooks_delivery (id, message_id, endpoint_id, due_at, state, lane, trigger, attempts,
    attempts_before, epoch, last_error, last_status, settled_at, created_at)
SELECT ('01900000-0000-7000-8000-' || lpad(to_hex(row_number() OVER ()), 12, '0'))::uuid, told.id,
    listeners.id, told.created_at, 'succeeded', 1, 'publish', 1, 0, 1, '', 204, told.created_at,
    told.created_at
FROM told JOIN listeners USING (share);

INSERT INTO svc_webhooks_attempt (id, delivery_id, n, at, trigger, status_code, error, duration_ms,
    response_head, response_headers)
SELECT id, id, 1, created_at, 'publish', 204, '', 5, '', '{{}}' FROM svc_webhooks_delivery;

INSERT INTO svc_webhooks_delivery (id, message_id, endpoint_id, due_at, state, lane, trigger, attempts,
    attempts_before, epoch, last_error, last_status, created_at)
SELECT gen_random_uuid(), told.id, listeners.id, now() + interval '1 hour', 'pending', 2, 'retry', 1,
    0, 1, 'http', 500, now()
FROM listeners JOIN (SELECT DISTINCT ON (share) share, id FROM told) told
ON told.share = (listeners.share + 1) % 100;

SET session_replication_role = origin;
"""  # noqa: S608 -- numbers of our own


def _grow() -> None:
    with connection.cursor() as cursor:
        cursor.execute(GROW)
        cursor.execute("VACUUM ANALYZE")


def main(how: str) -> None:
    with drive.fresh_database(), drive.receiver() as (port, _):
        for number in range(drive.ENDPOINTS):
            ours.subscribe(f"bench.event{number}", f"http://127.0.0.1:{port}/hook/{number}")
        if how == "grown":
            _grow()
        drive.publish_all(DELIVERIES + WARM_UP, ours.publish, together=500)
        deliverer = Deliverer()
        deliverer.deliver(limit=WARM_UP)
        database, own = drive.database_cpu_seconds(), time.process_time()
        count = deliverer.deliver()
        spent = drive.database_cpu_seconds() - database + time.process_time() - own
        deliverer.close()
        assert count == DELIVERIES, count
        print(spent / count * 1e6)


if __name__ == "__main__":
    main(sys.argv[1])

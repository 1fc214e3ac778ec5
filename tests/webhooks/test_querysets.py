from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from svc_infra_django.webhooks import publish
from svc_infra_django.webhooks.delivery import Deliverer
from svc_infra_django.webhooks.models import Delivery, Endpoint

MUCH = """
INSERT INTO svc_webhooks_endpoint
SELECT (jsonb_populate_record(e, jsonb_build_object('id', gen_random_uuid(), 'tenant', 'tenant ' || n))).*
FROM svc_webhooks_endpoint e, generate_series(1, 5000) n;

INSERT INTO svc_webhooks_message (id, uid, tenant, event_type, body, context, occurred_at, deliver_at,
    created_at)
SELECT gen_random_uuid(), 'msg_' || n, '', 'other', '{}', '{}', now(), now(), now()
FROM generate_series(1, 10000) n;

INSERT INTO svc_webhooks_delivery (id, message_id, endpoint_id, due_at, state, lane, trigger, attempts,
    attempts_before, epoch, last_error, created_at)
SELECT gen_random_uuid(), m.id, e.id, now(), 'succeeded', 1, 'publish', 1, 0, 1, '', now()
FROM svc_webhooks_message m, (SELECT id FROM svc_webhooks_endpoint WHERE tenant <> '' LIMIT 2) e;

INSERT INTO svc_webhooks_delivery (id, message_id, endpoint_id, due_at, state, lane, trigger, attempts,
    attempts_before, epoch, last_error, created_at)
SELECT gen_random_uuid(), m.id, e.id, now() + interval '1 hour', 'pending', 2, 'retry', 1, 0, 1,
    'http', now()
FROM (SELECT id FROM svc_webhooks_message LIMIT 1) m, svc_webhooks_endpoint e WHERE e.tenant LIKE '%9'
ON CONFLICT DO NOTHING;
"""
HAYSTACKS = ("delivery", "message", "endpoint")


@pytest.mark.postgresql
def test_however_much_is_past_each_statement_goes_by_an_index(endpoint: Endpoint, receiver: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(MUCH)
    deliverer = Deliverer()
    with CaptureQueriesContext(connection) as published:
        publish("order.placed", {})
    with CaptureQueriesContext(connection) as claimed:
        assert deliverer.claim(limit=100) == 1
    while deliverer.in_hand:
        deliverer.receive(deliverer.transport.turn(wait=0.05))
    with CaptureQueriesContext(connection) as settled:
        deliverer.flush()
    deliverer.close()
    statements = {
        "svc_webhooks_listening": _one(published, "UNION ALL"),
        "svc_webhooks_queue": _one(claimed, "taken"),
        "svc_webhooks_delivery_pkey": _one(settled, "json_to_recordset"),
    }

    # At first as when nobody has counted the rows yet, then as when autovacuum has.
    for is_counted in (False, True):
        for index, statement in statements.items():
            plan = _plan(statement)
            assert not [table for table in HAYSTACKS if f"Seq Scan on svc_webhooks_{table} " in plan], plan
            assert index in plan or not is_counted, plan
            assert "svc_webhooks_leases" not in plan, plan
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")


@pytest.mark.postgresql
def test_what_is_stranded_is_found_at_once_though_the_tables_are_believed_empty(db: None) -> None:
    """As autovacuum believes of tables that it counts while one transaction is filling them."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE pg_class SET reltuples = 0, relpages = 9 WHERE relname LIKE 'svc_webhooks_%'")
    with CaptureQueriesContext(connection) as cancelled:
        Delivery.objects.cancel_stranded(now=timezone.now())

    assert "Join" not in (plan := _plan(_one(cancelled, "UPDATE"))), plan


def _one(captured: CaptureQueriesContext, words: str) -> str:
    return next(query["sql"] for query in captured.captured_queries if words in query["sql"])


def _plan(statement: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {statement}")
        return "\n".join(line for (line,) in cursor.fetchall())

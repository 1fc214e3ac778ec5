from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from itertools import count
from typing import Any
from uuid import uuid4

import pytest
from django.apps import apps
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from svc_infra_django.accounts.models import AuditHead as AccountsHead
from svc_infra_django.accounts.tasks import chain_audit_events, prune_accounts
from svc_infra_django.apikeys.models import AuditEntry
from svc_infra_django.apikeys.models import AuditHead as KeysHead
from svc_infra_django.apikeys.tasks import chain_audit_entries, prune_audit_entries
from svc_infra_django.chains import faults, heads, lengthen, prune
from svc_infra_django.rbac.models import RoleChange, RoleChangeHead
from svc_infra_django.rbac.tasks import chain_role_changes, prune_role_changes

pytestmark = pytest.mark.django_db

numbers = count()

COLUMNS: dict[Any, Callable[[], dict[str, Any]]] = {
    AccountsHead: lambda: {
        "name": "login.failed",
        "client_address": "2001:DB8:0::7",
        "data": {"nested": [1, {"a": 0.5}], "tenth": 1 / 10, "word": "größe \ud83d\ude00"[:5]},
    },
    KeysHead: lambda: {
        "action": "issued",
        "key_id": str(uuid4()),
        "key_name": f"robot {next(numbers)}",
        "owner": "7",
        "details": {"scopes": None, "rate": ""},
    },
    RoleChangeHead: lambda: {
        "kind": RoleChange.Kind.GRANTED,
        "role_id": uuid4(),
        "role": "clerk",
        "expires_at": timezone.now(),
    },
}

JOBS = {
    AccountsHead: (chain_audit_events, prune_accounts),
    KeysHead: (chain_audit_entries, prune_audit_entries),
    RoleChangeHead: (chain_role_changes, prune_role_changes),
}


@pytest.fixture(params=COLUMNS, ids=lambda head: head._meta.label)
def head(request: pytest.FixtureRequest) -> Any:
    """The head of each of the suite's chains."""
    request.param.chain_of._default_manager.all().delete()
    return request.param


def write(head: Any, times: int = 1, **columns: Any) -> list[Any]:
    return [head.chain_of.objects.create(**COLUMNS[head]() | columns) for _ in range(times)]


@pytest.fixture
def rows(head: Any) -> Any:
    """Six rows of the chain, and one that is not in it yet."""
    write(head, 6)
    assert lengthen(head) == 6
    write(head)
    return head.chain_of.objects


def told(head: Any) -> list[str]:
    return list(faults(head))


def test_each_log_of_the_suite_is_a_chain() -> None:
    assert set(heads()) == set(COLUMNS)


def test_a_chain_that_nobody_touched_is_whole(head: Any) -> None:
    assert told(head) == []
    write(head, 3)
    assert told(head) == []
    assert (lengthen(head), lengthen(head)) == (3, 0)
    assert told(head) == []
    write(head, 2)
    assert lengthen(head) == 2
    assert told(head) == []
    assert [row.number for row in head.chain_of.objects.chained()] == [1, 2, 3, 4, 5]


def test_what_was_undone_is_in_no_chain(head: Any) -> None:
    with transaction.atomic():
        write(head)
        transaction.set_rollback(True)

    assert lengthen(head) == 0


def test_a_row_cannot_be_written_past_its_digest(head: Any) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        head.chain_of.objects.bulk_create([head.chain_of(**COLUMNS[head]())])


def test_rule_63_every_column_is_covered(rows: Any, head: Any) -> None:
    other = {"UUIDField": uuid4(), "DateTimeField": timezone.now() - timedelta(1), "JSONField": {"a": 1}}
    other |= {"GenericIPAddressField": "192.0.2.9", "PositiveBigIntegerField": 77}
    row = rows.get(number=3)

    for field in head.chain_of._meta.concrete_fields:
        if field.primary_key:
            continue
        value = other.get(field.get_internal_type(), "moved" if field.name == "kind" else "x")
        rows.filter(pk=row.pk).update(**{field.attname: value})
        assert told(head), field.name
        rows.filter(pk=row.pk).update(**{field.attname: getattr(row, field.attname)})
        assert told(head) == []


def remove(*chosen: int) -> Callable[[Any], Any]:
    return lambda rows: rows.filter(number__in=chosen).delete()


def swap(rows: Any) -> None:
    rows.filter(number=3).update(number=99)
    rows.filter(number=4).update(number=3)
    rows.filter(number=99).update(number=4)


def copy(number: int, *, at: int) -> Callable[[Any], Any]:
    def put_in(rows: Any) -> None:
        row = rows.get(number=number)
        row.pk, row.number = uuid4(), at
        row.save(force_insert=True)

    return put_in


def forge(rows: Any) -> None:
    """As a loose row, by whoever does not have the key."""
    row = rows.loose().get()
    row.pk = uuid4()
    row.save(force_insert=True)


@pytest.mark.parametrize(
    ("tamper", "expected"),
    [
        (remove(3), "Row 3 is missing."),
        (remove(3, 4), "Rows 3 to 4 are missing."),
        (remove(1, 2), "Rows 1 to 2 are missing."),
        (remove(6), "Row 6 is missing."),
        (remove(1, 2, 3, 4, 5, 6), "Rows 1 to 6 are missing."),
        (swap, "Row 3 does not follow row 2."),
        (copy(6, at=7), "Row 7 is not the one that the head names."),
        (copy(2, at=7), "Row 7 does not follow row 6."),
        (forge, "was changed."),
    ],
    ids=["middle", "two", "beginning", "end", "all", "reordered", "copied", "copied-behind", "forged"],
)
def test_rule_63_what_is_removed_reordered_or_put_in_is_found(
    rows: Any, head: Any, tamper: Any, expected: str
) -> None:
    tamper(rows)

    assert any(expected in fault for fault in told(head))
    write(head)
    lengthen(head)
    assert any(fault for fault in told(head))


def test_what_was_changed_before_it_was_chained_stays_changed(rows: Any, head: Any) -> None:
    rows.loose().update(created_at=timezone.now() - timedelta(1))
    assert len(told(head)) == 1

    lengthen(head)

    assert len(told(head)) == 1
    assert "Row 7" in told(head)[0]
    write(head)
    lengthen(head)
    assert len(told(head)) == 1


@pytest.mark.parametrize("columns", [{"number": 4}, {"pruned": 2}, {"digest": "0" * 64}, {"seal": "0" * 64}])
def test_who_moves_the_head_is_found_also_after_the_next_rows(rows: Any, head: Any, columns: Any) -> None:
    if "pruned" in columns:
        rows.filter(number__lte=2).delete()
    if "number" in columns:
        rows.filter(number__gt=4).delete()
        columns = columns | {"digest": rows.get(number=4).digest}
    head.objects.update(**columns)

    assert "The head was changed." in told(head)
    lengthen(head)
    assert "The head was changed." in told(head)


def test_who_takes_the_head_away_is_found_also_after_the_next_rows(rows: Any, head: Any) -> None:
    head.objects.all().delete()
    assert told(head) == ["The head is missing."]

    lengthen(head)

    assert told(head) == ["The head was changed."]
    assert rows.chained().last().number == 7


def test_a_new_secret_key_leaves_the_chain_whole(rows: Any, head: Any, settings: Any) -> None:
    old = settings.SECRET_KEY
    settings.SECRET_KEY = "whoever-has-the-database-alone-does-not-know-the-other-one-0123456789"
    assert len(told(head)) == 8

    settings.SECRET_KEY_FALLBACKS = [old]
    assert told(head) == []
    lengthen(head)
    assert told(head) == []


def test_what_is_old_goes_from_the_beginning_and_the_chain_stays_whole(rows: Any, head: Any) -> None:
    now = timezone.now()
    write(head, 2, created_at=now - timedelta(days=9))
    lengthen(head)  # 8 and 9 are old, and behind younger ones
    write(head, created_at=now - timedelta(days=9))

    assert prune(head, before=now - timedelta(days=8)) == 0
    assert prune(head, before=rows.get(number=4).created_at) == 3
    assert [row.number for row in rows.chained()] == [4, 5, 6, 7, 8, 9]
    assert told(head) == []
    remove(4)(rows)
    assert told(head) == ["Row 4 is missing."]


def test_the_last_row_is_kept_so_that_the_chain_goes_on_from_it(rows: Any, head: Any) -> None:
    lengthen(head)

    assert prune(head, before=timezone.now() + timedelta(days=1)) == 6
    assert prune(head, before=timezone.now() + timedelta(days=1)) == 0
    assert [row.number for row in rows.chained()] == [7]
    write(head)
    lengthen(head)
    assert [row.number for row in rows.chained()] == [7, 8]
    assert told(head) == []


def test_pruning_before_anything_was_written_changes_nothing(head: Any) -> None:
    assert prune(head, before=timezone.now()) == 0
    assert told(head) == []


def test_the_jobs_chain_and_prune(head: Any) -> None:
    chain, prune_all = JOBS[head]
    write(head, 3, created_at=timezone.now() - timedelta(days=401))
    write(head, 2)
    chain.call()
    assert head.chain_of.objects.chained().count() == 5

    prune_all.call()

    assert [row.number for row in head.chain_of.objects.chained()] == [4, 5]
    assert told(head) == []


@pytest.mark.django_db(transaction=True)
def test_those_who_write_and_chain_at_once_make_one_chain(make_user: Any) -> None:
    head = KeysHead
    errors: list[Exception] = []
    barrier = threading.Barrier(6)

    def work() -> None:
        try:
            barrier.wait(60)
            for _ in range(4):
                write(head)
                lengthen(head)
        except Exception as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    lengthen(head)
    assert [row.number for row in AuditEntry.objects.chained()] == list(range(1, 25))
    assert told(head) == []


def verified(*arguments: str) -> str:
    out = StringIO()
    call_command("verify_audit", *arguments, stdout=out, stderr=StringIO())
    return out.getvalue()


def test_the_command_verifies_every_log_and_finds_a_digest_again(rows: Any, head: Any) -> None:
    last = rows.chained().last()

    assert f"{head.chain_of._meta.label}: ends with row 6, {last.digest}; 1 not chained" in verified()
    assert verified("--contains", last.digest)
    with pytest.raises(CommandError, match="put back"):
        verified("--contains", "00" * 32)
    rows.filter(number=2).update(tenant="acme")
    with pytest.raises(CommandError, match="1 faults"):
        verified()


def exported(*arguments: str) -> list[dict[str, Any]]:
    out = StringIO()
    call_command("export_audit", *arguments, stdout=out)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_the_command_exports_what_is_asked_for(rows: Any, head: Any) -> None:
    label = head.chain_of._meta.label
    lines = exported(label, "--since", "2020-01-01T00:00:00Z")

    assert [line.get("number") for line in lines] == [1, 2, 3, 4, 5, 6, None]
    assert lines[0]["digest"] == rows.get(number=1).digest
    assert {line["log"] for line in lines} == {label}
    columns = {field.attname for field in head.chain_of._meta.concrete_fields}
    assert set(lines[0]) == {"log", *columns}
    assert set(lines[-1]) == {"log", *columns} - {"number", "previous", "digest"}
    assert [line["created_at"] for line in lines] == sorted(line["created_at"] for line in lines)
    assert len(exported("--since", "2020-01-01")) == sum(
        each.chain_of._default_manager.count() for each in heads()
    )
    assert exported(label, "--since", "2999-01-01T00:00:00Z") == []
    assert len(exported("--only", f"digest={lines[0]['digest']}")) == 1
    assert exported("--only", "nonsense=7") == []
    for wrong in (["--since", "yesterday"], ["--only", "nonsense"]):
        with pytest.raises(CommandError):
            exported(*wrong)


def test_the_admin_exports_what_is_chosen(rows: Any, head: Any, admin_client: Any) -> None:
    options = head.chain_of._meta
    page = f"/admin/{options.app_label}/{options.model_name}/"
    row = rows.get(number=3)

    assert row.digest in admin_client.get(f"{page}{row.pk}/change/").content.decode()
    answer = admin_client.post(page, {"action": "export_selected", "_selected_action": [str(row.pk)]})
    assert answer["Content-Type"] == "application/jsonl"
    assert json.loads(answer.content)["digest"] == row.digest


def test_no_head_is_registered_for_anybody_to_edit() -> None:
    from django.contrib import admin

    assert not any(admin.site.is_registered(apps.get_model(head._meta.label)) for head in heads())

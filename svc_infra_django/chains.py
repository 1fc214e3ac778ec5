"""Logs that nobody changes unseen: rows under a keyed digest, each bound to the one before.

A row is written in the transaction of what it tells, with a digest of what it says; nobody waits for
anybody. Soon after, a job puts new rows at the end of the chain: the digest then covers the number of
the row and the digest before it as well. The head, one row in a table of its own and sealed alike, says
where the chain begins and ends. The keys are made from SECRET_KEY, which the database does not hold.

So whoever has the database alone cannot change, remove, reorder or put in a row without `faults` telling.
One thing cannot be seen from inside: rows and head both put back to what they were at an earlier time. For
that, note the digest of the end somewhere else from time to time.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, ClassVar, TypeVar

from django.apps import apps
from django.db import models, router, transaction
from django.db.models import F
from django.utils import timezone

from .rows import id_field
from .sealing import derived_keys

BATCH = 500
LINK = ("number", "previous", "digest")
EMPTY: tuple[Any, ...] = ("", None, [], {})

RowT = TypeVar("RowT", bound="ChainedRow", covariant=True)


class ChainedQuerySet(models.QuerySet[RowT]):
    """Rows of a chain."""

    def loose(self) -> ChainedQuerySet[RowT]:
        """Rows that are not in the chain yet."""
        return self.filter(number=None)

    def chained(self) -> ChainedQuerySet[RowT]:
        """Rows of the chain, in its order."""
        return self.filter(number__isnull=False).order_by("number")


class ChainedRow(models.Model):
    """Something that happened. Subclasses add what they tell; a class of theirs from `ChainHead` is the end.

    Write rows one by one, by `create` or `save`, and never change them.
    """

    id = id_field()
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    number = models.PositiveBigIntegerField(null=True, unique=True, editable=False)
    previous = models.CharField(max_length=64, blank=True, editable=False)
    digest = models.CharField(max_length=64, editable=False)

    class Meta:
        abstract = True
        constraints: ClassVar[list[Any]] = [
            models.CheckConstraint(condition=~models.Q(digest=""), name="%(app_label)s_%(class)s_digest")
        ]
        indexes: ClassVar[list[Any]] = [
            models.Index(fields=["id"], condition=models.Q(number=None), name="%(app_label)s_%(class)s_loose")
        ]

    def save(self, *args: Any, **options: Any) -> None:
        """A new row gets the digest of what it says."""
        if self._state.adding:
            self.digest = self.digests()[0]
        super().save(*args, **options)

    @property
    def record(self) -> dict[str, Any]:
        """What the row says, as it is exported."""
        fields = (field for field in self._meta.concrete_fields if field.name not in LINK)
        return {field.attname: _plain(field.to_python(getattr(self, field.attname))) for field in fields}

    def digests(self) -> list[str]:
        """The digest that the row should have, under every key that is still good, the present one first.

        Empty columns are left out, so that a table may get new ones.
        """
        told = {name: value for name, value in self.record.items() if value not in EMPTY}
        return _digests(self._meta.label_lower, [self.number, self.previous, told])

    def is_good(self) -> bool:
        """Whether the row says what it said when it was written."""
        return any(hmac.compare_digest(self.digest, digest) for digest in self.digests())


class ChainHead(models.Model):
    """Where a chain begins and ends: one row, at which those who lengthen or prune the chain take turns."""

    chain_of: ClassVar[type[ChainedRow]]

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    pruned = models.PositiveBigIntegerField(default=0)
    """The number up to which rows were let go because they were old."""

    number = models.PositiveBigIntegerField(default=0)
    digest = models.CharField(max_length=64, blank=True)
    seal = models.CharField(max_length=64, blank=True)

    class Meta:
        abstract = True
        constraints: ClassVar[list[Any]] = [
            models.CheckConstraint(condition=models.Q(id=1), name="%(app_label)s_one_%(class)s")
        ]

    def __str__(self) -> str:
        return str(self.number)

    def digests(self) -> list[str]:
        """The seal that the head should have, under every key that is still good, the present one first."""
        return _digests(self._meta.label_lower, [self.pruned, self.number, self.digest])

    def is_good(self) -> bool:
        """Whether the head says what it said when it was sealed."""
        return any(hmac.compare_digest(self.seal, seal) for seal in self.digests())

    def move(self, **columns: Any) -> None:
        """Write the columns. What was badly sealed is not sealed again: that somebody was here stays seen."""
        was_good = self.is_good()
        for name, value in columns.items():
            setattr(self, name, value)
        if was_good:
            self.seal = self.digests()[0]
        self.save()


def heads() -> list[type[ChainHead]]:
    """The heads of every chain in the installed apps."""
    return [model for model in apps.get_models() if issubclass(model, ChainHead)]


def lengthen(head_model: type[ChainHead]) -> int:
    """Put rows that are not in the chain yet at its end; how many there were."""
    done = 0
    while linked := _link_some(head_model):
        done += linked
    return done


def prune(head_model: type[ChainHead], *, before: datetime) -> int:
    """Let go of the rows at the beginning that are older; how many there were. The last is always kept."""
    rows: Any = head_model.chain_of._default_manager
    with transaction.atomic(using=router.db_for_write(head_model)):
        head = _locked(head_model)
        # Of rows of one moment any may come first, so what is younger than the next may lie before it.
        young = rows.chained().filter(created_at__gte=before).first()
        through = min(head.number, head.number if young is None else young.number) - 1
        if through <= head.pruned:
            return 0
        gone: int = rows.chained().filter(number__lte=through).delete()[0]
        head.move(pruned=through)
    return gone


def faults(head_model: type[ChainHead]) -> Iterator[str]:
    """What is wrong with the chain, in its order: changed, missing and alien rows. Nothing if it is whole."""
    heads = head_model._default_manager
    begun = heads.first() or head_model()
    before: ChainedRow | None = None
    first = 0
    # All in one query: what is chained meanwhile is then seen either before or after, and not lost between.
    rows = head_model.chain_of._default_manager.order_by(F("number").asc(nulls_last=True), "id")
    for row in rows.iterator(chunk_size=BATCH):
        if row.number is not None:
            # Rows before the first were pruned, or else they are missing: the head tells which, below.
            if before is None:
                first = row.number
            elif row.number != (before.number or 0) + 1:
                yield _missing((before.number or 0) + 1, row.number - 1)
            elif row.previous != before.digest:
                yield f"Row {row.number} does not follow row {before.number}."
            before = row
        if not row.is_good():
            yield f"Row {row.number or 'without a number'} ({row.pk}) was changed."
    ended = heads.first()
    if before is None:
        if begun.number:
            yield _missing(begun.pruned + 1, begun.number)
    elif ended is None:
        yield "The head is missing."
    else:
        number = before.number or 0
        if first > ended.pruned + 1:
            yield _missing(ended.pruned + 1, first - 1)
        if number < begun.number:
            yield _missing(number + 1, begun.number)
        elif number > ended.number or (number == ended.number and before.digest != ended.digest):
            yield f"Row {number} is not the one that the head names."
    if ended is not None and not ended.is_good():
        yield "The head was changed."


def exported_lines(rows: Iterable[ChainedRow]) -> Iterator[str]:
    """The rows as JSON, one a line: log, columns, and number and digests where they are chained."""
    for row in rows:
        link = {} if row.number is None else {name: getattr(row, name) for name in LINK}
        yield json.dumps({"log": row._meta.label} | row.record | link) + "\n"


def _link_some(head_model: type[ChainHead]) -> int:
    rows: Any = head_model.chain_of._default_manager
    with transaction.atomic(using=router.db_for_write(head_model)):
        head = _locked(head_model)
        found: list[ChainedRow] = list(rows.loose().order_by("id")[:BATCH])
        if not found:
            return 0
        # A row that somebody put behind the end keeps its number, and does not stop those that come.
        last = rows.chained().last()
        end = head.number if last is None else max(head.number, last.number)
        previous = head.digest
        for number, row in enumerate(found, end + 1):
            # A row that was changed already keeps its digest, which then tells for good.
            is_good = row.is_good()
            row.number, row.previous = number, previous
            if is_good:
                row.digest = row.digests()[0]
            previous = row.digest
        rows.bulk_update(found, LINK)
        head.move(number=end + len(found), digest=previous)
    return len(found)


def _locked(head_model: type[ChainHead]) -> ChainHead:
    heads = head_model._default_manager
    if (head := heads.select_for_update().first()) is None:
        # Of two firsts at once the database lets one in, and both then wait for the lock.
        heads.bulk_create([head_model()], ignore_conflicts=True)
        head = heads.select_for_update().get()
    if not (head.number or head.seal):
        last = head_model.chain_of._default_manager.filter(number__isnull=False).order_by("number").last()
        if last is None:
            head.seal = head.digests()[0]
        else:  # its head was taken away: the chain goes on, the new head is not sealed
            head.number, head.digest = last.number or 0, last.digest
        head.save()
    return head


def _missing(first: int, last: int) -> str:
    return f"Row {first} is missing." if first == last else f"Rows {first} to {last} are missing."


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return value if isinstance(value, (str, int, list, dict, type(None))) else str(value)


def _digests(purpose: str, told: list[Any]) -> list[str]:
    text = json.dumps(told, sort_keys=True).encode()
    return [hmac.digest(key, text, "sha256").hex() for key in derived_keys(f"chains.{purpose}")]

"""Whether the audit log is as it was written."""

from __future__ import annotations

from dataclasses import dataclass

from ..hashing import audit_keys, chained
from ..models import AuditEntry, AuditHead

BATCH = 1000


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What a walk along the chain found."""

    entries: int
    """How many entries are in order, from the first on."""

    broken_at: int | None
    """The sequence of the first entry that was changed, removed or put in; None if there is none."""

    head: str
    """The digest at the end. Kept elsewhere, it shows later that nothing up to here was taken back."""

    @property
    def is_intact(self) -> bool:
        return self.broken_at is None


def verify_audit() -> AuditReport:
    """Walk the chain from its first entry to its head.

    Without the secret, which the database does not hold, nobody can change, remove or put in an entry so
    that this does not tell; only the whole log can be put back to an earlier state of itself.
    """
    # Before the entries: what is appended meanwhile is for the next walk.
    head = AuditHead.objects.first() or AuditHead()
    previous, expected = bytes(32), 1
    entries = AuditEntry.objects.filter(sequence__lte=head.sequence).order_by("sequence")
    for entry in entries.iterator(chunk_size=BATCH):
        told = entry.told()
        possible = (chained(previous, told, key=key) for key in audit_keys())
        if entry.sequence != expected or bytes(entry.digest) not in possible:
            return AuditReport(expected - 1, expected, previous.hex())
        previous, expected = bytes(entry.digest), expected + 1
    is_whole = (head.sequence, bytes(head.digest)) == (expected - 1, previous)
    return AuditReport(expected - 1, None if is_whole and not _is_put_in(head) else expected, previous.hex())


def _is_put_in(head: AuditHead) -> bool:
    """Whether something stands behind the head, although the head has not moved."""
    behind = AuditEntry.objects.filter(sequence__gt=head.sequence).exists()
    return behind and not AuditHead.objects.filter(sequence__gt=head.sequence).exists()

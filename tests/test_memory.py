from __future__ import annotations

from threading import Thread
from time import monotonic

import pytest

from svc_infra_django import memory as module
from svc_infra_django.memory import STRIPES, Memory


@pytest.fixture
def kept() -> Memory[str]:
    return Memory(20)


def test_what_is_kept_is_recalled_by_its_name_only(kept: Memory[str]) -> None:
    kept.keep(b"a", "value", kept.ticket())

    assert (kept.recall(b"a"), kept.recall(b"b")) == ("value", None)


def test_nothing_is_believed_longer_than_from_when_its_read_began(
    kept: Memory[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = monotonic()
    monkeypatch.setattr(module, "monotonic", lambda: now)
    quick, slow, never = (kept.ticket("ada", seconds=seconds) for seconds in (2, 1, 0))
    now += 1
    for name, ticket in ((b"quick", quick), (b"slow", slow), (b"never", never)):
        kept.keep(name, "value", ticket)

    assert (kept.recall(b"quick"), kept.recall(b"slow"), len(kept)) == ("value", None, 1)
    for _ in range(9):  # to be asked often makes nothing last
        now += 0.1
        assert kept.recall(b"quick")
    now += 0.2
    assert kept.recall(b"quick") is None


def test_a_slow_reader_brings_back_nothing_that_was_forgotten(kept: Memory[str]) -> None:
    slow = kept.ticket("ada")
    kept.forget("ada")
    kept.keep(b"a", "old", slow)
    assert kept.recall(b"a") is None

    kept.keep(b"a", "new", kept.ticket("ada"))
    assert kept.recall(b"a") == "new"
    kept.forget("ada")
    assert kept.recall(b"a") is None


def test_only_the_stripe_of_a_group_is_forgotten(kept: Memory[str]) -> None:
    other = next(
        str(number) for number in range(1000) if hash(str(number)) % STRIPES != hash("ada") % STRIPES
    )
    kept.keep(b"o", "value", kept.ticket(other))
    kept.forget("ada")

    assert kept.recall(b"o") == "value"


def test_to_forget_everything_also_concerns_who_is_reading(kept: Memory[str]) -> None:
    kept.keep(b"a", "value", kept.ticket())
    reading = kept.ticket("ada")
    kept.clear()
    kept.keep(b"b", "value", reading)

    assert (kept.recall(b"a"), kept.recall(b"b")) == (None, None)


def test_it_is_bounded_and_keeps_what_came_last(kept: Memory[str]) -> None:
    for number in range(100):
        kept.keep(bytes([number]), str(number), kept.ticket())

    known = [number for number in range(100) if kept.recall(bytes([number]))]
    assert 10 <= len(known) <= 20
    assert known == list(range(100 - len(known), 100))


def test_threads_that_forget_at_once_are_all_heard(kept: Memory[str]) -> None:
    before = kept.ticket("ada").forgotten
    threads = [Thread(target=lambda: [kept.forget("ada") for _ in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert kept.ticket("ada").forgotten == before + 2000

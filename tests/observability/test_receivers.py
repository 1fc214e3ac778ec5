from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db import transaction
from pydantic import BaseModel

from svc_infra_django.events import EventType, catalog

from .conftest import sample


class Brewed(BaseModel):
    pot: int


@pytest.fixture
def tea_brewed() -> Iterator[EventType[Brewed]]:
    yield EventType("tea.brewed", Brewed)
    del catalog["tea.brewed"]


@pytest.mark.django_db(transaction=True)
def test_an_event_is_counted_and_logged_once_it_is_true(tea_brewed, lines) -> None:
    before = sample("events_total", type="tea.brewed")

    with transaction.atomic():
        event = tea_brewed.emit(Brewed(pot=1), tenant="kitchen")
        assert lines.of("svc_infra_django") == []

    (line,) = lines.of("svc_infra_django")
    assert (line.event_type, line.event_id, line.tenant) == ("tea.brewed", str(event.id), "kitchen")
    assert sample("events_total", type="tea.brewed") == before + 1


@pytest.mark.django_db(transaction=True)
def test_an_event_that_was_undone_is_neither(tea_brewed, lines) -> None:
    before = sample("events_total", type="tea.brewed")

    with pytest.raises(RuntimeError), transaction.atomic():
        tea_brewed.emit(Brewed(pot=1))
        raise RuntimeError

    assert lines.of("svc_infra_django") == []
    assert sample("events_total", type="tea.brewed") == before

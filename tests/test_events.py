from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import transaction
from pydantic import BaseModel

from svc_infra_django.events import Event, EventType, any_event, catalog

pytestmark = pytest.mark.django_db


class Brewed(BaseModel):
    """A pot of tea
    is ready."""

    pot: int


class Other(BaseModel):
    pot: int


@pytest.fixture
def tea_brewed() -> Iterator[EventType[Brewed]]:
    yield EventType("tea.brewed", Brewed)
    del catalog["tea.brewed"]


@pytest.fixture
def heard() -> Iterator[list[Event[Any]]]:
    events: list[Event[Any]] = []

    def hear(event: Event[Any], **_: Any) -> None:
        events.append(event)

    any_event.connect(hear)
    yield events
    any_event.disconnect(hear)


def test_an_event_reaches_its_own_receivers_and_those_of_all(tea_brewed, heard, user) -> None:
    own = []
    receiver = lambda event, **_: own.append(event)  # noqa: E731 a named function would say no more
    tea_brewed.connect(receiver)

    event = tea_brewed.emit(Brewed(pot=1), owner=user, tenant="kitchen")

    assert own == heard == [event]
    assert (event.type, event.payload, event.owner, event.tenant) == (
        tea_brewed,
        Brewed(pot=1),
        user,
        "kitchen",
    )


def test_events_sort_by_birth(tea_brewed) -> None:
    ids = [tea_brewed.emit(Brewed(pot=number)).id for number in range(20)]

    assert ids == sorted(ids)
    assert {identifier.version for identifier in ids} == {7}


def test_a_receiver_that_raises_undoes_the_act(tea_brewed, make_user) -> None:
    def refuse(**_: Any) -> None:
        raise RuntimeError("no tea")

    tea_brewed.connect(refuse)

    with pytest.raises(RuntimeError, match="no tea"), transaction.atomic():
        brewer = make_user("brewer")
        tea_brewed.emit(Brewed(pot=1))

    assert not type(brewer).objects.filter(username="brewer").exists()


@pytest.mark.parametrize("payload", [Other(pot=1), {"pot": 1}, None])
def test_a_payload_of_another_type_is_refused_before_anyone_hears(tea_brewed, heard, payload) -> None:
    with pytest.raises(TypeError, match="takes a Brewed"):
        tea_brewed.emit(payload)

    assert heard == []


def test_a_name_is_declared_once(tea_brewed) -> None:
    with pytest.raises(ValueError, match="declared twice"):
        EventType("tea.brewed", Brewed)


@pytest.mark.parametrize(
    "name", ["", "tea", "Tea.brewed", "tea.", ".brewed", "tea.*", "tea brewed", "tea..brewed"]
)
def test_a_name_that_no_pattern_could_match_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="must look like"):
        EventType(name, Brewed)
    assert name not in catalog


def test_the_summary_comes_from_the_payload(tea_brewed) -> None:
    assert tea_brewed.summary == "A pot of tea is ready."
    assert repr(tea_brewed) == "<EventType tea.brewed>"
    assert not tea_brewed.outward

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from .conftest import Demo, wait_until

pytestmark = [pytest.mark.postgresql, pytest.mark.redis]

ORDER = {"customer_email": "grace@example.com", "item": "Teapot", "quantity": 1, "unit_price": "19.50"}


@pytest.fixture
def database_url() -> Iterator[str]:
    """A database of its own on the server that the tests use."""
    server, name = os.environ["DATABASE_URL"], f"example_{os.getpid()}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    yield urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def test_the_same_demo_runs_on_postgresql_and_redis(demo: Callable[..., Demo], database_url: str) -> None:
    show = demo(DATABASE_URL=database_url, REDIS_URL=os.environ["REDIS_URL"])
    show.start()
    clerk = show.sign_in("clerk")

    before = show.browser.get("/api/orders/summary", **clerk).json["orders"]
    placed = show.browser.post("/api/orders", ORDER, **clerk)

    assert placed.status == 201, placed.text
    assert show.browser.get("/api/orders/summary", **clerk).json["orders"] == before + 1
    assert wait_until(lambda: placed.json["id"] in show.browser.get("/demo/webhooks/inbox").text), show.said
    assert wait_until(lambda: list((show.folder / "mail").glob("*"))), show.said
    assert not (show.folder / "db.sqlite3").exists()
    assert show.stop() == 0
    assert show.processes() == {}

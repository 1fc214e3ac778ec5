"""Runs the Python blocks of README.md and docs/ as tests: a document from top to bottom, one name space."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection
from django.test import TestCase
from django.test.utils import setup_databases, teardown_databases
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

# What a settings or URL module already has when a reader adds the block to it.
ALREADY_THERE: dict[str, Callable[[], Any]] = {
    "INSTALLED_APPS": list,
    "MIDDLEWARE": list,
    "AUTHENTICATION_BACKENDS": list,
    "DATABASES": lambda: {"default": {}},
    "SVC_INFRA": dict,
    "urlpatterns": list,
}


def start_document(namespace: dict[str, Any]) -> None:
    namespace.update({name: make() for name, make in ALREADY_THERE.items()})


class DocumentTransaction:
    """Rows that one block makes are there for the next; the next document starts without them."""

    def __init__(self) -> None:
        self.path: str | None = None
        self.atomics: Any = None

    def enter(self, path: str) -> None:
        if path != self.path:
            self.leave()
            self.path, self.atomics = path, TestCase._enter_atomics()  # type: ignore[attr-defined]

    def leave(self) -> None:
        if self.atomics is not None:
            TestCase._rollback_atomics(self.atomics)  # type: ignore[attr-defined]
        self.path = self.atomics = None


@pytest.fixture(scope="session")
def document_transaction(
    django_test_environment: None, django_db_setup: None, django_db_blocker: Any
) -> Iterator[DocumentTransaction]:
    with django_db_blocker.unblock():
        # pytest-django makes the databases that test functions ask for; code blocks ask for nothing.
        creation: Any = connection.creation
        is_made = connection.settings_dict["NAME"] == creation._get_test_db_name()
        databases = [] if is_made else setup_databases(verbosity=0, interactive=False)
        transaction = DocumentTransaction()
        yield transaction
        transaction.leave()
        teardown_databases(databases, verbosity=0)


@pytest.fixture
def document(request: pytest.FixtureRequest, document_transaction: DocumentTransaction) -> None:
    document_transaction.enter(str(request.node.path))


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    patterns=["README.md", "docs/**/*.md"],
    setup=start_document,
    fixtures=["document"],
).pytest()

from __future__ import annotations

from tests.jobs.conftest import ledger  # noqa: F401 - a fixture

from __future__ import annotations

from tests.jobs.conftest import ledger, rewritten  # noqa: F401 - fixtures
from tests.webhooks.conftest import receiver  # noqa: F401 - a fixture

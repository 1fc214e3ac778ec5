from __future__ import annotations

from tests.jobs.conftest import ledger  # noqa: F401 - a fixture
from tests.webhooks.conftest import receiver  # noqa: F401 - a fixture

"""What tests make odd about the process that runs jobs. Imported before Django is set up."""

from __future__ import annotations

import os
import resource
import signal
import time
from datetime import timedelta
from pathlib import Path
from typing import Any


def put_the_clock_forward(seconds: float) -> None:
    from django.utils import timezone

    true_now, true_time = timezone.now, time.time
    timezone.now = lambda: true_now() + timedelta(seconds=seconds)
    time.time = lambda: true_time() + seconds


def limit_memory(size: int) -> None:
    """Bytes of address space."""
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


def die_after_a_claim(armed: str) -> None:
    """Once there is a file `armed`, the first process that has claimed jobs removes it and is killed."""
    from svc_infra_django.jobs import turn

    claim = turn._take_turn

    def claim_and_die(*args: Any, **options: Any) -> Any:
        claimed = claim(*args, **options)
        if claimed and Path(armed).exists():
            Path(armed).unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return claimed

    turn._take_turn = claim_and_die

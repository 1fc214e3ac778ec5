from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import ROOT, Demo, wait_until

pytestmark = [
    pytest.mark.sqlite,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc"),
]


def paste(lines: list[str]) -> list[str]:
    """What a shell says to the lines, each answer apart."""
    script = "\n".join(f"{line}\necho; echo ----" for line in lines)
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, timeout=30)
    return [answer.strip() for answer in done.stdout.split("----\n")][:-1]


def test_the_printed_lines_work_when_pasted_the_next_start_keeps_the_data_and_no_end_leaves_anything(
    demo: Callable[..., Demo],
) -> None:
    show = demo()
    show.start()

    addresses = re.findall(r"http://\S+", show.said.partition("Paste these")[0])
    assert {show.browser.get(address).status for address in addresses} == {200}

    login, _, me, placed, listed, received = paste(show.curl_lines())

    shown = [line for line in (ROOT / "README.md").read_text("utf-8").splitlines() if line.startswith('{"')]
    for answer, in_readme in zip((login, me, placed, received), shown, strict=True):
        assert json.loads(answer).keys() == json.loads(in_readme).keys()
    assert json.loads(me)["email"] == "clerk@example.com"
    order = json.loads(placed)
    assert [each["id"] for each in json.loads(listed)["items"]] == [order["id"]]
    assert json.loads(received)["is_failing"] is False
    assert wait_until(lambda: order["id"] in show.browser.get("/demo/webhooks/inbox").text)

    assert show.stop(signal.SIGINT) == 0
    assert show.processes() == {}
    show.start()

    kept = show.browser.get("/api/orders", **show.sign_in("clerk")).json
    assert [each["id"] for each in kept["items"]] == [order["id"]]
    assert show.process is not None
    show.process.kill()
    show.process.wait()
    assert wait_until(lambda: not show.processes()), show.processes()


def test_a_taken_port_is_named_with_the_way_out(demo: Callable[..., Demo]) -> None:
    show = demo()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", show.port))
        taken.listen()
        done = subprocess.run(
            [sys.executable, "manage.py", "serve"],
            cwd=ROOT,
            env=show.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    assert done.returncode == 1
    assert f"Port {show.port}" in done.stderr
    assert "PORT=" in done.stderr

"""The lines under "Add it to your project" in README.md, pasted into a project that Django just made."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

# What these start has servers and databases of its own, the same in every pass: one pass is enough.
pytestmark = pytest.mark.sqlite

README = Path(__file__).parents[2] / "README.md"
HEADING = "## Add it to your project"

# Looks for complaints, signs in to the admin and sees every page of the new project that the README promises.
VISIT = """
import json, os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "mysite.settings"
import django
django.setup()
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client

call_command("check", fail_level="WARNING")
User.objects.create_superuser("ada", "ada@example.com", "correct horse battery staple 7")
client = Client(raise_request_exception=False, headers={"host": "localhost"})
client.login(username="ada", password="correct horse battery staple 7")
print(json.dumps({path: client.get(path).status_code for path in sys.argv[1:]}))
"""


def blocks() -> dict[str, str]:
    """The README's lines for each file of the project: `{"settings": ..., "urls": ...}`."""
    text = README.read_text(encoding="utf-8")
    section = text.partition(HEADING)[2].partition("\n## ")[0]
    lines: dict[str, str] = {}
    for block in re.findall(r"```python\n(.*?)```", section, re.DOTALL):
        # A comment such as `# mysite/urls.py` says where the lines after it belong.
        for part in re.split(r"(?m)^(?=# \S*(?:settings|urls)\.py)", block):
            if part.strip():
                named = re.match(r"# \S*(settings|urls)\.py", part)
                file = named[1] if named else "urls" if "urlpatterns" in part else "settings"
                lines[file] = lines.get(file, "") + part
    return lines


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    run(folder, "-m", "django", "startproject", "mysite", ".")
    for file, lines in blocks().items():
        with (folder / "mysite" / f"{file}.py").open("a", encoding="utf-8") as module:
            module.write(f"\n{lines}")
    run(folder, "manage.py", "migrate", "--verbosity", "0")
    return folder


def run(folder: Path, *arguments: str) -> str:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("DJANGO", "SVC_"))
    }
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(README.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readme_needs_ten_lines() -> None:
    lines = [line for part in blocks().values() for line in part.splitlines() if line.strip()]

    assert set(blocks()) == {"settings", "urls"}
    assert len(lines) <= 10


@pytest.mark.parametrize("path", ["/api/docs", "/api/openapi.json", "/healthz"])
def test_the_project_answers(project: Path, path: str, visited: dict[str, int]) -> None:
    assert visited[path] == 200


@pytest.mark.parametrize("model", ["svc_apikeys/apikey", "svc_webhooks/endpoint"])
def test_keys_and_webhooks_are_in_the_admin(project: Path, model: str, visited: dict[str, int]) -> None:
    assert visited[f"/admin/{model}/"] == 200
    assert visited[f"/admin/{model}/add/"] == 200


@pytest.fixture(scope="module")
def visited(project: Path) -> dict[str, int]:
    models = ("svc_apikeys/apikey", "svc_webhooks/endpoint")
    pages = [f"/admin/{model}/{page}" for model in models for page in ("", "add/")]
    answer: dict[str, int] = json.loads(
        run(project, "-c", VISIT, "/api/docs", "/api/openapi.json", "/healthz", *pages).splitlines()[-1]
    )
    return answer

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_an_account_lives_on_user_models_of_the_projects_own(tmp_path: Path) -> None:
    lives = {
        model: subprocess.Popen(
            [sys.executable, "-m", "tests.accounts.story", model, str(tmp_path / f"{model}.sqlite3")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for model in ("people.Person", "people.Member")
    }
    told = {model: life.communicate(timeout=600)[0] for model, life in lives.items()}

    assert {model: text.splitlines()[-1:] for model, text in told.items()} == {
        model: ["lived"] for model in lives
    }

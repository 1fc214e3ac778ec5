"""How we measure: ours and the peer in turn, fresh processes, medians, and the spread told."""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import cache
from itertools import count
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))


@dataclass(frozen=True)
class Contender:
    """A program that measures itself: `python -m <module> <arguments>` prints its number last."""

    name: str
    module: str
    packages: tuple[str, ...] = ()
    """What its own environment holds; empty for ours, which runs where this runs."""

    python: tuple[int, int] = (3, 11)
    """The first version of Python that it runs on."""

    def interpreter(self) -> str:
        return str(_environment(self)) if self.packages else sys.executable

    def measure(self, *arguments: str, **environment: str) -> float:
        return self.measure_all(*arguments, **environment)[-1]

    def measure_all(self, *arguments: str, **environment: str) -> list[float]:
        """The numbers of the last line."""
        done = subprocess.run(
            [self.interpreter(), "-m", self.module, *arguments],
            cwd=ROOT,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{self.module} {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
        return [float(word) for word in done.stdout.splitlines()[-1].split()]

    def each_round(self, *arguments: str, place: int = -1, **environment: str) -> Callable[[], float]:
        """`measure` once for each round: in cases that ask for the same, the same number stands again.

        `place` chooses one of several numbers.
        """
        rounds = count()
        return lambda: _measured_in(next(rounds), self, arguments, tuple(environment.items()))[place]


@cache
def _measured_in(
    number: int, contender: Contender, arguments: tuple[str, ...], environment: tuple[tuple[str, str], ...]
) -> list[float]:
    return contender.measure_all(*arguments, **dict(environment))


@dataclass(frozen=True)
class Case:
    """One row of the result. `ratio` is how many times better ours is, `bar` what it should be at least."""

    case: str
    ours: float
    peer: float
    peer_name: str
    unit: str
    ratio: float
    spread: float
    bar: float
    met: bool
    left_out: str = ""
    """Why it could not be measured."""


chosen = ""
"""Only cases with this in their title or in the peer's name are measured."""

NOT_CHOSEN = Case("", 0, 0, "", "", 0, 0, 0, False)


def compare(
    case: str,
    *,
    unit: str,
    bar: float,
    peer_name: str,
    ours: Callable[[], float],
    peer: Callable[[], float],
    higher_is_better: bool,
    rounds: int = ROUNDS,
    warm_up: bool = True,
) -> Case:
    """Measure both in turn, `rounds` times after a round that does not count; a single round does.

    Without `warm_up` each round counts: for what warms up in its own process before it measures.

    Nothing, and NOT_CHOSEN, for a case that was not chosen. One that fails is told and left out.

    The ratio is the median of the rounds' ratios, so that a slow minute of the machine hits both sides;
    `spread` is half the distance between the quartiles of these ratios, relative to the ratio.
    """
    if chosen not in f"{case}, {peer_name}":
        return NOT_CHOSEN
    rounds = min(rounds, ROUNDS)
    pairs = []
    try:
        if warm_up and rounds > 1:
            ours(), peer()
        for number in range(1, rounds + 1):
            pairs.append((ours(), peer()))
            mine, theirs = pairs[-1]
            print(
                f"  {case}, {peer_name}: round {number} of {rounds}: {mine:.1f} and {theirs:.1f} {unit}",
                flush=True,
            )
    except Exception as error:  # what cannot be measured costs its own case and no other
        print(f"  {case}, {peer_name}: LEFT OUT:\n{error}", flush=True)
        reason = (str(error).strip() or repr(error)).splitlines()[-1]
        return Case(case, 0, 0, peer_name, unit, 0, 0, bar, met=False, left_out=reason)
    ratios = [mine / theirs if higher_is_better else theirs / mine for mine, theirs in pairs]
    ratio = statistics.median(ratios)
    # A single round, made to see that a benchmark works, has no spread.
    lower, _, upper = statistics.quantiles(ratios if rounds > 1 else ratios * 2, n=4, method="inclusive")
    return Case(
        case=case,
        ours=round(statistics.median(mine for mine, _ in pairs), 2),
        peer=round(statistics.median(theirs for _, theirs in pairs), 2),
        peer_name=peer_name,
        unit=unit,
        ratio=round(ratio, 2),
        spread=round((upper - lower) / 2 / ratio, 3),
        bar=bar,
        met=ratio >= bar,
    )


def report(name: str, cases: Iterable[Case], results: Path) -> None:
    """Print the table and write the results; those of chosen cases are only printed."""
    measured = [case for case in cases if case is not NOT_CHOSEN]
    rows = [{key: value for key, value in asdict(case).items() if value != ""} for case in measured]
    if not chosen:
        results.parent.mkdir(exist_ok=True)
        results.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    print(f"\n{name} (Python {platform.python_version()}, {os.cpu_count()} cores, {ROUNDS} rounds)\n")
    columns = ("case", "ours", "peer", "peer_name", "unit", "ratio", "spread", "bar", "met")
    table = [columns, *[tuple(str(row[column]) for column in columns) for row in rows]]
    widths = [max(len(row[index]) for row in table) for index in range(len(columns))]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for case in measured:
        if case.left_out:
            print(f"LEFT OUT: {case.case}, {case.peer_name}: {case.left_out}")
    if not chosen:
        print(f"\n{results.relative_to(ROOT)}")


def _environment(peer: Contender) -> Path:
    """The peer's interpreter, in a virtual environment of its own that is made once."""
    folder = ROOT / ".venvs" / peer.name
    python, stamp = folder / "bin" / "python", folder / "packages.txt"
    wanted = "\n".join(peer.packages)
    if not (stamp.exists() and stamp.read_text(encoding="utf-8") == wanted):
        print(f"Installing {peer.name} into {folder.relative_to(ROOT)} ...", flush=True)
        subprocess.run([_python_for(peer), "-m", "venv", "--clear", str(folder)], check=True)
        installers = [[str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]]
        if uv := shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"):
            installers.insert(0, [uv, "pip", "install", "--quiet", "--python", str(python)])
        for installer in installers:
            if subprocess.run([*installer, *peer.packages], check=False).returncode == 0:
                break
        else:
            raise RuntimeError(
                f"The packages of {peer.name} could not be installed: {', '.join(peer.packages)}."
            )
        stamp.write_text(wanted, encoding="utf-8")
    return python


def _python_for(peer: Contender) -> str:
    """This Python, or a later one of this machine for a peer that does not run on this."""
    if sys.version_info >= peer.python:
        return sys.executable
    wanted = [f"{peer.python[0]}.{minor}" for minor in range(peer.python[1], peer.python[1] + 4)]
    for version in wanted:
        if program := shutil.which(f"python{version}"):
            found = subprocess.run(
                [program, "-c", "import sys; print(sys.executable)"],
                # pyenv has programs of all versions, and they answer only to who says which.
                env=os.environ | {"PYENV_VERSION": version},
                capture_output=True,
                text=True,
                check=False,
            )
            if found.returncode == 0:
                return found.stdout.strip()
    raise RuntimeError(f"{peer.name} wants Python {wanted[0]} or later, and there is none.")

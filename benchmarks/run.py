"""Runs rows in processes of their own, and keeps what is finished."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.contest import Score
from benchmarks.one_row import contenders
from benchmarks.workload import Row

PACKAGES = """
cvxlayers cvxpy cvxpylayers moreau diffcp qpth proxsuite qpax jaxopt mpc torch jax numpy scipy clarabel daqp piqp scs
""".split()


@dataclass(frozen=True)
class Settings:
    """How rows are run.

    Attributes:
        repetitions: rounds that count.
        warmup: rounds before them.
        seconds: what a contender may use of a row before it drops out.
        limit: seconds after which a row's process is ended.
        seed: seed of the data.
        memory: whether memory is measured in every row.
    """

    repetitions: int = 15
    warmup: int = 3
    seconds: float = 10.0
    limit: float = 900.0
    seed: int = 0
    memory: bool = False


@dataclass(frozen=True)
class Result:
    """A finished row."""

    row: str
    workload: str
    batch: int
    sizes: dict[str, int]
    scores: list[Score]


def finished(folder: Path, row: Row) -> Result | None:
    """Returns what an earlier run has kept of a row."""
    path = folder / f"{row.name}.json"
    if not path.exists():
        return None
    record = json.loads(path.read_text())
    return Result(row.name, row.workload, row.batch, dict(row.sizes), [Score(**score) for score in record["scores"]])


def run_row(folder: Path, row: Row, settings: Settings, say: Callable[[str], None] = print) -> Result:
    """Runs a row: all contenders in one process or, where it dies, each beside this library in one of its own.

    Args:
        folder: where the result is kept.
        row: the row.
        settings: how it is run.
        say: takes a line on what went wrong.
    """
    scores = _attempt(row, settings, [], say)
    if scores is None:
        scores = _pairs(row, settings, say)
    if settings.memory or row.memory:
        scores = [_with_memory(row, settings, score, say) for score in scores]
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "row": row.name,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings": asdict(settings),
        "machine": {"processors": os.cpu_count(), "platform": platform.platform(), "python": platform.python_version()},
        "versions": versions(),
        "scores": [asdict(score) for score in scores],
    }
    (folder / f"{row.name}.json").write_text(json.dumps(record, indent=1) + "\n")
    return Result(row.name, row.workload, row.batch, dict(row.sizes), scores)


def versions() -> dict[str, str]:
    """Returns the versions of what is installed of the libraries that take part."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _pairs(row: Row, settings: Settings, say: Callable[[str], None]) -> list[Score]:
    ours, *others = contenders(row, settings.seed)
    scores = _attempt(row, settings, [ours], say)
    if scores is None:
        raise RuntimeError(f"{row.name}: {ours} does not run")
    for other in others:
        pair = _attempt(row, settings, [ours, other], say)
        died = [Score(other, "peer", failure="its process died")]
        scores += died if pair is None else [score for score in pair if score.kind != "ours"]
    return scores


def _with_memory(row: Row, settings: Settings, score: Score, say: Callable[[str], None]) -> Score:
    """Returns the score with the memory that the contender needs in a process of its own."""
    alone = None if score.failure else _attempt(row, settings, [score.name], say, "--memory")
    return replace(score, memory=alone[0].memory, building=alone[0].building) if alone else score


def _attempt(
    row: Row, settings: Settings, names: Sequence[str], say: Callable[[str], None], *more: str
) -> list[Score] | None:
    """Runs contenders of a row in one process; returns nothing where that process fails."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "scores.json"
        command = [sys.executable, "-m", "benchmarks.one_row", row.name, str(file), *more]
        for name in ("repetitions", "warmup", "seconds", "seed"):
            command += [f"--{name}", str(getattr(settings, name))]
        for name in names:
            command += ["--contender", name]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=settings.limit, check=False)
        except subprocess.TimeoutExpired:
            say(f"{row.name} {', '.join(names)}: ended after {settings.limit:g} s")
            return None
        if done.returncode or not file.exists():
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            say(f"{row.name} {', '.join(names)}: {last[:300]}")
            return None
        return [Score(**score) for score in json.loads(file.read_text())]

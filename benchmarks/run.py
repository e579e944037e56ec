"""Runs rows in processes of their own, and keeps what is finished."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
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
        patience: seconds after which a contender that has not taken its turn is given up.
        seed: seed of the data.
        memory: whether memory is measured in every row.
    """

    repetitions: int = 15
    warmup: int = 3
    seconds: float = 10.0
    limit: float = 900.0
    patience: float = 60.0
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

    A contender that does not end its turn is given up by name, and the row starts again without it.

    Args:
        folder: where the result is kept.
        row: the row.
        settings: how it is run.
        say: takes a line on what went wrong.
    """
    scores = _patient(row, settings, [], say)
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
    scores = _patient(row, settings, [ours], say)
    if scores is None:
        raise RuntimeError(f"{row.name}: {ours} does not run")
    for other in others:
        pair = _patient(row, settings, [ours, other], say)
        died = [Score(other, "peer", failure="its process died")]
        scores += died if pair is None else [score for score in pair if score.kind != "ours"]
    return scores


def _with_memory(row: Row, settings: Settings, score: Score, say: Callable[[str], None]) -> Score:
    """Returns the score with the memory that the contender needs in a process of its own."""
    alone = None if score.failure else _attempt(row, settings, [score.name], say, "--memory")
    return replace(score, memory=alone[0].memory, building=alone[0].building) if alone else score


def _patient(row: Row, settings: Settings, names: Sequence[str], say: Callable[[str], None]) -> list[Score] | None:
    """Runs contenders of a row in one process, without those that do not end their turns."""
    ours, slow = contenders(row, settings.seed)[0], []
    while True:
        try:
            scores = _attempt(row, settings, names, say, *(word for name in slow for word in ("--without", name)))
        except _Stuck as stuck:
            name = str(stuck)
            if name == ours or name in slow:
                raise RuntimeError(f"{row.name}: {name} does not end") from None
            say(f"{row.name}: {name} is given up after {settings.patience:g} s")
            slow.append(name)
            continue
        late = [Score(name, "peer", failure=f"no answer within {settings.patience:g} s") for name in slow]
        return None if scores is None else scores + late


class _Stuck(Exception):
    """A contender has not ended its turn; its name is the message."""


def _attempt(
    row: Row, settings: Settings, names: Sequence[str], say: Callable[[str], None], *more: str
) -> list[Score] | None:
    """Runs contenders of a row in one process; returns nothing where that process fails."""
    with TemporaryDirectory() as folder:
        file, turn = Path(folder) / "scores.json", Path(folder) / "turn"
        command = [sys.executable, "-m", "benchmarks.one_row", row.name, str(file), "--turn", str(turn), *more]
        for name in ("repetitions", "warmup", "seconds", "seed"):
            command += [f"--{name}", str(getattr(settings, name))]
        for name in names:
            command += ["--contender", name]
        with (Path(folder) / "errors").open("w+") as errors:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, text=True)
            try:
                code = _wait(process, turn, settings)
            finally:
                process.kill()
                process.wait()
            errors.seek(0)
            last = (errors.read().strip().splitlines() or [f"exit code {code}"])[-1]
        if code is None:
            say(f"{row.name} {', '.join(names)}: ended after {settings.limit:g} s")
            return None
        if code or not file.exists():
            say(f"{row.name} {', '.join(names)}: {last[:300]}")
            return None
        return [Score(**score) for score in json.loads(file.read_text())]


def _wait(process: subprocess.Popen[str], turn: Path, settings: Settings) -> int | None:
    """Returns the exit code of a row's process; None where it took too long.

    Raises:
        _Stuck: if a contender does not end its turn.
    """
    started = time.monotonic()
    while time.monotonic() - started < settings.limit:
        with suppress(subprocess.TimeoutExpired):
            return process.wait(timeout=1.0)
        if turn.exists() and time.time() - turn.stat().st_mtime > settings.patience:
            raise _Stuck(turn.read_text())
    return None

"""One row in a process of its own: `python -m benchmarks.one_row ROW FILE`, started by the command line."""

from __future__ import annotations

import argparse
import json
import resource
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path

from benchmarks.contest import Entry, Score, race, start
from benchmarks.workload import Row
from benchmarks.workloads import all_rows, load


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a row, or some of its contenders, and writes their scores."""
    parser = argparse.ArgumentParser()
    parser.add_argument("row")
    parser.add_argument("file", type=Path)
    parser.add_argument("--contender", action="append", default=[], help="leave out all others")
    parser.add_argument("--without", action="append", default=[], help="leave this one out")
    parser.add_argument("--turn", type=Path, help="file that is told whose turn it is")
    parser.add_argument("--memory", action="store_true", help="measure the memory of the one contender")
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    # What the layers say about accuracy is measured here.
    warnings.filterwarnings("ignore", category=UserWarning)
    row = next(row for row in all_rows() if row.name == options.row)
    task = load(row.workload).prepare(batch=row.batch, seed=options.seed, **row.sizes)
    entries = [entry for entry in task.entries if not options.contender or entry.name in options.contender]
    entries = _without(entries, options.without)
    if options.memory:
        scores = [Score(entry.name, entry.kind, memory=grown(entry)) for entry in entries]
    else:
        rounds = {"repetitions": options.repetitions, "warmup": options.warmup, "seconds": options.seconds}
        announce = str if options.turn is None else options.turn.write_text
        scores = race(entries, task.reference(), **rounds, announce=announce)
    options.file.write_text(json.dumps([asdict(score) for score in scores]))


def contenders(row: Row, seed: int = 0) -> list[str]:
    """Returns the names of a row's contenders."""
    return [entry.name for entry in load(row.workload).prepare(batch=row.batch, seed=seed, **row.sizes).entries]


def _without(entries: Sequence[Entry], names: Sequence[str]) -> list[Entry]:
    """Returns the contenders without some, and without some of their finer settings."""
    left = [entry for entry in entries if entry.name not in names]
    return [replace(entry, finer=[finer for finer in entry.finer if finer.name not in names]) for entry in left]


def grown(entry: Entry) -> int:
    """Builds a contender, calls it twice, and returns by how many bytes the process grew meanwhile, at most."""
    for module in ("torch", *entry.imports):
        import_module(module)
    with suppress(OSError):  # Linux only: forget the peak so far
        Path("/proc/self/clear_refs").write_text("5")
    before = _peak()
    runner = start(entry)
    runner.contender.step()
    return _peak() - before


def _peak() -> int:
    with suppress(OSError):
        fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return 1024 * int(fields["VmHWM"].split()[0])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()

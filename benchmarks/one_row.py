"""One row in a process of its own: `python -m benchmarks.one_row ROW FILE`, started by the command line."""

from __future__ import annotations

import argparse
import gc
import json
import resource
import warnings
from collections.abc import Sequence
from contextlib import suppress
from ctypes import CDLL
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from benchmarks.contest import Entry, Score, race, start
from benchmarks.workload import Row
from benchmarks.workloads import TINY, all_rows, load


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a row, or some of its contenders, and writes their scores."""
    parser = argparse.ArgumentParser()
    parser.add_argument("row")
    parser.add_argument("file", type=Path)
    parser.add_argument("--contender", action="append", default=[], help="leave out all others")
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
    if options.memory:
        small = load(row.workload).prepare(batch=1, seed=options.seed, **TINY.get(row.workload, row.sizes))
        pairs = zip(_with_finer(task.entries), _with_finer(small.entries), strict=True)
        scores = [measured(entry, tiny) for entry, tiny in pairs if entry.name in options.contender]
    else:
        rounds = {"repetitions": options.repetitions, "warmup": options.warmup, "seconds": options.seconds}
        scores = race(entries, task.reference(), **rounds)
    options.file.write_text(json.dumps([asdict(score) for score in scores]))


def contenders(row: Row, seed: int = 0) -> list[str]:
    """Returns the names of a row's contenders."""
    return [entry.name for entry in load(row.workload).prepare(batch=row.batch, seed=seed, **row.sizes).entries]


def _with_finer(entries: Sequence[Entry]) -> list[Entry]:
    return [candidate for entry in entries for candidate in (entry, *entry.finer)]


def measured(entry: Entry, small: Entry) -> Score:
    """Builds a contender and calls it twice, and says by how many bytes the process grew meanwhile, at most.

    Args:
        entry: the contender.
        small: the same on a program of a few variables: it runs first, so that what libraries load and compile on
            their first call, more than most programs need, is there before.
    """
    for module in ("torch", *entry.imports):
        import_module(module)
    start(small).contender.step()
    before = _forget_peak()
    contender = entry.build()
    building = _peak() - before
    _forget_peak()
    contender.forward()
    contender.step()
    return Score(entry.name, entry.kind, memory=_peak() - before, building=building)


def _forget_peak() -> int:
    """Has the peak start anew from what is in use, and returns it."""
    gc.collect()
    with suppress(OSError, AttributeError):  # glibc only: what has been freed counts as free
        CDLL("libc.so.6").malloc_trim(0)
    with suppress(OSError):  # Linux only
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    with suppress(OSError):
        fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return 1024 * int(fields["VmHWM"].split()[0])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()

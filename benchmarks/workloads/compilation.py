"""Building layers with large matrix parameters: the work is the constructor, or that and one step of training.

With and without a folder that keeps what has been compiled, beside the layers that read CVXPY too.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from tempfile import mkdtemp
from unittest.mock import patch

from benchmarks.contest import Answer, Contender, Entry
from benchmarks.workload import Row, Task, Workload

# Workloads, with their sizes.
_OF: tuple[tuple[str, dict[str, int]], ...] = (
    ("least_squares", {"rows": 2000, "columns": 50}),
    ("dense_qp", {"n": 100}),
    ("sparse_qp", {"n": 1000}),
    ("box_mpc", {"n": 4, "m": 2, "horizon": 100}),
)

Build = Callable[[], Contender]


def prepare(*, which: int, batch: int, seed: int) -> Task:
    """Takes the contenders that read CVXPY from another workload; each turn builds them anew."""
    from benchmarks.workloads import load

    name, sizes = _OF[which]
    task = load(name).prepare(batch=batch, seed=seed, **sizes)
    ours, *others = task.entries
    entries = [_building(ours, "cvxlayers", ours.build)]
    entries.append(_building(ours, "cvxlayers, kept in a folder", partial(_kept, mkdtemp(), ours.build)))
    entries += [_building(entry, entry.name, entry.build) for entry in others if entry.name.startswith("cvxpylayers")]
    return Task(entries, task.reference)


def _building(entry: Entry, name: str, build: Build) -> Entry:
    def step() -> Callable[[], Answer]:
        return build().step()

    return Entry(name, lambda: Contender(build, step), entry.kind, entry.imports)


def _kept(folder: str, build: Build) -> Contender:
    with patch.dict(os.environ, CVXLAYERS_CACHE=folder):
        return build()


WORKLOAD = Workload(
    "building layers with large matrix parameters: the constructor (forward), and one step with it",
    [Row("compilation", {"which": index}, 1) for index in range(len(_OF))],
    prepare=prepare,
)

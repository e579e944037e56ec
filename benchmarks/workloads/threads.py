"""What a second thread is worth: this library with two, and with one, one row for each solver and factorisation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from unittest.mock import patch

from benchmarks.contest import Contender, Entry
from benchmarks.workload import Bar, Row, Task, Workload

# What is compared: workloads, with their sizes, whose solvers let other threads run.
_OF: tuple[tuple[str, dict[str, int], int], ...] = (
    ("dense_qp", {"n": 100}, 128),  # DAQP
    ("sparse_qp", {"n": 1000}, 16),  # PIVOTING
    ("sum_of_norms", {"n": 50}, 32),  # CONTINUATION
    ("nearest_correlation", {"order": 20}, 8),  # CONTINUATION
)
_ONE = "cvxlayers, one thread"


def prepare(*, batch: int, seed: int, which: int) -> Task:
    """Takes this library's contender from another workload, and builds it for one thread and for two."""
    from benchmarks.workloads import load

    name, sizes, _ = _OF[which]
    task = load(name).prepare(batch=batch, seed=seed, **sizes)
    build = task.entries[0].build
    return Task(
        [Entry("cvxlayers", partial(_with, 2, build), "ours"), Entry(_ONE, partial(_with, 1, build))], task.reference
    )


def _with(threads: int, build: Callable[[], Contender]) -> Contender:
    with patch("cvxlayers.build.default_threads", return_value=threads):
        return build()


WORKLOAD = Workload(
    "with two threads and with one",
    [Row("threads", {"which": index}, batch, [Bar(1.6, 1.8, _ONE)]) for index, (_, _, batch) in enumerate(_OF)],
    prepare=prepare,
)

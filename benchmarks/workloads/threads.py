"""What a second thread is worth: this library with two, and with one, one row for each solver and factorisation."""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks.contest import Entry
from benchmarks.workload import Bar, Row, Task, Workload

# What is compared: workloads, their sizes, and with which options. Solvers let other threads run for the whole of an
# item (Clarabel), or for the larger of their steps.
_OF: tuple[tuple[str, dict[str, int], int, dict[str, Any]], ...] = (
    ("dense_qp", {"n": 100}, 128, {}),  # LEAST_DISTANCE
    ("sparse_qp", {"n": 1000}, 16, {}),  # PIVOTING
    ("sum_of_norms", {"n": 50}, 32, {}),  # CONTINUATION
    ("nearest_correlation", {"order": 20}, 8, {}),  # CONTINUATION
    ("sum_of_norms", {"n": 50}, 32, {"solver": "CLARABEL"}),
    ("nearest_correlation", {"order": 20}, 8, {"solver": "CLARABEL"}),
    ("dense_qp", {"n": 100}, 32, {"solver": "CLARABEL"}),
)
_ONE = "cvxlayers, one thread"


def prepare(*, batch: int, seed: int, which: int) -> Task:
    """Takes this library's contender from another workload, and builds it for one thread and for two."""
    from benchmarks.workloads import load

    name, sizes, _, options = _OF[which]
    task = load(name).prepare(batch=batch, seed=seed, **sizes)
    build = partial(task.entries[0].build, **options)
    entries = [Entry("cvxlayers", partial(build, threads=2), "ours"), Entry(_ONE, partial(build, threads=1))]
    return Task(entries, task.reference)


WORKLOAD = Workload(
    "with two threads and with one",
    [Row("threads", {"which": index}, batch, [Bar(1.6, 1.8, _ONE)]) for index, (_, _, batch, _) in enumerate(_OF)],
    prepare=prepare,
)

"""What the elimination of auxiliary variables is worth: this library with it, and without."""

from __future__ import annotations

from unittest.mock import patch

from benchmarks.contest import Contender, Entry
from benchmarks.workload import Row, Task, Workload

# What is compared: workloads, with their sizes.
_OF: tuple[tuple[str, dict[str, int], int], ...] = (
    ("dense_qp", {"n": 32}, 128),
    ("square_root", {"n": 32}, 128),
    ("least_squares", {"rows": 200, "columns": 10}, 16),
    ("lasso", {"rows": 200, "columns": 10}, 16),
    ("sparsemax", {"n": 100}, 128),
    ("lqr", {"n": 4, "m": 2, "horizon": 20}, 32),
    ("box_mpc", {"n": 4, "m": 2, "horizon": 20}, 32),
    ("portfolio", {"assets": 200, "everything": 1}, 32),
    ("sum_of_norms", {"n": 50}, 32),
    ("max_cut", {"order": 10}, 32),
)


def prepare(*, batch: int, seed: int, which: int) -> Task:
    """Takes this library's contender from another workload, and builds it again without eliminating anything."""
    from benchmarks.workloads import load

    name, sizes, _ = _OF[which]
    task = load(name).prepare(batch=batch, seed=seed, **sizes)
    ours = task.entries[0]

    def without() -> Contender:
        with patch("cvxlayers.build.find_reduction", return_value=None):
            return ours.build()

    return Task([ours, Entry("cvxlayers, nothing eliminated", without)], task.reference)


WORKLOAD = Workload(
    "with and without the elimination of auxiliary variables",
    [Row("reductions", {"which": index}, batch) for index, (_, _, batch) in enumerate(_OF)],
    prepare=prepare,
)

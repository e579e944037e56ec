"""The workloads, by name, in the order of the table."""

from __future__ import annotations

from importlib import import_module

from benchmarks.workload import Row, Workload

NAMES = (
    "dense_qp",
    "square_root",
    "least_squares",
    "lasso",
    "sparse_qp",
    "softmax",
    "sparsemax",
    "soft_top_k",
    "ball",
    "lqr",
    "box_mpc",
    "portfolio",
    "sum_of_norms",
    "robust_least_squares",
    "max_cut",
    "nearest_correlation",
    "geometric_program",
    "isotonic",
    "compilation",
    "threads",
    "warm_start",
    "reductions",
    "cocp_box",
)


# Sizes of a few variables, for tests, and to load what a contender loads on its first call.
TINY: dict[str, dict[str, int]] = {
    "dense_qp": {"n": 6},
    "square_root": {"n": 6},
    "least_squares": {"rows": 9, "columns": 2},
    "lasso": {"rows": 30, "columns": 5},
    "sparse_qp": {"n": 60},
    "softmax": {"n": 5},
    "sparsemax": {"n": 7},
    "ball": {"n": 7},
    "soft_top_k": {"n": 12},
    "lqr": {"n": 3, "m": 2, "horizon": 4},
    "box_mpc": {"n": 3, "m": 2, "horizon": 4},
    "portfolio": {"assets": 15, "everything": 1},
    "sum_of_norms": {"n": 10},
    "robust_least_squares": {"n": 4},
    "max_cut": {"order": 5},
    "nearest_correlation": {"order": 5},
    "geometric_program": {},
    "isotonic": {"n": 30},
    "warm_start": {"n": 3, "m": 2, "horizon": 4, "steps": 3},
}


def load(name: str) -> Workload:
    """Returns a workload by its name."""
    return import_module(f"benchmarks.workloads.{name}").WORKLOAD


def all_rows() -> list[Row]:
    """Returns all rows of all workloads."""
    return [row for name in NAMES for row in load(name).rows]

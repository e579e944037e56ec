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
    "reductions",
    "cocp_box",
)


def load(name: str) -> Workload:
    """Returns a workload by its name."""
    return import_module(f"benchmarks.workloads.{name}").WORKLOAD


def all_rows() -> list[Row]:
    """Returns all rows of all workloads."""
    return [row for name in NAMES for row in load(name).rows]

"""The lasso with its data matrix and its penalty as parameters: minimise ½‖A x − b‖² + λ‖x‖₁."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import cvxpy as cp
import numpy as np
import torch

from benchmarks.approximate import approximate
from benchmarks.contest import Answer, Array
from benchmarks.implicit import implicit_answer
from benchmarks.peers.layers import Text, entries_of
from benchmarks.workload import Bar, Row, Task, Workload
from benchmarks.workloads.least_squares import SIZES, random_data


def text(observations: int, variables: int) -> Text:
    """Returns the problem, its parameters A, b and the penalty, and its variable."""
    A, b = cp.Parameter((observations, variables), name="A"), cp.Parameter(observations, name="b")
    penalty, x = cp.Parameter(nonneg=True, name="penalty"), cp.Variable(variables, name="x")
    return cp.Problem(cp.Minimize(0.5 * cp.sum_squares(A @ x - b) + penalty * cp.norm1(x))), [A, b, penalty], [x]


def prepare(*, rows: int, columns: int, batch: int, seed: int) -> Task:
    """Makes the data and the layers."""
    data, weights = random_data(rows, columns, batch, seed)
    data["penalty"] = np.full(batch, 2.0 * np.sqrt(rows))
    build = partial(text, rows, columns)
    return Task(entries_of(build, data, weights, dense=rows <= 200), partial(_exact, build(), data, weights))


def _exact(problem: Text, data: Mapping[str, Array], weights: Array) -> Answer:
    """Solves on the support: a coefficient is zero where its gradient stays below the penalty."""
    starts = [x for x, _ in approximate(problem, data)]
    gradient = np.einsum("bmn,bm->bn", data["A"], data["b"] - np.einsum("bmn,bn->bm", data["A"], np.stack(starts)))
    signs = np.where(np.abs(gradient) > data["penalty"][:, None] - 1e-6, np.sign(gradient), 0.0)
    return implicit_answer(_conditions, starts, list(signs), data, weights)


def _conditions(x: torch.Tensor, sign: torch.Tensor, A: torch.Tensor, b: torch.Tensor, penalty: torch.Tensor):
    return torch.where(sign != 0, A.mT @ (A @ x - b) + penalty * sign, x)


WORKLOAD = Workload(
    "the lasso, data matrix and penalty as parameters",
    [Row("lasso", {"rows": m, "columns": n}, batch, [Bar(5, 20)]) for m, n in SIZES for batch in (1, 16)],
    prepare=prepare,
)

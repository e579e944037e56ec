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

# Below this part of the largest coefficient one may be zero; corrections of the support before giving up.
_SMALL, _ROUNDS = 1e-6, 50


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
    """Solves on the support, which the optimality conditions confirm."""
    starts = [x for x, _ in approximate(problem, data)]
    columns = zip(data["A"], data["b"], data["penalty"], starts, strict=True)
    return implicit_answer(_conditions, starts, [_signs(*item) for item in columns], data, weights)


def _signs(A: Array, b: Array, penalty: float, x: Array) -> Array:
    """Returns the signs of the solution, which is zero where the residual's product with a column is below the penalty.

    An approximate solution tells them but for a few, which are corrected until the conditions hold.
    """
    signs = np.where(np.abs(x) > _SMALL * np.abs(x).max(), np.sign(x), 0.0)
    for _ in range(_ROUNDS):
        support, z = np.flatnonzero(signs), np.zeros(len(x))
        part = A[:, support]
        z[support] = np.linalg.solve(part.T @ part, part.T @ b - penalty * signs[support])
        product = A.T @ (b - A @ z)
        gone, missing = z * signs < 0, (signs == 0) & (np.abs(product) > penalty)
        if not (gone | missing).any():
            return signs
        signs = np.where(gone, 0.0, np.where(missing, np.sign(product), signs))
    raise ArithmeticError(f"the support of a lasso's solution is not found in {_ROUNDS} corrections")


def _conditions(x: torch.Tensor, sign: torch.Tensor, A: torch.Tensor, b: torch.Tensor, penalty: torch.Tensor):
    return torch.where(sign != 0, A.mT @ (A @ x - b) + penalty * sign, x)


WORKLOAD = Workload(
    "the lasso, data matrix and penalty as parameters",
    [Row("lasso", {"rows": m, "columns": n}, batch, [Bar(5, 20)]) for m, n in SIZES for batch in (1, 16)],
    prepare=prepare,
)

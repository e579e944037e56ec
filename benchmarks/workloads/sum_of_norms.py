"""A sum of norms: minimise Σ‖Aᵢx − bᵢ‖ over x, groups of five rows; some of them are fitted exactly."""

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

_GROUP = 5


def text(groups: int, n: int) -> Text:
    """Returns the problem, its parameters and its variable."""
    A, b = cp.Parameter((groups * _GROUP, n), name="A"), cp.Parameter(groups * _GROUP, name="b")
    x = cp.Variable(n, name="x")
    residual = A @ x - b
    norms = [cp.norm(residual[_GROUP * i : _GROUP * (i + 1)]) for i in range(groups)]
    return cp.Problem(cp.Minimize(cp.sum(cp.hstack(norms)))), [A, b], [x]


def prepare(*, n: int, batch: int, seed: int) -> Task:
    """Makes the data and the layers."""
    rng = np.random.default_rng(seed)
    groups = 2 * n // _GROUP
    data = {"A": rng.normal(size=(batch, groups * _GROUP, n)), "b": rng.normal(size=(batch, groups * _GROUP))}
    weights, build = rng.normal(size=(batch, n)), partial(text, groups, n)
    return Task(entries_of(build, data, weights, quadratic=False), partial(_exact, build(), data, weights))


def _exact(problem: Text, data: Mapping[str, Array], weights: Array) -> Answer:
    """Starts from the directions of the residuals; where a residual vanishes, from no direction at all."""
    solutions = [x for x, _ in approximate(problem, data)]
    starts, marks = [], []
    for x, A, b in zip(solutions, data["A"], data["b"], strict=True):
        residuals = (A @ x - b).reshape(-1, _GROUP)
        sizes = np.linalg.norm(residuals, axis=1, keepdims=True)
        directions = np.where(sizes > 1e-5, residuals / sizes, 0.0)
        starts.append(np.concatenate([x, directions.ravel()]))
        marks.append(sizes > 1e-5)
    return implicit_answer(_conditions, starts, marks, data, weights)


def _conditions(z: torch.Tensor, apart: torch.Tensor, A: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    n = A.shape[1]
    x, directions = z[:n], z[n:].reshape(-1, _GROUP)
    residuals = (A @ x - b).reshape(-1, _GROUP)
    size = torch.sqrt(torch.where(apart, residuals.square(), torch.ones_like(residuals)).sum(1, keepdim=True))
    rows = torch.where(apart, size * directions - residuals, residuals)
    return torch.cat([A.mT @ directions.ravel(), rows.ravel()])


WORKLOAD = Workload(
    "a sum of norms", [Row("sum_of_norms", {"n": 50}, batch, [Bar(1.3, 3)]) for batch in (1, 32)], prepare=prepare
)

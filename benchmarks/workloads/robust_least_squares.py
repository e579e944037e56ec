"""Least squares with an uncertain matrix: minimise ‖Ax − b‖ + ‖x‖ (El Ghaoui and Lebret 1997), A of twice n rows."""

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


def text(n: int, factor: float = 1.0) -> Text:
    """Returns the problem, its parameters and its variable.

    Args:
        n: number of variables.
        factor: by which x is multiplied: cvxpylayers 1.2 with Moreau drops the cone of a bare variable otherwise.
    """
    A, b, x = cp.Parameter((2 * n, n), name="A"), cp.Parameter(2 * n, name="b"), cp.Variable(n, name="x")
    size = cp.norm(x) if factor == 1 else cp.norm(factor * x) / factor
    return cp.Problem(cp.Minimize(cp.norm(A @ x - b) + size)), [A, b], [x]


def prepare(*, n: int, batch: int, seed: int) -> Task:
    """Makes the data and the layers."""
    rng = np.random.default_rng(seed)
    data = {"A": rng.normal(size=(batch, 2 * n, n)), "b": rng.normal(size=(batch, 2 * n))}
    weights, build = rng.normal(size=(batch, n)), partial(text, n)
    entries = entries_of(build, data, weights, peer_text=partial(build, 2.0), quadratic=False)
    return Task(entries, partial(_exact, build(), data, weights))


def _exact(problem: Text, data: Mapping[str, Array], weights: Array) -> Answer:
    starts = [x for x, _ in approximate(problem, data)]
    return implicit_answer(_conditions, starts, [np.zeros(1)] * len(starts), data, weights)


def _conditions(x: torch.Tensor, mark: torch.Tensor, A: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The gradient of the cost: neither norm vanishes at a solution of these data."""
    del mark
    residual = A @ x - b
    return A.mT @ residual / residual.norm() + x / x.norm()


WORKLOAD = Workload(
    "robust least squares",
    [Row("robust_least_squares", {"n": 50}, batch, [Bar(1.3, 3)]) for batch in (1, 32)],
    prepare=prepare,
)

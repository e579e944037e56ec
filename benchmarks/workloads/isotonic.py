"""A large program, for its memory: isotonic regression, the increasing sequence closest to n observations."""

from __future__ import annotations

from functools import partial

import cvxpy as cp
import numpy as np
from scipy.optimize import isotonic_regression

from benchmarks.contest import Answer, Array
from benchmarks.peers.layers import Text, entries_of
from benchmarks.workload import Row, Task, Workload


def text(n: int) -> Text:
    """Returns the problem, the observations and the sequence."""
    y, x = cp.Parameter(n, name="y"), cp.Variable(n, name="x")
    return cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x - y)), [cp.diff(x) >= 0]), [y], [x]


def prepare(*, n: int, batch: int, seed: int) -> Task:
    """Makes noisy observations of a line."""
    rng = np.random.default_rng(seed)
    data = {"y": np.linspace(0, n / 100, n) + rng.normal(size=(batch, n))}
    weights = rng.normal(size=(batch, n))
    return Task(entries_of(partial(text, n), data, weights, dense=False), lambda: _exact(data["y"], weights))


def _exact(observations: Array, weights: Array) -> Answer:
    """Each block of equal values is the mean of its observations, and so is its gradient."""
    solutions, gradients = [], []
    for y, w in zip(observations, weights, strict=True):
        found = isotonic_regression(y)
        sizes = np.diff(found.blocks)
        solutions.append(found.x)
        gradients.append(np.repeat(np.add.reduceat(w, found.blocks[:-1]) / sizes, sizes))
    return Answer(np.stack(solutions), {"y": np.stack(gradients)})


WORKLOAD = Workload(
    "isotonic regression, a large sparse program",
    [Row("isotonic", {"n": n}, 1, memory=True) for n in (1_000, 100_000)],
    prepare=prepare,
)

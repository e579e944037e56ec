"""Softmax as a program: maximise cᵀx plus the entropy of x over the simplex."""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import numpy as np
import torch

from benchmarks.contest import Array
from benchmarks.peers.layers import Text
from benchmarks.workloads.simplex import workload


def text(n: int, factor: float = 1.0) -> Text:
    """Returns the problem, its scores and its variable; the entropy keeps x positive."""
    del factor
    c, x = cp.Parameter(n, name="c"), cp.Variable(n, name="x")
    constraints: list[Any] = [cp.sum(x) == 1]
    return cp.Problem(cp.Maximize(c @ x + cp.sum(cp.entr(x))), constraints), [c], [x]


def exact(c: Array) -> Array:
    """Returns softmax and, below it, its Jacobian diag(x) − xxᵀ."""
    x = np.exp(c - c.max())
    x /= x.sum()
    return np.vstack([x, np.diag(x) - np.outer(x, x)])


WORKLOAD = workload("softmax", "softmax", text, lambda c: torch.softmax(c, -1), exact, quadratic=False)

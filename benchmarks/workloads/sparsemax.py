"""Sparsemax: the point of the simplex that is closest to the scores."""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import numpy as np
import torch

from benchmarks.contest import Array
from benchmarks.peers.layers import Text
from benchmarks.workloads.simplex import workload


def text(n: int, factor: float = 1.0) -> Text:
    """Returns the problem, its scores and its variable."""
    c, x = cp.Parameter(n, name="c"), cp.Variable(n, name="x")
    constraints: list[Any] = [cp.sum(x) == 1, x >= 0 if factor == 1 else factor * x >= 0]
    return cp.Problem(cp.Minimize(cp.sum_squares(x - c)), constraints), [c], [x]


def formula(c: torch.Tensor) -> torch.Tensor:
    """Returns sparsemax by sorting, as Martins and Astudillo (2016)."""
    ordered = torch.sort(c, dim=-1, descending=True).values
    sums = ordered.cumsum(-1) - 1
    count = torch.arange(1, c.shape[-1] + 1, dtype=c.dtype)
    size = (count * ordered > sums).sum(-1, keepdim=True)
    return torch.relu(c - sums.gather(-1, size - 1) / size)


def exact(c: Array) -> Array:
    """Returns sparsemax by dropping what is negative until nothing is, and below it its Jacobian."""
    support = np.ones(len(c), dtype=bool)
    while True:
        x = np.where(support, c - (c[support].sum() - 1) / support.sum(), 0.0)
        if x.min() >= 0:
            break
        support &= x > 0
    inside = support.astype(float)
    return np.vstack([x, np.diag(inside) - np.outer(inside, inside) / inside.sum()])


WORKLOAD = workload("sparsemax", "sparsemax, the projection onto the simplex", text, formula, exact, quadratic=True)

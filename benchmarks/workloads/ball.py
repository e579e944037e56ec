"""The projection on a ball, as layers that bound the norm of what they return."""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import numpy as np
import torch

from benchmarks.contest import Array
from benchmarks.peers.layers import Text
from benchmarks.workloads.simplex import workload

RADIUS = 5.0


def text(n: int, factor: float = 1.0) -> Text:
    """Returns the problem, its scores and its variable."""
    del factor
    c, x = cp.Parameter(n, name="c"), cp.Variable(n, name="x")
    constraints: list[Any] = [cp.norm(x) <= RADIUS]
    return cp.Problem(cp.Minimize(cp.sum_squares(x - c)), constraints), [c], [x]


def formula(c: torch.Tensor) -> torch.Tensor:
    """Returns the scores, shrunk where they are outside."""
    return c * torch.clamp(RADIUS / torch.linalg.vector_norm(c, dim=-1, keepdim=True), max=1.0)


def exact(c: Array) -> Array:
    """Returns the projection and, below it, its Jacobian."""
    length = np.linalg.norm(c)
    if length <= RADIUS:
        return np.vstack([c, np.eye(len(c))])
    unit = c / length
    return np.vstack([RADIUS * unit, RADIUS / length * (np.eye(len(c)) - np.outer(unit, unit))])


WORKLOAD = workload("ball", "the projection on a ball", text, formula, exact, quadratic=True)

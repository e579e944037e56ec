"""The soft top-k, or limited multi-label projection: binary entropy over the box, and a sum of k (Amos et al. 2019)."""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import expit

from benchmarks.contest import Array
from benchmarks.peers.layers import Text
from benchmarks.workloads.simplex import workload

K = 5


def text(n: int, factor: float = 1.0) -> Text:
    """Returns the problem, its scores and its variable; the entropy keeps x within the box."""
    del factor
    c, x = cp.Parameter(n, name="c"), cp.Variable(n, name="x")
    entropy = cp.sum(cp.entr(x)) + cp.sum(cp.entr(1 - x))
    constraints: list[Any] = [cp.sum(x) == K]
    return cp.Problem(cp.Maximize(c @ x + entropy), constraints), [c], [x]


def formula(c: torch.Tensor) -> torch.Tensor:
    """Returns sigmoid(c + ν) with a sum of k: bisection without derivatives, then one step of Newton's with them."""
    with torch.no_grad():
        middle = np.log(K / (c.shape[-1] - K))
        low, high = middle - c.amax(-1, keepdim=True), middle - c.amin(-1, keepdim=True)
        for _ in range(12):
            guess = (low + high) / 2
            above = torch.sigmoid(c + guess).sum(-1, keepdim=True) > K
            low, high = torch.where(above, low, guess), torch.where(above, guess, high)
        shift = (low + high) / 2
        for _ in range(3):
            x = torch.sigmoid(c + shift)
            shift = shift - (x.sum(-1, keepdim=True) - K) / (x * (1 - x)).sum(-1, keepdim=True)
        x = torch.sigmoid(c + shift)
        slope = (x * (1 - x)).sum(-1, keepdim=True)
    # The value does not change in this step; the derivative of ν enters with it.
    shift = shift - (torch.sigmoid(c + shift).sum(-1, keepdim=True) - K) / slope
    return torch.sigmoid(c + shift)


def exact(c: Array) -> Array:
    """Returns the solution by Brent's method, polished, and below it its Jacobian."""
    shift = brentq(lambda s: expit(c + s).sum() - K, -50 - c.max(), 50 - c.min(), xtol=1e-15)
    x = expit(c + shift)
    slopes = x * (1 - x)
    return np.vstack([x, np.diag(slopes) - np.outer(slopes, slopes) / slopes.sum()])


WORKLOAD = workload("soft_top_k", "soft top-k", text, formula, exact, quadratic=False)

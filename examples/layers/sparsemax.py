"""Sparsemax, free and under upper bounds: the Euclidean projection onto the simplex."""

from __future__ import annotations

import cvxpy as cp
import torch
from jaxtyping import Float

from cvxlayers.torch import CvxpyLayer


def sparsemax_layer(n: int) -> CvxpyLayer:
    """Returns the layer x ↦ argmin ½ ‖y − x‖² over the simplex."""
    x, y = cp.Parameter(n), cp.Variable(n)
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(y) - x @ y), [cp.Zero(cp.sum(y) - 1), y >= 0])
    return CvxpyLayer(problem, [x], [y])


def constrained_sparsemax_layer(n: int) -> CvxpyLayer:
    """Returns the layer (x, u) ↦ argmin ½ ‖y − x‖² over the simplex, with y ≤ u."""
    x, u, y = cp.Parameter(n), cp.Parameter(n), cp.Variable(n)
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(y) - x @ y), [cp.Zero(cp.sum(y) - 1), y >= 0, y <= u])
    return CvxpyLayer(problem, [x, u], [y])


def sparsemax(x: Float[torch.Tensor, " n"]) -> Float[torch.Tensor, " n"]:
    """Returns max(x − τ, 0), with the threshold τ found by sorting.

    References: Martins and Astudillo (2016), From softmax to sparsemax.
    """
    descending = x.sort(descending=True).values
    thresholds = (descending.cumsum(0) - 1) / torch.arange(1, len(x) + 1)
    support = int((descending > thresholds).sum())
    return torch.relu(x - thresholds[support - 1])


def constrained_sparsemax(x: Float[torch.Tensor, " n"], u: Float[torch.Tensor, " n"]) -> Float[torch.Tensor, " n"]:
    """Returns clip(x − τ, 0, u). The sum is piecewise linear in τ, so that τ lies on the line between two kinks.

    References: Malaviya, Ferreira and Martins (2018), Sparse and constrained attention for neural machine translation.
    """
    kinks = torch.cat([x, x - u]).sort().values
    sums = torch.minimum(torch.relu(x - kinks[:, None]), u).sum(dim=1)
    high = int((sums <= 1).int().argmax())
    low = high - 1
    slope = (kinks[high] - kinks[low]) / (sums[low] - sums[high])
    threshold = kinks[low] + (sums[low] - 1) * slope
    return torch.minimum(torch.relu(x - threshold), u)

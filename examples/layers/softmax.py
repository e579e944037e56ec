"""Softmax, free and under upper bounds: the entropy-regularised choice from the simplex."""

from __future__ import annotations

import cvxpy as cp
import torch
from jaxtyping import Float

from cvxlayers.torch import CvxpyLayer


def softmax_layer(n: int) -> CvxpyLayer:
    """Returns the layer x ↦ argmin −xᵀy − H(y) over the simplex, with the entropy H."""
    x, y = cp.Parameter(n), cp.Variable(n)
    problem = cp.Problem(cp.Minimize(-x @ y - cp.sum(cp.entr(y))), [cp.Zero(cp.sum(y) - 1)])
    return CvxpyLayer(problem, [x], [y])


def constrained_softmax_layer(n: int) -> CvxpyLayer:
    """Returns the layer (x, u) ↦ argmin −xᵀy − H(y) over the simplex, with y ≤ u."""
    x, u, y = cp.Parameter(n), cp.Parameter(n), cp.Variable(n)
    problem = cp.Problem(cp.Minimize(-x @ y - cp.sum(cp.entr(y))), [cp.Zero(cp.sum(y) - 1), y <= u])
    return CvxpyLayer(problem, [x, u], [y])


def softmax(x: Float[torch.Tensor, " n"]) -> Float[torch.Tensor, " n"]:
    """Returns exp(x) / Σ exp(x)."""
    return torch.softmax(x, dim=-1)


def constrained_softmax(x: Float[torch.Tensor, " n"], u: Float[torch.Tensor, " n"]) -> Float[torch.Tensor, " n"]:
    """Returns min(u, s exp(x)), with the scale s that makes the sum one.

    Sorted by u / exp(x), those at their bounds come first: s is that of the first split leaving the rest below theirs.

    References: Martins and Kreutzer (2017), Fully differentiable neural easy-first taggers.
    """
    order = torch.argsort(u.log() - x)
    weights, bounds = x.exp()[order], u[order]
    scales = (1 - (bounds.cumsum(0) - bounds)) / weights.flip(0).cumsum(0).flip(0)
    first = int((scales * weights <= bounds).int().argmax())
    return torch.minimum(u, scales[first] * x.exp())

"""Optimal transport with entropy, against Sinkhorn's iteration."""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import torch
from jaxtyping import Float

from cvxlayers.torch import CvxpyLayer


def transport_layer(rows: int, columns: int, entropy: float) -> CvxpyLayer:
    """Returns the layer (C, a, b) ↦ argmin ⟨C, P⟩ − entropy H(P) over plans with row sums a, column sums b.

    The last column sum follows from the other sums, and is left out: equations must not depend on each other.
    """
    C, a, b = cp.Parameter((rows, columns)), cp.Parameter(rows), cp.Parameter(columns)
    plan = cp.Variable((rows, columns))
    objective = cp.sum(cp.multiply(C, plan)) - entropy * cp.sum(cp.entr(plan))
    columnwise: Any = cp.sum(plan, axis=0)
    marginals: list[Any] = [cp.Zero(cp.sum(plan, axis=1) - a), cp.Zero(columnwise[:-1] - b[:-1])]
    return CvxpyLayer(cp.Problem(cp.Minimize(objective), marginals), [C, a, b], [plan])


def sinkhorn(
    C: Float[torch.Tensor, "rows columns"],
    a: Float[torch.Tensor, " rows"],
    b: Float[torch.Tensor, " columns"],
    entropy: float,
    iterations: int = 200,
) -> Float[torch.Tensor, "rows columns"]:
    """Returns the plan by scaling rows and columns of exp(−C / entropy) in turn, in logarithms.

    The last entry of b is taken to be what the total of a leaves.

    References: Cuturi (2013), Sinkhorn distances.
    """
    b = torch.cat([b[:-1], (a.sum() - b[:-1].sum())[None]])
    left, right = torch.zeros_like(a), torch.zeros_like(b)
    for _ in range(iterations):
        right = b.log() - torch.logsumexp(left[:, None] - C / entropy, dim=0)
        left = a.log() - torch.logsumexp(right - C / entropy, dim=1)
    return (left[:, None] + right - C / entropy).exp()

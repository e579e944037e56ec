"""Isotonic regression: the nearest increasing sequence."""

from __future__ import annotations

import cvxpy as cp
import torch
from jaxtyping import Float

from cvxlayers.torch import CvxpyLayer


def isotonic_layer(n: int) -> CvxpyLayer:
    """Returns the layer x ↦ argmin ½ ‖y − x‖² over y₁ ≤ … ≤ yₙ."""
    x, y = cp.Parameter(n), cp.Variable(n)
    return CvxpyLayer(cp.Problem(cp.Minimize(0.5 * cp.sum_squares(y) - x @ y), [cp.diff(y) >= 0]), [x], [y])


def isotonic(x: Float[torch.Tensor, " n"]) -> Float[torch.Tensor, " n"]:
    """Returns yᵢ = max over j ≤ i of min over k ≥ i of the mean of xⱼ … xₖ.

    References: Robertson, Wright and Dykstra (1988), Order restricted statistical inference.
    """
    n, infinity = len(x), torch.inf
    sums = torch.cat([x.new_zeros(1), x.cumsum(0)])
    start, stop = torch.arange(n)[:, None], torch.arange(n)
    means = (sums[1:] - sums[:-1, None]) / (stop - start + 1).clamp(min=1)
    means = means.masked_fill(stop < start, infinity)
    least = means.flip(1).cummin(dim=1).values.flip(1)  # over k ≥ i
    return least.masked_fill(start > stop, -infinity).amax(dim=0)

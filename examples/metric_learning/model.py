"""The three parts of every experiment here: the metric, the fit under it, and the decision on the prediction."""

from __future__ import annotations

import cvxpy as cp
import torch
from jaxtyping import Float

from cvxlayers.torch import CvxpyLayer

Weights = Float[torch.Tensor, " samples"]
Coefficients = Float[torch.Tensor, " features"]


class Metric(torch.nn.Module):
    """A positive weight for each sample, l(x)² + a little, from a network of one hidden layer; at first all are equal.

    Args:
        inputs: how many numbers describe a sample.
        hidden: size of the hidden layer.
        seed: of the hidden layer's first weights.
    """

    def __init__(self, inputs: int, hidden: int, seed: int) -> None:
        torch.nn.Module.__init__(self)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.hidden = torch.nn.Linear(inputs, hidden, dtype=torch.float64)
        self.out = torch.nn.Parameter(torch.zeros(hidden, dtype=torch.float64))

    def forward(self, samples: Float[torch.Tensor, "samples inputs"]) -> Weights:
        """Returns the weights, of mean one."""
        weights = (1 + torch.tanh(self.hidden(samples)) @ self.out).square() + 1e-3
        return weights / weights.mean()


def fit_layer(features: int) -> CvxpyLayer:
    """Returns the layer (G, c) ↦ argmin ½ θᵀG θ − cᵀθ: least squares by its moments, the inner problem."""
    G, c, theta = cp.Parameter((features, features), PSD=True), cp.Parameter(features), cp.Variable(features)
    return CvxpyLayer(cp.Problem(cp.Minimize(0.5 * cp.quad_form(theta, G) - c @ theta)), [G, c], [theta])


def fit(
    layer: CvxpyLayer,
    features: Float[torch.Tensor, "samples features"],
    targets: Weights,
    weights: Weights,
    prices: Coefficients | None = None,
) -> Coefficients:
    """Returns argmin ½ mean of weights (features θ − targets)² + ½ Σ prices θ², prices being zero by default."""
    scaled = features.T * weights / len(weights)
    moments = scaled @ features
    moments = (moments + moments.T) / 2
    (theta,) = layer(moments if prices is None else moments + prices.diag(), scaled @ targets)
    return theta


def choice_layer(items: int, smoothing: float, chosen: int = 1) -> CvxpyLayer:
    """Returns the layer y ↦ argmax yᵀp − ½ smoothing ‖p‖² over 0 ≤ p ≤ 1, Σp = chosen: it has a derivative."""
    y, p = cp.Parameter(items), cp.Variable(items)
    objective = cp.Maximize(y @ p - 0.5 * smoothing * cp.sum_squares(p))
    constraints: list[cp.Constraint] = [cp.Zero(cp.sum(p) - chosen), p >= 0]
    if chosen > 1:  # of one, p ≤ 1 follows
        constraints.append(p <= 1)
    return CvxpyLayer(cp.Problem(objective, constraints), [y], [p])

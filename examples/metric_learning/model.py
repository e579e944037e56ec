"""The three parts of every experiment here: the metric, the fit under it, and the decision on the prediction."""

from __future__ import annotations

import cvxpy as cp
import torch
from jaxtyping import Float

from cvxlayers.torch import CvxpyLayer

Weights = Float[torch.Tensor, " samples"]


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
    ridge: float = 0.0,
) -> Float[torch.Tensor, " features"]:
    """Returns argmin ½ mean of weights (features θ − targets)² + ½ ridge ‖θ‖²."""
    scaled = features.T * weights / len(weights)
    moments = scaled @ features
    (theta,) = layer((moments + moments.T) / 2 + ridge * torch.eye(len(moments), dtype=moments.dtype), scaled @ targets)
    return theta


def choice_layer(items: int, smoothing: float) -> CvxpyLayer:
    """Returns the layer y ↦ argmax yᵀp − ½ smoothing ‖p‖² over the simplex: a choice that has a derivative."""
    y, p = cp.Parameter(items), cp.Variable(items)
    objective = cp.Maximize(y @ p - 0.5 * smoothing * cp.sum_squares(p))
    return CvxpyLayer(cp.Problem(objective, [cp.Zero(cp.sum(p) - 1), p >= 0]), [y], [p])

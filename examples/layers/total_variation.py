"""Total-variation denoising in one dimension."""

from __future__ import annotations

import itertools

import cvxpy as cp
import numpy as np
import torch
from jaxtyping import Float

from cvxlayers.torch import CvxpyLayer


def total_variation_layer(n: int) -> CvxpyLayer:
    """Returns the layer (x, penalty) ↦ argmin ½ ‖y − x‖² + penalty Σᵢ |yᵢ₊₁ − yᵢ|."""
    x, penalty, y = cp.Parameter(n), cp.Parameter(nonneg=True), cp.Variable(n)
    objective = 0.5 * cp.sum_squares(y) - x @ y + penalty * cp.norm1(cp.diff(y))
    return CvxpyLayer(cp.Problem(cp.Minimize(objective)), [x, penalty], [y])


def total_variation(x: Float[torch.Tensor, " n"], penalty: Float[torch.Tensor, ""]) -> Float[torch.Tensor, " n"]:
    """Returns the best of the solutions that belong to each pattern of steps down, steps up and no step.

    Given the pattern, a segment lies at its mean, raised where a step up ends it or a step down begins it.
    """
    means, lifts = (torch.as_tensor(array) for array in _patterns(len(x)))
    candidates = means @ x + penalty * lifts
    objectives = 0.5 * (candidates - x).square().sum(1) + penalty * candidates.diff(dim=1).abs().sum(1)
    return candidates[objectives.argmin()]


def _patterns(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the matrix of means and the lift of each pattern."""
    means, lifts = [], []
    for steps in itertools.product((-1, 0, 1), repeat=n - 1):
        labels = np.concatenate([[0], np.cumsum(np.abs(steps))])
        mean = (labels[:, None] == labels) / (labels[:, None] == labels).sum(axis=1)
        bounded = np.concatenate([[0], steps, [0]])
        means.append(mean)
        lifts.append(mean @ (bounded[1:] - bounded[:-1]))
    return np.array(means), np.array(lifts)

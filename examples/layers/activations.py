"""ReLU and sigmoid as the projections that they are."""

from __future__ import annotations

import cvxpy as cp

from cvxlayers.torch import CvxpyLayer


def relu_layer(n: int) -> CvxpyLayer:
    """Returns the layer x ↦ argmin ½ ‖y − x‖² over y ≥ 0: the ReLU."""
    x, y = cp.Parameter(n), cp.Variable(n)
    return CvxpyLayer(cp.Problem(cp.Minimize(0.5 * cp.sum_squares(y) - x @ y), [y >= 0]), [x], [y])


def sigmoid_layer(n: int) -> CvxpyLayer:
    """Returns the layer x ↦ argmin −xᵀy − H(y) − H(1 − y): the sigmoid."""
    x, y = cp.Parameter(n), cp.Variable(n)
    entropy = cp.sum(cp.entr(y)) + cp.sum(cp.entr(1 - y))
    return CvxpyLayer(cp.Problem(cp.Minimize(-x @ y - entropy)), [x], [y])

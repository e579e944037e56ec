"""The elastic net as a layer, and its penalties as something to learn."""

from __future__ import annotations

import cvxpy as cp
import torch
from jaxtyping import Float, Int

from cvxlayers.torch import CvxpyLayer


def elastic_net(features: int) -> CvxpyLayer:
    """Returns the layer (gram, cross, l1, l2) ↦ w that fits an elastic net with one penalty per weight.

    It minimises ½ wᵀ gram w − crossᵀw + Σⱼ l1ⱼ |wⱼ| + ½ l2 ‖w‖²: half the mean squared error on the data behind the
    moments, less a constant, plus the penalties. scikit-learn's elastic net is the case of equal l1ⱼ.
    """
    gram = cp.Parameter((features, features), PSD=True, name="gram")
    cross = cp.Parameter(features, name="cross")
    l1 = cp.Parameter(features, nonneg=True, name="l1")
    l2 = cp.Parameter(nonneg=True, name="l2")
    w = cp.Variable(features, name="w")
    fit = 0.5 * cp.quad_form(w, gram) - cross @ w
    penalty = l1 @ cp.abs(w) + 0.5 * l2 * cp.sum_squares(w)
    return CvxpyLayer(cp.Problem(cp.Minimize(fit + penalty)), parameters=[gram, cross, l1, l2], variables=[w])


class Penalty(torch.nn.Module):
    """The penalties of every split, positive through their logarithms.

    log l1ⱼ is the level of feature j's kind (measurement, square, interaction) plus a deviation of its own.

    Args:
        splits: how many splits learn penalties of their own.
        kinds: the kind of each feature.
        start: all penalties at first.
    """

    def __init__(self, splits: int, kinds: Int[torch.Tensor, " features"], start: float = 0.05) -> None:
        torch.nn.Module.__init__(self)
        self.kinds = kinds
        log_start = torch.tensor(start, dtype=torch.float64).log()
        # The axis of size one broadcasts over the folds: all folds of a split share its penalties.
        self.level = torch.nn.Parameter(log_start.repeat(splits, 1, int(kinds.max()) + 1))
        self.deviation = torch.nn.Parameter(torch.zeros(splits, 1, len(kinds), dtype=torch.float64))
        self.log_l2 = torch.nn.Parameter(log_start.repeat(splits, 1))

    def forward(self) -> tuple[Float[torch.Tensor, "splits 1 features"], Float[torch.Tensor, "splits 1"]]:
        """Returns the penalties (l1, l2)."""
        return (self.level[..., self.kinds] + self.deviation).exp(), self.log_l2.exp()

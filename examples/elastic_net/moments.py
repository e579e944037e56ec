"""Second moments: all that a squared loss needs to know of its data, and of one size however many the people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float


@dataclass(frozen=True)
class Moments:
    """Moments of predictors X and responses y, so that folds of unequal size form one batch.

    The mean squared error of weights w is mean (y − Xw)² = energy − 2 crossᵀw + wᵀ gram w.

    Attributes:
        gram: mean of X xᵀ, positive semidefinite.
        cross: mean of X y.
        energy: mean of y².
    """

    gram: Float[torch.Tensor, "*batch features features"]
    cross: Float[torch.Tensor, "*batch features"]
    energy: Float[torch.Tensor, "*batch"]

    def mean_squared_error(self, w: Float[torch.Tensor, "*batch features"]) -> Float[torch.Tensor, "*batch"]:
        """Returns the mean of (y − Xw)² for each item of the batch."""
        curvature = torch.einsum("...i,...ij,...j->...", w, self.gram, w)
        return self.energy - 2 * (self.cross * w).sum(dim=-1) + curvature


def moments(
    X: Float[np.ndarray, "people features"],
    y: Float[np.ndarray, " people"],
    X_fit: Float[np.ndarray, "fit features"],
    y_fit: Float[np.ndarray, " fit"],
) -> Moments:
    """Returns the moments of X and y about the means of the data that the weights are fitted on.

    Centring there eliminates the intercept: the best one is mean(y_fit) − mean(X_fit)ᵀw for every w.
    """
    X, y = X - X_fit.mean(axis=0), y - y_fit.mean()
    gram, cross, energy = X.T @ X / len(y), X.T @ y / len(y), y @ y / len(y)
    return Moments(torch.as_tensor(gram), torch.as_tensor(cross), torch.as_tensor(energy))


def stack(rows: Sequence[Sequence[Moments]]) -> Moments:
    """Stacks a table of moments into one with two batch axes."""

    def table(name: str) -> torch.Tensor:
        return torch.stack([torch.stack([getattr(item, name) for item in row]) for row in rows])

    return Moments(table("gram"), table("cross"), table("energy"))

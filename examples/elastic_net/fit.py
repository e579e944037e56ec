"""What a way of choosing penalties comes to."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float


@dataclass(frozen=True)
class Fit:
    """What a way of choosing penalties came to, for each split.

    Attributes:
        w: weights of the net refitted to the whole training part.
        l1: penalty per feature.
        validation: cross-validation error of the chosen penalties.
        test: error on people that no choice has seen.
        seconds: time taken over all splits.
    """

    w: Float[torch.Tensor, "splits features"]
    l1: Float[torch.Tensor, "splits features"]
    validation: Float[torch.Tensor, " splits"]
    test: Float[torch.Tensor, " splits"]
    seconds: float

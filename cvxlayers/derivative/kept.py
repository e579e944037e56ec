"""The directions that the smaller systems of a batch keep: how many differs between its items.

They are padded to the number of the item with the most; each system is factorised in its own order, so that no item's
rounding depends on its neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int

from cvxlayers.batches import Vectors, is_everything


@dataclass(frozen=True, eq=False)
class Kept:
    """The directions that items keep.

    Attributes:
        mask: which.
        order: the same as indices, item by item, padded with any.
        count: how many each item keeps.
    """

    mask: Bool[np.ndarray, "batch m"]
    order: Int[np.ndarray, "batch most"]
    count: Int[np.ndarray, " batch"]

    @classmethod
    def of(cls, mask: Bool[np.ndarray, "batch m"]) -> Kept:
        """Returns the directions of a mask."""
        count = mask.sum(axis=1)
        kept = cls(mask, np.zeros((len(mask), int(count.max(initial=0))), dtype=np.int64), count)
        kept.order[kept.used] = np.nonzero(mask)[1]
        return kept

    def item(self, index: Int[np.ndarray, " k"]) -> Kept:
        """Returns the directions of some items."""
        if is_everything(index, len(self.mask)):
            return self  # with what is known of it
        return Kept(self.mask[index], self.order[index], self.count[index])

    @cached_property
    def used(self) -> Bool[np.ndarray, "batch most"]:
        """Which of the indices are no padding."""
        return np.arange(self.order.shape[1]) < self.count[:, None]

    def take(self, w: Vectors) -> Vectors:
        """Returns the entries of vectors that are kept."""
        return w[np.arange(len(w))[:, None], self.order]

    def put(self, w: Vectors, values: Vectors) -> None:
        """Writes the entries of vectors that are kept."""
        w[self.mask] = values[self.used]

"""Dense LU factors of batches of small symmetric matrices, each of its own order, and what their pivots say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.linalg import lapack

from cvxlayers.batches import Vectors

# A ratio of pivots below this leaves an item to a method that looks closer.
_SUSPECT = 1e-9


@dataclass(frozen=True, eq=False)
class SmallFactors:
    """The LU factors of matrices, and the ratios of their pivots."""

    factors: list[Float[np.ndarray, "_order _order"]]
    exchanges: list[Int[np.ndarray, " _order"]]
    condition: Float[np.ndarray, " batch"]

    @classmethod
    def of(cls, matrices: Float[np.ndarray, "batch k k"], orders: Int[np.ndarray, " batch"]) -> SmallFactors:
        """Factorises symmetric matrices, the leading blocks of some orders, which may be overwritten."""
        factors, exchanges, pivots = [], [], np.zeros(matrices.shape[:2])
        for row, order in enumerate(orders.tolist()):
            # The transpose of a row-major item is the matrix itself, in the order that LAPACK works on.
            block, exchange = matrices[row, :order, :order].T, np.zeros(0, dtype=np.int64)
            if order:
                block, exchange, _ = lapack.dgetrf(block, overwrite_a=1)
            factors.append(block)
            exchanges.append(exchange)
            pivots[row, :order] = block.diagonal()
        pivots, used = np.abs(pivots), np.arange(matrices.shape[1]) < orders[:, None]
        smallest, largest = np.where(used, pivots, np.inf).min(axis=1, initial=np.inf), pivots.max(axis=1, initial=0.0)
        condition = np.divide(largest, smallest, out=np.full(len(matrices), np.inf), where=smallest > 0)
        return cls(factors, exchanges, np.where(np.isfinite(condition), np.maximum(condition, 1.0), np.inf))

    @property
    def sound(self) -> Bool[np.ndarray, " batch"]:
        """Which matrices are regular without a doubt."""
        return self.condition * _SUSPECT < 1.0

    def solve(self, rhs: Vectors) -> Vectors:
        """Solves for one right-hand side each; what lies behind an item's order does not count."""
        solution = np.zeros(rhs.shape)
        for row, (factors, exchange) in enumerate(zip(self.factors, self.exchanges, strict=True)):
            if len(exchange):
                solution[row, : len(exchange)] = lapack.dgetrs(factors, exchange, rhs[row, : len(exchange)])[0]
        return solution

"""Dense LU factors of batches of small symmetric matrices, and what their pivots say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.linalg import lapack

from cvxlayers.program import Vectors

# A ratio of pivots below this leaves an item to a method that looks closer.
_SUSPECT = 1e-9


@dataclass(frozen=True, eq=False)
class SmallFactors:
    """The LU factors of matrices of one order, and the ratios of their pivots."""

    factors: Float[np.ndarray, "batch k k"]
    exchanges: list[Int[np.ndarray, " k"]]
    condition: Float[np.ndarray, " batch"]

    @classmethod
    def of(cls, matrices: Float[np.ndarray, "batch k k"]) -> SmallFactors:
        """Factorises symmetric matrices, in place."""
        # The transpose of a row-major item is the matrix itself, in the order that LAPACK overwrites.
        exchanges = [lapack.dgetrf(item.T, overwrite_a=1)[1] for item in matrices] if matrices.shape[1] else []
        pivots = np.abs(np.diagonal(matrices, axis1=1, axis2=2))
        smallest, largest = pivots.min(axis=1, initial=np.inf), pivots.max(axis=1, initial=0.0)
        condition = np.divide(largest, smallest, out=np.full(len(matrices), np.inf), where=smallest > 0)
        return cls(matrices, exchanges, np.where(np.isfinite(condition), np.maximum(condition, 1.0), np.inf))

    @property
    def sound(self) -> Bool[np.ndarray, " batch"]:
        """Which matrices are regular without a doubt."""
        return self.condition * _SUSPECT < 1.0

    def solve(self, rhs: Vectors) -> Vectors:
        """Solves for one right-hand side each."""
        solution = np.empty(rhs.shape)
        for row in range(len(rhs) if rhs.shape[1] else 0):
            solution[row] = lapack.dgetrs(self.factors[row].T, self.exchanges[row], rhs[row])[0]
        return solution

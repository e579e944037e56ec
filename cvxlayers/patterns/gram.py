"""Products A diag(w) Aᵀ of matrices that share a pattern: which entries meet is found once, and then summed up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

# Products of two entries up to which their places are kept: 16 bytes each.
_MOST = 2**20


@dataclass(frozen=True, eq=False)
class Gram:
    """The lower triangle of A diag(w) Aᵀ.

    Attributes:
        height: the number of rows of A.
        cols: the column of each stored entry of A.
        first: of each product of two entries, the one in the lower row of A; by the place to which products add up.
        second: the other one.
        starts: where the products of each place begin.
        lower: the row of each place.
        upper: its column.
    """

    height: int
    cols: Int[np.ndarray, " nnz"]
    first: Int[np.ndarray, " products"]
    second: Int[np.ndarray, " products"]
    starts: Int[np.ndarray, " places"]
    lower: Int[np.ndarray, " places"]
    upper: Int[np.ndarray, " places"]

    def dense(
        self,
        values: Float[np.ndarray, " nnz"],
        weights: Float[np.ndarray, " n"],
        kept: Bool[np.ndarray, " m"] | None = None,
    ) -> Float[np.ndarray, "_size _size"]:
        """Returns all rows and columns of A diag(w) Aᵀ, or those that are kept, of A with these stored entries."""
        products = (values * weights.take(self.cols)).take(self.first)
        products *= values.take(self.second)
        sums, lower, upper, size = np.add.reduceat(products, self.starts), self.lower, self.upper, self.height
        if kept is not None:
            inside, position = np.flatnonzero(kept.take(lower) & kept.take(upper)), np.cumsum(kept) - 1
            sums, size = sums.take(inside), int(np.count_nonzero(kept))
            lower, upper = position.take(lower.take(inside)), position.take(upper.take(inside))
        matrix = np.zeros((size, size))
        matrix[lower, upper] = sums
        matrix[upper, lower] = sums
        return matrix


def find_gram(
    height: int,
    rows: Int[np.ndarray, " nnz"],
    cols: Int[np.ndarray, " nnz"],
    starts: Int[np.ndarray, " cols_plus_one"],
) -> Gram | None:
    """Returns which entries meet, of a matrix given column by column; None where they are too many, or none."""
    counts = np.diff(starts).astype(np.int64)
    if not 0 < int(np.sum(counts * counts)) <= 2 * _MOST:
        return None
    partners = counts[cols]
    first = np.repeat(np.arange(len(rows)), partners)
    second = np.arange(len(first)) - np.repeat(np.cumsum(partners) - partners - starts[cols], partners)
    half = rows[first] >= rows[second]
    first, second = first[half], second[half]
    order = np.lexsort((rows[second], rows[first]))
    first, second = first[order], second[order]
    lower, upper = rows[first].astype(np.int64), rows[second].astype(np.int64)
    begins = np.flatnonzero(np.append(True, (np.diff(lower) != 0) | (np.diff(upper) != 0)))
    return Gram(height, cols, first, second, begins, lower[begins], upper[begins])

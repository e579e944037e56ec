"""Batches of sparse matrices that share their stored positions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

Values = Float[np.ndarray, "batch nnz"]
Vectors = Float[np.ndarray, "batch _"]


@dataclass(frozen=True, eq=False)
class Pattern:
    """Stored positions, row by row; the values of a batch of matrices follow in this order."""

    shape: tuple[int, int]
    rows: Int[np.ndarray, " nnz"]
    cols: Int[np.ndarray, " nnz"]

    @classmethod
    def full(cls, height: int, width: int) -> Pattern:
        """Returns the pattern of dense matrices."""
        rows, cols = np.indices((height, width)).reshape(2, -1)
        return cls((height, width), rows, cols)

    @classmethod
    def block_diagonal(cls, orders: tuple[int, ...]) -> Pattern:
        """Returns the pattern of dense square blocks along the diagonal."""
        starts = np.cumsum((0, *orders))[:-1]
        places = [np.indices((k, k)).reshape(2, -1) + start for start, k in zip(starts, orders, strict=True)]
        rows, cols = np.concatenate(places, axis=1)
        return cls((sum(orders), sum(orders)), rows, cols)

    @cached_property
    def csr(self) -> sp.csr_array:
        """The positions as a SciPy matrix of ones."""
        return sp.csr_array((np.ones(len(self.rows)), (self.rows, self.cols)), shape=self.shape)

    def matvec(self, values: Values, x: Vectors) -> Vectors:
        """Returns Mx of each item."""
        return _summed(values * x[:, self.cols], self.rows, self.shape[0])

    def rmatvec(self, values: Values, y: Vectors) -> Vectors:
        """Returns Mᵀy of each item."""
        return _summed(values * y[:, self.rows], self.cols, self.shape[1])

    def dense(self, values: Values) -> Float[np.ndarray, "batch rows cols"]:
        """Returns the matrices with their zeros."""
        matrices = np.zeros((len(values), *self.shape))
        matrices[:, self.rows, self.cols] = values
        return matrices

    def padded(self, right: sp.coo_array) -> Pattern:
        """Returns the pattern with that of further columns on the right; `beside` places the values."""
        rows, cols, order = _merged(self, right)
        return Pattern((self.shape[0], self.shape[1] + _width(right)), rows[order], cols[order])

    def beside(self, values: Values, right: sp.coo_array) -> Vectors:
        """Returns the values of matrices with constant columns on the right, in the order of `padded`."""
        constant = np.broadcast_to(right.data, (len(values), right.nnz))
        return np.concatenate([values, constant], axis=1)[:, _merged(self, right)[2]]


def _width(matrix: sp.coo_array) -> int:
    _, width = matrix.shape or (0, 0)
    return width


def _merged(left: Pattern, right: sp.coo_array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows = np.concatenate([left.rows, right.row])
    cols = np.concatenate([left.cols, right.col + left.shape[1]])
    return rows, cols, np.lexsort((cols, rows))


def _summed(products: Values, places: Int[np.ndarray, " nnz"], size: int) -> Vectors:
    summing = sp.csr_array((np.ones(len(places)), (places, np.arange(len(places)))), shape=(size, len(places)))
    return np.ascontiguousarray((summing @ products.T).T)

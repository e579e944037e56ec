"""Products of sparse matrices with vectors, for a batch of matrices that share a pattern, in one compiled loop.

Matrices of several items are one matrix of diagonal blocks, whose indices are those of the pattern, repeated. Sums run
over the entries of an item in their order: no item's rounding depends on its neighbours.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from cvxlayers.batches import Values, Vectors

# Entries of the matrices that are multiplied by one call; the indices of so many are kept.
_AT_ONCE = 2**15


@dataclass(frozen=True, eq=False)
class Products:
    """M x and Mᵀ y for matrices given by their entries, column by column.

    Attributes:
        shape: of a matrix.
        rows: the row of each entry.
        starts: where the entries of each column begin, and where the last ones end.
    """

    shape: tuple[int, int]
    rows: Int[np.ndarray, " nnz"]
    starts: Int[np.ndarray, " cols_plus_one"]

    def apply(self, values: Values, x: Vectors) -> Vectors:
        """Returns M x for each item; a batch of one broadcasts."""
        return self._multiply(values, x, self.shape[0], transposed=False)

    def adjoint(self, values: Values, y: Vectors) -> Vectors:
        """Returns Mᵀ y for each item; a batch of one broadcasts."""
        return self._multiply(values, y, self.shape[1], transposed=True)

    def _multiply(self, values: Values, v: Vectors, size: int, *, transposed: bool) -> Vectors:
        batch = len(v) if len(values) == 1 else len(values)
        most, out = self._repeated[0], np.empty((batch, size))
        for start in range(0, batch, most):
            stop = min(start + most, batch)
            # SciPy checks a new matrix for longer than the product takes: this is a copy of one with other entries.
            matrix = copy(self._matrices(stop - start)[transposed])
            matrix.data = _flat(values, start, stop)
            out[start:stop] = (matrix @ _flat(v, start, stop)).reshape(stop - start, size)
        return out

    def _matrices(self, count: int) -> tuple[sp.csc_array, sp.csr_array]:
        """Returns the matrix of the blocks of so many items, of no entries that mean anything, and its transpose."""
        if count not in self._checked:
            (height, width), (_, starts, rows) = self.shape, self._repeated
            indices, indptr = rows[: count * len(self.rows)], starts[: count * width + 1]
            columns, data = (count * height, count * width), np.empty(len(indices))
            checked = sp.csc_array((data, indices, indptr), shape=columns)
            self._checked[count] = checked, sp.csr_array((data, indices, indptr), shape=columns[::-1])
        return self._checked[count]

    @cached_property
    def _checked(self) -> dict[int, tuple[sp.csc_array, sp.csr_array]]:
        return {}

    @cached_property
    def _repeated(self) -> tuple[int, Int[np.ndarray, " edges"], Int[np.ndarray, " entries"]]:
        """How many items are multiplied at once, and their starts and rows."""
        (height, width), nnz = self.shape, len(self.rows)
        count = max(1, _AT_ONCE // max(1, nnz + width))
        items = np.arange(count)[:, None]
        starts = np.append((items * nnz + self.starts[:-1]).ravel(), count * nnz)
        return count, starts.astype(np.int32), (items * height + self.rows).ravel().astype(np.int32)


def _flat(array: Float[np.ndarray, "#batch _size"], start: int, stop: int) -> Float[np.ndarray, " _entries"]:
    """Returns the entries of some items one after another, those that all items share for each of them."""
    if len(array) > 1:
        array = array[start:stop]
    elif stop - start > 1:
        array = np.broadcast_to(array, (stop - start, array.shape[1]))
    return array.ravel()

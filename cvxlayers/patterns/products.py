"""Products of sparse matrices with vectors, for a batch of matrices that share a pattern, in one compiled loop.

Matrices of several items are one matrix of diagonal blocks, whose indices are those of the pattern, repeated. Sums run
over the entries of an item in their order: no item's rounding depends on its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import _sparsetools

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
        return self._multiply(_sparsetools.csc_matvec, values, x, self.shape)

    def adjoint(self, values: Values, y: Vectors) -> Vectors:
        """Returns Mᵀ y for each item; a batch of one broadcasts."""
        return self._multiply(_sparsetools.csr_matvec, values, y, (self.shape[1], self.shape[0]))

    def _multiply(
        self, add_product: Callable[..., None], values: Values, v: Vectors, shape: tuple[int, int]
    ) -> Vectors:
        """Applies SciPy's loop: its matrices are checked for longer than the product of a single item takes."""
        batch, (height, width) = len(v) if len(values) == 1 else len(values), shape
        most, starts, rows = self._repeated
        out = np.zeros((batch, height))
        for start in range(0, batch, most):
            stop = min(start + most, batch)
            sizes = (stop - start) * height, (stop - start) * width
            entries, vectors = _flat(values, start, stop, len(self.rows)), _flat(v, start, stop, width)
            add_product(*sizes, starts, rows, entries, vectors, out[start:stop].reshape(-1))
        return out

    @cached_property
    def _repeated(self) -> tuple[int, Int[np.ndarray, " edges"], Int[np.ndarray, " entries"]]:
        """How many items are multiplied at once, and their starts and rows."""
        (height, width), nnz = self.shape, len(self.rows)
        count = max(1, _AT_ONCE // max(1, nnz + width))
        items = np.arange(count)[:, None]
        starts = np.append((items * nnz + self.starts[:-1]).ravel(), count * nnz)
        return count, starts.astype(np.int32), (items * height + self.rows).ravel().astype(np.int32)


def _flat(array: Vectors, start: int, stop: int, width: int) -> Float[np.ndarray, " _entries"]:
    """Returns the entries of some items one after another, those that all items share for each of them.

    Of another width than this they would be read beyond their end: the loop does not look.
    """
    if len(array) > 1:
        array = array[start:stop]
    elif stop - start > 1:
        array = np.broadcast_to(array, (stop - start, array.shape[1]))
    return array.reshape((stop - start) * width)

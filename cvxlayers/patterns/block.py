"""The dense submatrix of a sparse pattern that is worth more than its entries alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from cvxlayers.batches import Values

# A block that is not as high as the matrix must have so many rows, and so many entries.
_HIGH, _BIG = 8, 256


@dataclass(frozen=True, eq=False)
class Block:
    """A dense submatrix of consecutive rows and columns, transposed, where it lies among the stored entries.

    Attributes:
        columns: its columns, which have equally many entries.
        rows: its rows.
        entries: the stored entries of the columns.
        inside: which of each column's entries are those of the rows.
    """

    columns: slice
    rows: slice
    entries: slice
    inside: slice

    @cached_property
    def size(self) -> int:
        """The number of entries."""
        return (self.columns.stop - self.columns.start) * (self.rows.stop - self.rows.start)

    def view(self, values: Values) -> Float[np.ndarray, "batch cols rows"]:
        """Returns the transposed matrices, without a copy if the items' values are contiguous."""
        # The memory order decides how a product is summed up, and so its rounding.
        width = self.columns.stop - self.columns.start
        height = (self.entries.stop - self.entries.start) // width
        columns = np.ascontiguousarray(values)[:, self.entries]
        return columns.reshape((len(values), width, height))[:, :, self.inside]


NOTHING = Block(*4 * (slice(0, 0),))


def find_block(shape: tuple[int, int], rows: Int[np.ndarray, " nnz"], indptr: Int[np.ndarray, " _edges"]) -> Block:
    """Finds the largest dense block that spans the longest run of consecutive rows in each of its columns."""
    starts, counts = indptr[:-1].astype(np.int64), np.diff(indptr).astype(np.int64)
    if not len(rows):
        return NOTHING
    # Runs of consecutive rows within a column, and the longest of each column.
    begins = np.ones(len(rows), dtype=bool)
    begins[1:] = np.diff(rows) != 1
    begins[starts[counts > 0]] = True
    first = np.flatnonzero(begins)
    length = np.diff(np.append(first, len(rows)))
    column = np.searchsorted(indptr, first, side="right") - 1
    order = np.lexsort((-first, length, column))
    best = order[np.append(np.diff(column[order]) != 0, True)]
    shapes = np.full((shape[1], 4), -1, dtype=np.int64)
    mine = column[best]
    shapes[mine] = np.stack([counts[mine], first[best] - starts[mine], rows[first[best]], length[best]], axis=1)
    # Neighbours of one shape make a block.
    edges = np.flatnonzero(np.append(True, np.append((np.diff(shapes, axis=0) != 0).any(axis=1), True)))
    widths = np.diff(edges)
    sizes = widths * shapes[edges[:-1], 3]
    k = int(np.argmax(sizes))
    start, stop = int(edges[k]), int(edges[k + 1])
    _, offset, top, height = shapes[start].tolist()
    if height < shape[0] and (height < _HIGH or sizes[k] < _BIG):
        return NOTHING
    entries = slice(int(indptr[start]), int(indptr[stop]))
    return Block(slice(start, stop), slice(top, top + height), entries, slice(offset, offset + height))

"""The items of a batch, one at a time, in the shapes that solvers take: rows, sparse submatrices, empty results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from cvxlayers.program import Pattern, Solution, Status, Structure


def each(array: Float[np.ndarray, "leading ..."], batch: int) -> Iterable[Float[np.ndarray, "..."]]:
    """Returns the rows of all items; a batch of one is shared by all."""
    return repeat(array[0], batch) if len(array) == 1 else array


def unsolved(structure: Structure, batch: int) -> Solution:
    """Returns a batch in which nothing is solved yet: NaN, NUMERICAL_ERROR, no iterations. Solvers fill it in."""
    return Solution(
        x=np.full((batch, structure.n), np.nan),
        y=np.full((batch, structure.m), np.nan),
        s=np.full((batch, structure.m), np.nan),
        status=np.full(batch, int(Status.NUMERICAL_ERROR)),
        iterations=np.zeros(batch, dtype=np.int64),
    )


@dataclass(frozen=True, eq=False)
class Submatrix:
    """Some entries of a pattern, as a compressed-column matrix of their own."""

    entries: Int[np.ndarray, " nnz"]
    pattern: Pattern

    def each(self, values: Float[np.ndarray, "leading stored"], batch: int) -> Iterator[sp.csc_matrix]:
        """Yields the matrix of each item: one object whose values are replaced, so a consumer must copy what it keeps.

        Building a scipy matrix costs more than solving a small program; the indices are the same for all items.
        """
        rows = values[:, self.entries]
        matrix = sp.csc_matrix((rows[0].copy(), self.pattern.indices, self.pattern.indptr), shape=self.pattern.shape)
        for row in each(rows, batch):
            matrix.data = row
            yield matrix

    def dense(self, values: Float[np.ndarray, "leading stored"]) -> Float[np.ndarray, "leading rows cols"]:
        """Returns dense matrices whose entries are stored column by column."""
        height, width = self.pattern.shape
        columns = np.zeros((len(values), width, height))
        columns[:, self.pattern.cols, self.pattern.rows] = values[:, self.entries]
        return columns.transpose(0, 2, 1)


def upper_triangle(pattern: Pattern) -> Submatrix:
    """Returns the entries on and above the diagonal."""
    return _submatrix(pattern, np.flatnonzero(pattern.rows <= pattern.cols), np.arange(pattern.shape[0]))


def select_rows(pattern: Pattern, rows: Int[np.ndarray, " k"]) -> Submatrix:
    """Returns the matrix made of some rows, in the order given."""
    position = np.full(pattern.shape[0], -1)
    position[rows] = np.arange(len(rows))
    return _submatrix(pattern, np.flatnonzero(position[pattern.rows] >= 0), position, len(rows))


def _submatrix(
    pattern: Pattern, entries: Int[np.ndarray, " nnz"], position: Int[np.ndarray, " rows"], height: int | None = None
) -> Submatrix:
    rows, cols = position[pattern.rows[entries]], pattern.cols[entries]
    order = np.lexsort((rows, cols))
    indptr = np.concatenate([[0], np.cumsum(np.bincount(cols, minlength=pattern.shape[1]))]).astype(np.int32)
    shape = (pattern.shape[0] if height is None else height, pattern.shape[1])
    return Submatrix(entries[order], Pattern(shape, rows[order].astype(np.int32), indptr))

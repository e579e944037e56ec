"""The items of a batch, one at a time, in the shapes that solvers take: rows, sparse submatrices, empty results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from weakref import WeakKeyDictionary

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from cvxlayers.patterns import Pattern
from cvxlayers.program import Solution, Status, Structure

# How many submatrices of a pattern are remembered.
_MANY = 32


def each(array: np.ndarray, batch: int) -> Iterable[np.ndarray]:
    """Returns array[0], array[1], ...: one per item; an array with a leading axis of one is shared by all."""
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
        matrix = sp.csc_matrix.__new__(sp.csc_matrix)
        matrix.__dict__.update(self._matrix.__dict__)
        for row in each(values.take(self.entries, axis=1), batch):
            matrix.data = row
            yield matrix

    def dense(self, values: Float[np.ndarray, "leading stored"]) -> Float[np.ndarray, "leading rows cols"]:
        """Returns dense matrices whose entries are stored column by column."""
        height, width = self.pattern.shape
        columns = np.zeros((len(values), width * height))
        columns[:, self.pattern.cols * height + self.pattern.rows] = np.take(values, self.entries, axis=1)
        return columns.reshape(len(values), width, height).transpose(0, 2, 1)

    @cached_property
    def _matrix(self) -> sp.csc_matrix:
        pattern = self.pattern
        return sp.csc_matrix((np.ones(pattern.nnz), pattern.indices, pattern.indptr), shape=pattern.shape)


_KNOWN: WeakKeyDictionary[Pattern, dict[bytes, Submatrix]] = WeakKeyDictionary()


def upper_triangle(pattern: Pattern) -> Submatrix:
    """Returns the entries on and above the diagonal, in their places."""
    return _known(pattern, b"upper", lambda: _upper(pattern))


def select_rows(pattern: Pattern, rows: Int[np.ndarray, " k"]) -> Submatrix:
    """Returns the matrix made of some rows, in the order given."""
    return _known(pattern, rows.tobytes(), lambda: _selected(pattern, rows))


def _known(pattern: Pattern, key: bytes, find: Callable[[], Submatrix]) -> Submatrix:
    """Returns a submatrix that may have been found before."""
    found = _KNOWN.setdefault(pattern, {})
    submatrix = found.get(key)
    if submatrix is None:
        if len(found) >= _MANY:
            found.clear()
        submatrix = found[key] = find()
    return submatrix


def _upper(pattern: Pattern) -> Submatrix:
    rows = np.arange(pattern.shape[0])
    return _submatrix(pattern, np.flatnonzero(pattern.rows <= pattern.cols), rows, len(rows))


def _selected(pattern: Pattern, rows: Int[np.ndarray, " k"]) -> Submatrix:
    position = np.full(pattern.shape[0], -1)
    position[rows] = np.arange(len(rows))
    return _submatrix(pattern, np.flatnonzero(position[pattern.rows] >= 0), position, len(rows))


def _submatrix(
    pattern: Pattern, entries: Int[np.ndarray, " nnz"], position: Int[np.ndarray, " rows"], height: int
) -> Submatrix:
    """Returns the entries moved to the rows `position`, in compressed-column order."""
    rows, cols = position[pattern.rows[entries]], pattern.cols[entries]
    order = np.lexsort((rows, cols))
    indptr = np.concatenate([[0], np.cumsum(np.bincount(cols, minlength=pattern.shape[1]))]).astype(np.int32)
    return Submatrix(entries[order], Pattern((height, pattern.shape[1]), rows[order].astype(np.int32), indptr))

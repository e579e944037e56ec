"""The matrix in compressed columns, for sparse factorisations."""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Int

from cvxlayers.batches import Values, Vectors
from cvxlayers.patterns import Pattern
from cvxlayers.program import Structure

Index = Int[np.ndarray, " _count"]

_columns: WeakKeyDictionary[Structure, Columns] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Columns:
    """The compressed columns of the matrices, of a whole matrix and of its upper triangle.

    Attributes:
        pattern: the stored entries, all of the diagonal among them.
        gather: for each of them its place in the stacked values [P, A, C, 0].
        upper: which of them stand in the upper triangle.
        triangle: their pattern.
        diagonal: the places of the diagonal in the upper triangle.
        in_P: which of the stored entries belong to P.
        in_A: which belong to A, below the diagonal.
    """

    pattern: Pattern
    gather: Index
    upper: Index
    triangle: Pattern
    diagonal: Index
    in_P: Index
    in_A: Index

    def assemble(self, P: Values, A: Values, C: Vectors) -> Values:
        """Returns the stored entries of the matrices; the arguments are those of `Band.assemble`."""
        (batch,) = np.broadcast_shapes(P.shape[:1], A.shape[:1], C.shape[:1])
        parts = (np.broadcast_to(part, (batch, part.shape[1])) for part in (P, A, C, np.zeros((1, 1))))
        return np.take(np.concatenate(list(parts), axis=1), self.gather, axis=1)


def columns_of(structure: Structure) -> Columns:
    """Returns how the matrices of a structure lie in compressed columns."""
    if structure not in _columns:
        _columns[structure] = find_columns(structure.P, structure.A)
    return _columns[structure]


def find_columns(P: Pattern, A: Pattern) -> Columns:
    """Returns how matrices with these patterns of P and A lie in compressed columns."""
    n, (m, _) = P.shape[1], A.shape
    bare = np.setdiff1d(np.arange(n), P.rows[P.rows == P.cols])
    rows = np.concatenate([P.rows, n + A.rows, A.cols, n + np.arange(m), bare])
    cols = np.concatenate([P.cols, A.cols, n + A.rows, n + np.arange(m), bare])
    sources = np.concatenate([np.arange(P.nnz), *2 * [P.nnz + np.arange(A.nnz)], P.nnz + A.nnz + np.arange(m)])
    sources = np.concatenate([sources, np.full(len(bare), P.nnz + A.nnz + m)])
    order = np.lexsort((rows, cols))
    pattern = _pattern(rows[order], cols[order], n + m)
    upper = np.flatnonzero(pattern.rows <= pattern.cols)
    triangle = _pattern(pattern.rows[upper], pattern.cols[upper], n + m)
    left = pattern.cols < n
    in_P, in_A = np.flatnonzero(left & (pattern.rows < n)), np.flatnonzero(left & (pattern.rows >= n))
    return Columns(pattern, sources[order], upper, triangle, np.flatnonzero(triangle.rows == triangle.cols), in_P, in_A)


def _pattern(rows: Index, cols: Index, size: int) -> Pattern:
    """Returns the pattern of entries that are sorted by columns; small integers spare scipy a conversion."""
    counts = np.bincount(cols, minlength=size)
    return Pattern((size, size), rows.astype(np.int32), np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))

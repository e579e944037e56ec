"""The matrix with A turned by an orthogonal matrix within each curved cone."""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np

from cvxlayers.batches import Values
from cvxlayers.kkt.columns import Columns, Index, find_columns
from cvxlayers.patterns import Pattern
from cvxlayers.program import Structure

_turns: WeakKeyDictionary[Structure, Turn] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Turn:
    """How UᵀA is computed entry by entry, for a sparse orthogonal U with one pattern.

    Attributes:
        rows: of the stored entries of U.
        cols: likewise.
        pattern: the stored entries of UᵀA.
        columns: how matrices with UᵀA in place of A lie in compressed columns.
        factors: for each product u a that is summed, the stored entries of U and of A.
        starts: where the sum of each stored entry of UᵀA begins.
    """

    rows: Index
    cols: Index
    pattern: Pattern
    columns: Columns
    factors: tuple[Index, Index]
    starts: Index

    def apply(self, U: Values, A: Values) -> Values:
        """Returns the stored entries of UᵀA, of batches or of what all items share."""
        if not len(self.starts):
            return np.zeros((len(A), 0))
        terms = U.take(self.factors[0], axis=1) * A.take(self.factors[1], axis=1)
        return np.add.reduceat(terms, self.starts, axis=1)


def turn_of(structure: Structure, rows: Index, cols: Index) -> Turn:
    """Returns how UᵀA is computed for a structure and the stored entries of U."""
    known = _turns.get(structure)
    if known is None or not (np.array_equal(known.rows, rows) and np.array_equal(known.cols, cols)):
        known = _turns[structure] = _find_turn(structure, rows, cols)
    return known


def _find_turn(structure: Structure, rows: Index, cols: Index) -> Turn:
    A, m = structure.A, structure.m
    # Pairs of an entry (i, j) of U and an entry (i, c) of A: one product for each entry (j, c) of UᵀA.
    by_row = np.argsort(A.rows, kind="stable")
    counts = np.bincount(A.rows, minlength=m)
    first = np.cumsum(counts) - counts
    repeats = counts[rows]
    of_U = np.repeat(np.arange(len(rows)), repeats)
    within = np.arange(len(of_U)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    of_A = by_row[first[rows[of_U]] + within]
    places = A.cols[of_A] * m + cols[of_U]
    order = np.argsort(places, kind="stable")
    distinct, starts = np.unique(places[order], return_index=True)
    counts = np.bincount(distinct // m, minlength=structure.n)
    pattern = Pattern(A.shape, distinct % m, np.concatenate([[0], np.cumsum(counts)]))
    return Turn(rows, cols, pattern, find_columns(structure.P, pattern), (of_U[order], of_A[order]), starts)

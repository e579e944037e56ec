"""What is eliminated: where named expressions, fixed variables and copies stand among the data of a program."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from cvxlayers.batches import Run, Values, Vectors, run
from cvxlayers.linear_map import LinearMap

Index = Int[np.ndarray, " _count"]
Stacked = Float[np.ndarray, "#batch _g _width"]
_NEXT = (1, 0), (0, 1)


@dataclass(frozen=True, eq=False)
class Stack:
    """Groups of equalities, g of one shape: in each, k rows name k columns as affine expressions of p variables.

    The rows of a group share their variables, its support; the supports of a stack's groups are disjoint.

    Attributes:
        rows: the equalities.
        columns: the variable that each names.
        support: the variables in the expressions.
        entries: positions in A's stored entries of the coefficients.
        pivots: positions in A's stored entries of the constants a.
        squares: positions in P's stored entries of the numbers d; −1 stands for zero.
    """

    rows: Int[np.ndarray, "_g _k"]
    columns: Int[np.ndarray, "_g _k"]
    support: Int[np.ndarray, "_g _p"]
    entries: Int[np.ndarray, "_g _k _p"]
    pivots: Int[np.ndarray, "_g _k"]
    squares: Int[np.ndarray, "_g _k"]

    @cached_property
    def squared(self) -> bool:
        """Whether any of the variables is squared in the objective."""
        return bool((self.squares >= 0).any())

    @cached_property
    def _strides(self) -> tuple[int, int, int] | None:
        """Where the entries begin, and how far apart rows and columns lie; None unless columns lie without gaps.

        With gaps, a product of the view would be computed, and rounded, in another way than that of a copy.
        """
        groups, k, p = self.entries.shape
        if groups != 1 or k < 2 or p < 2:
            return None
        start, down, across = self.entries[0, 0, 0], *(self.entries[0, i, j] - self.entries[0, 0, 0] for i, j in _NEXT)
        grid = start + down * np.arange(k)[:, None] + across * np.arange(p)
        return (int(start), int(down), int(across)) if down == 1 and np.array_equal(grid, self.entries[0]) else None

    def coefficients(self, values: Values) -> Float[np.ndarray, "#batch _g _k _p"]:
        """Returns the coefficients out of A's stored entries: not to be written to, for they may lie where A does."""
        if self._strides is None:
            return values.take(self.entries, axis=1)
        start, down, across = self._strides
        values = np.ascontiguousarray(values)
        item, entry = values.strides
        strides = item, item, down * entry, across * entry
        shape = (len(values), *self.entries.shape)
        return np.lib.stride_tricks.as_strided(values[:, start:], shape, strides, writeable=False)


@dataclass(frozen=True, eq=False)
class Fixed:
    """The variables `columns` that the equalities `rows` fix, by their entries `pivots` in A's stored entries."""

    rows: Index
    columns: Index
    pivots: Index


@dataclass(frozen=True, eq=False)
class Copies:
    """The variables `columns` that are others, up to constants, by the equalities `rows`: t = c + f x, or t = c.

    Attributes:
        rows: the equalities.
        columns: the variables t.
        pivots: positions in A's stored entries of t's coefficients.
        scaled: all variables → f x, with constants f.
    """

    rows: Index
    columns: Index
    pivots: Index
    scaled: LinearMap

    @cached_property
    def runs(self) -> tuple[Run, Run, Run]:
        """The rows, columns and pivots, as slices where they are."""
        return run(self.rows), run(self.columns), run(self.pivots)

    def constants(self, sides: Vectors, A: Values) -> Vectors:
        """Returns the c of right-hand sides."""
        rows, _, pivots = self.runs
        return sides[:, rows] / A[:, pivots]

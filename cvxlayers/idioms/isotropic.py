"""Programs that project on cones, or on a ball: costs ½ Σ pᵢ xᵢ² + qᵢ xᵢ, and each of these x in one row of its own.

In terms of s = b − Ax on these rows they minimise ½ ρ ‖s − s₀‖² wherever ρ = p/a² has one value in each curved cone.
They are all rows there are, or those behind the first one of a second-order cone: that is the radius of a ball, a
constant, or it has a variable t, without cost, that one inequality bounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Bool, Float

from cvxlayers.batches import Run, Vectors, run
from cvxlayers.program import ConeProgram, Structure

Sizes = Float[np.ndarray, " _leading"]

# How far the ρ of one cone may differ, relatively: they are products of roots of two.
_EQUAL = 1e-14


@dataclass(frozen=True, eq=False)
class Bound:
    """The column of t, and where its coefficients in the inequality and in the cone stand in A's stored entries."""

    column: int
    inequality: int
    head: int


@dataclass(frozen=True, eq=False)
class Isotropic:
    """Which variable each row has.

    Attributes:
        rows: the rows whose variables have costs: all of them, or those behind the first of a second-order cone.
        columns: these variables.
        entries: the positions of their coefficients in A's stored entries.
        squares: the positions of their costs in P's.
        curved: the rows of each curved cone, counted from the first of `rows`.
        bound: the variable of the row before them, where it has one.
    """

    rows: slice
    columns: Run
    entries: Run
    squares: Run
    curved: tuple[slice, ...]
    bound: Bound | None = None

    @property
    def is_ball(self) -> bool:
        """Whether it is a ball that is projected on."""
        return self.rows.start > 0

    @property
    def top(self) -> int:
        """The first row of the second-order cone of a ball."""
        return self.rows.start - 1

    def coefficients(self, program: ConeProgram) -> tuple[Vectors, Vectors]:
        """Returns the coefficient a of each row, and ρ."""
        a = program.A[:, self.entries]
        return a, program.P[:, self.squares] / a**2

    def holds(self, rho: Float[np.ndarray, "leading _size"]) -> Bool[np.ndarray, " leading"]:
        """Returns for which items ρ is positive, and has one value in each curved cone."""
        found = (rho.min(axis=1) > 0) & (rho.max(axis=1) < np.inf)
        for rows in self.curved:
            part = rho[:, rows]
            found &= part.max(axis=1) - part.min(axis=1) <= _EQUAL * part[:, 0]
        return np.asarray(found)

    def bounds(self, program: ConeProgram) -> tuple[Sizes, Sizes]:
        """Returns the coefficients of t in the inequality and in the cone; one and zero where there is none."""
        if self.bound is None:
            return np.ones(1), np.zeros(1)
        return program.A[:, self.bound.inequality], program.A[:, self.bound.head]


_KNOWN: WeakKeyDictionary[Structure, Isotropic | None] = WeakKeyDictionary()


def find_isotropic(structure: Structure) -> Isotropic | None:
    """Returns which variable each row has; None where the structure is another, or has linear rows alone."""
    if structure not in _KNOWN:
        _KNOWN[structure] = _find(structure)
    return _KNOWN[structure]


def require_isotropic(structure: Structure) -> Isotropic:
    """Returns which variable each row has.

    Raises:
        ValueError: if the structure is another.
    """
    found = find_isotropic(structure)
    if found is None:
        raise ValueError("the program is no projection on a cone or a ball")
    return found


def _find(structure: Structure) -> Isotropic | None:
    P, A, m, cone = structure.P, structure.A, structure.m, structure.cone
    with_cost = np.isin(A.cols, P.cols)
    entries = np.flatnonzero(with_cost)
    entries = entries[np.argsort(A.rows[entries])]
    columns, rows = A.cols[entries], slice(m - P.nnz, m)
    alone = np.array_equal(P.rows, P.cols) and np.array_equal(np.sort(columns), P.cols)
    if not alone or cone.polyhedral or not np.array_equal(A.rows[entries], np.arange(m)[rows]):
        return None
    found = run(columns), run(entries), run(np.searchsorted(P.cols, columns))
    if rows.start == 0 and structure.n == m:
        linear = cone.zero + cone.nonnegative
        curved = tuple(block for _, block in cone.blocks() if block.start >= linear)
        return Isotropic(rows, *found, curved)
    bounds, size, rest = cone.nonnegative, P.nnz, np.flatnonzero(~with_cost)
    one = not (cone.zero or cone.semidefinite or cone.exponential or cone.power) and cone.second_order == (size + 1,)
    fits = one and size > 0 and bounds <= 1 and structure.n == size + bounds
    if not fits or A.rows[rest].tolist() != [0, 1][: 2 * bounds]:
        return None
    bound = Bound(int(A.cols[rest[0]]), int(rest[0]), int(rest[1])) if bounds else None
    return Isotropic(rows, *found, (slice(0, size),), bound)

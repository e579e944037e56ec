"""Programs that project on a ball: costs ½ Σ pᵢ xᵢ² + qᵢ xᵢ over one second-order cone with a bounded first row.

Each x has a row of the cone of its own. The first row is a constant, or it has a variable t, without cost, that one
inequality bounds. In terms of s = b − Ax they minimise ½ ρ ‖s − s₀‖² over ‖s‖ ≤ R wherever ρ = p/a² has one value.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Bool, Float, Int

from cvxlayers.program import ConeProgram, Structure, Vectors

# How far the ρ of the rows may differ, relatively: they are products of roots of two.
_EQUAL = 1e-14

Sizes = Float[np.ndarray, " _leading"]


@dataclass(frozen=True, eq=False)
class Bound:
    """The column of t, and where its coefficients in the inequality and in the cone stand in A's stored entries."""

    column: int
    inequality: int
    head: int


@dataclass(frozen=True, eq=False)
class Ball:
    """Which variable each row has, but for the first of the cone.

    Attributes:
        first: the first row of the cone.
        columns: the variables of the rows after it.
        entries: the positions of their coefficients in A's stored entries.
        bound: the variable of the first row, where it has one.
    """

    first: int
    columns: Int[np.ndarray, " _size"]
    entries: Int[np.ndarray, " _size"]
    bound: Bound | None

    @property
    def tail(self) -> slice:
        """The rows of the cone but for the first."""
        return slice(self.first + 1, self.first + 1 + len(self.columns))

    def coefficients(self, program: ConeProgram) -> tuple[Vectors, Sizes, Bool[np.ndarray, " _leading"]]:
        """Returns the coefficient a of each row, ρ, and for which items it is positive, and has one value."""
        a, P = program.A[:, self.entries], program.P
        rho = P[:, np.argsort(np.argsort(self.columns))] / a**2
        sound = np.isfinite(rho).all(axis=1) & (rho > 0).all(axis=1)
        return a, rho[:, 0], np.asarray(sound & (np.ptp(rho, axis=1) <= _EQUAL * rho[:, 0]))

    def bounds(self, program: ConeProgram) -> tuple[Sizes, Sizes]:
        """Returns the coefficients of t in the inequality and in the cone; one and zero where there is none."""
        if self.bound is None:
            return np.ones(1), np.zeros(1)
        return program.A[:, self.bound.inequality], program.A[:, self.bound.head]


_KNOWN: WeakKeyDictionary[Structure, Ball | None] = WeakKeyDictionary()


def find_ball(structure: Structure) -> Ball | None:
    """Returns which variable each row has; None where the structure is another."""
    if structure not in _KNOWN:
        _KNOWN[structure] = _find(structure)
    return _KNOWN[structure]


def require_ball(structure: Structure) -> Ball:
    """Returns which variable each row has.

    Raises:
        ValueError: if the structure is another.
    """
    found = find_ball(structure)
    if found is None:
        raise ValueError("the program is no projection on a ball")
    return found


def _find(structure: Structure) -> Ball | None:
    P, A, cone, first = structure.P, structure.A, structure.cone, structure.cone.nonnegative
    others = cone.zero or cone.semidefinite or cone.exponential or cone.power
    if others or len(cone.second_order) != 1 or cone.second_order[0] < 2 or first > 1:
        return None
    size = cone.second_order[0] - 1
    alone = np.array_equal(P.rows, P.cols) and P.nnz == size
    if not alone or structure.n != size + first or A.nnz != size + 2 * first:
        return None
    entries = np.flatnonzero(A.rows > first)
    columns = A.cols[entries]
    if not np.array_equal(np.sort(columns), P.cols) or not np.array_equal(
        np.sort(A.rows[entries]), np.arange(size) + first + 1
    ):
        return None
    bound = None
    if first:
        inequality, head = (np.flatnonzero(A.rows == row) for row in (0, first))
        if len(inequality) != 1 or len(head) != 1 or A.cols[inequality[0]] != A.cols[head[0]]:
            return None
        bound = Bound(int(A.cols[head[0]]), int(inequality[0]), int(head[0]))
    order = np.argsort(A.rows[entries])
    return Ball(first, columns[order], entries[order], bound)

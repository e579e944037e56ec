"""Programs over the coordinates of cones: each variable in one conic row of its own, few rows beside.

So are semidefinite programs in standard form, where X ⪰ 0 is the variable. With w = A x on the conic rows, the cost is
½ Σ ρ w² + …, with one ρ in each cone, and what else constrains w are the equalities and the conic rows without a
variable, whose w is zero: G w = g with few rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Bool, Float, Int

from cvxlayers.batches import Vectors
from cvxlayers.cones import Basis
from cvxlayers.cones.basis import rows_of
from cvxlayers.program import ConeProgram, Structure

Index = Int[np.ndarray, " _count"]

# How far the ρ of one cone may differ, relatively: they are products of roots of two.
_EQUAL = 1e-14
# G has at most this share of the conic rows.
_FEW = 0.4


@dataclass(frozen=True, eq=False)
class Coordinates:
    """Where the variables stand.

    Attributes:
        zero: the number of equalities.
        rows: for each variable its conic row, counted behind the equalities.
        entries: positions in A's stored entries of the coefficients there.
        squares: positions in P's stored entries of the diagonal; −1 stands for zero.
        bare: conic rows without a variable.
        sides: positions in A's stored entries of the equalities.
        side_rows: their rows.
        side_variables: their variables.
        curved: the rows of each curved cone.
    """

    zero: int
    rows: Index
    entries: Index
    squares: Index
    bare: Index
    sides: Index
    side_rows: Index
    side_variables: Index
    curved: tuple[slice, ...]

    @property
    def few(self) -> int:
        """The number of rows of G."""
        return self.zero + len(self.bare)

    def coefficients(self, program: ConeProgram) -> Vectors:
        """Returns the coefficient a of each variable in its conic row."""
        return program.A[:, self.entries]

    def curvature(self, program: ConeProgram, a: Vectors) -> tuple[Vectors, Bool[np.ndarray, " leading"]]:
        """Returns ρ for each conic row, and for which items it has one value in each curved cone and is not negative.

        Rows without a variable take that of their cone.
        """
        m = program.structure.m - self.zero
        P = np.where(self.squares >= 0, program.P[:, self.squares], 0.0) if program.P.shape[1] else np.zeros((1, 1))
        own = np.broadcast_to(P / a**2, (max(len(P), len(a)), a.shape[1]))
        rho, holds = np.zeros((len(own), m)), np.all(np.isfinite(own) & (own >= 0), axis=1)
        rho[:, self.rows] = own
        full = np.ones(m, dtype=bool)
        full[self.bare] = False
        for rows in self.curved:
            known = rho[:, rows][:, full[rows]]
            most = known.max(axis=1, initial=0.0)
            holds &= most - known.min(axis=1, initial=np.inf) <= _EQUAL * most
            rho[:, rows] = most[:, None]
        return rho, holds

    def equalities(self, program: ConeProgram, a: Vectors) -> Float[np.ndarray, "leading zero m"]:
        """Returns those rows of G that are no units."""
        G = np.zeros((max(len(program.A), len(a)), self.zero, program.structure.m - self.zero))
        G[:, self.side_rows, self.rows[self.side_variables]] = program.A[:, self.sides] / a[:, self.side_variables]
        return G


def turn(
    equalities: Float[np.ndarray, "leading zero m"], units: Index, basis: Basis, batch: int
) -> Float[np.ndarray, "batch few m"]:
    """Returns G U for an eigenbasis U, where the rows of G are the equalities, and unit vectors at some places."""
    zero, m = equalities.shape[1:]
    own = rows_of(basis, units, m, batch)
    if not zero:
        return np.ascontiguousarray(own)
    columns = np.broadcast_to(equalities.swapaxes(1, 2), (batch, m, zero))
    return np.concatenate([basis.rotate(columns).swapaxes(1, 2), own], axis=1)


_KNOWN: WeakKeyDictionary[Structure, Coordinates | None] = WeakKeyDictionary()


def find_coordinates(structure: Structure) -> Coordinates | None:
    """Returns where the variables stand; None where the program has another form, or no curved cone."""
    if structure not in _KNOWN:
        _KNOWN[structure] = _find(structure)
    return _KNOWN[structure]


def require_coordinates(structure: Structure) -> Coordinates:
    """Returns where the variables stand.

    Raises:
        ValueError: if the program has another form.
    """
    found = find_coordinates(structure)
    if found is None:
        raise ValueError("the variables of the program are no coordinates of cones")
    return found


def _find(structure: Structure) -> Coordinates | None:
    P, A, n, cone = structure.P, structure.A, structure.n, structure.cone
    conic = np.flatnonzero(A.rows >= cone.zero)
    rows = A.rows[conic] - cone.zero
    alone = len(conic) == n and np.array_equal(A.cols[conic], np.arange(n)) and len(np.unique(rows)) == n
    if not alone or cone.polyhedral or not np.array_equal(P.rows, P.cols):
        return None
    m, sides = structure.m - cone.zero, np.flatnonzero(A.rows < cone.zero)
    bare = np.setdiff1d(np.arange(m), rows)
    if cone.zero + len(bare) > _FEW * m:
        return None
    squares = np.full(n, -1)
    squares[P.rows] = np.arange(P.nnz)
    curved = [block for _, block in cone.blocks() if block.start >= cone.zero + cone.nonnegative]
    shifted = tuple(slice(block.start - cone.zero, block.stop - cone.zero) for block in curved)
    return Coordinates(cone.zero, rows, conic, squares, bare, sides, A.rows[sides], A.cols[sides], shifted)

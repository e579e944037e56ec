"""Programs that project on a cone: each variable in one row, each row with one variable, and costs ½ Σ pᵢ xᵢ² + qᵢ xᵢ.

In terms of s = b − Ax they minimise ½ ρ ‖s − s₀‖² over K wherever ρ = p/a² has one value in each curved cone.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Bool, Float, Int

from cvxlayers.program import ConeProgram, Structure, Vectors

# How far the ρ of one cone may differ, relatively: they are products of roots of two.
_EQUAL = 1e-14


@dataclass(frozen=True, eq=False)
class Isotropic:
    """Which variable each row has."""

    columns: Int[np.ndarray, " m"]
    curved: tuple[slice, ...]

    def coefficients(self, program: ConeProgram) -> tuple[Vectors, Vectors]:
        """Returns the coefficient a of each row, and ρ."""
        a = program.A[:, self.columns]
        return a, program.P[:, self.columns] / a**2

    def holds(self, rho: Float[np.ndarray, "leading m"]) -> Bool[np.ndarray, " leading"]:
        """Returns for which items ρ is positive, and has one value in each curved cone."""
        found = np.all(np.isfinite(rho) & (rho > 0), axis=1)
        for rows in self.curved:
            found &= np.ptp(rho[:, rows], axis=1) <= _EQUAL * np.abs(rho[:, rows.start])
        return np.asarray(found)


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
        raise ValueError("the program is no projection on a cone")
    return found


def _find(structure: Structure) -> Isotropic | None:
    P, A, n, cone = structure.P, structure.A, structure.n, structure.cone
    everything = np.arange(n)
    alone = n == structure.m and np.array_equal(A.cols, everything) and np.array_equal(np.sort(A.rows), everything)
    if not alone or cone.polyhedral or not (np.array_equal(P.rows, everything) and np.array_equal(P.cols, everything)):
        return None
    linear = cone.zero + cone.nonnegative
    return Isotropic(np.argsort(A.rows), tuple(rows for _, rows in cone.blocks() if rows.start >= linear))

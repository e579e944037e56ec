"""Natural units of a program's variables: those in which the rows and columns of its matrices have one size.

The rows of the symmetric matrix [[P, Aᵀ], [A, 0]] are brought to one size, again and again, by the square roots of
their sums. What users choose as the unit of a variable, or of a constraint, is without influence on the result.

References: Knight, Ruiz, Uçar, "A symmetry preserving algorithm for matrix scaling" (2014).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool

from cvxlayers.batches import Vectors
from cvxlayers.program import ConeProgram, Structure

_ROUNDS = 20
# Rows of A with entries below this part of the others' are mere rounding.
_DUST = 1e-9


def column_units(program: ConeProgram) -> Vectors:
    """Returns the natural unit of each variable, up to a factor that all variables of an item share."""
    structure, (P, A) = program.structure, (np.abs(program.P), np.abs(program.A))
    ones = np.ones((max(len(P), len(A)), structure.n))
    with np.errstate(all="ignore"):
        sizes = structure.P.matvec(P, ones) + structure.A.rmatvec(A, np.ones((len(ones), structure.m)))
        units = _or_one(1.0 / sizes)
        heights, dust = heights_of(program, units)
        rows = np.where(dust, 0.0, _or_one(1.0 / np.sqrt(heights)))
        for _ in range(_ROUNDS):
            sizes = structure.P.matvec(P, units) + structure.A.rmatvec(A, rows)
            reach = _blockwise(structure, structure.A.matvec(A, units))
            units, rows = units * _or_one(1.0 / np.sqrt(units * sizes)), rows * _or_one(1.0 / np.sqrt(rows * reach))
    return units


def heights_of(program: ConeProgram, units: Vectors) -> tuple[Vectors, Bool[np.ndarray, "#batch _m"]]:
    """Returns the size of each row of A, for variables in some units, and which rows are mere rounding.

    The rows of a curved cone have one size, since the cone couples them. Rounding counts as larger than it is, so that
    it passes for the zeros that it should be.
    """
    heights = _blockwise(program.structure, program.structure.A.matvec(np.abs(program.A), units))
    floor = _DUST * np.max(heights, axis=1, initial=0.0, keepdims=True)
    return np.maximum(heights, floor), heights < floor


def _blockwise(structure: Structure, heights: Vectors) -> Vectors:
    """Returns the heights, with that of the highest row for all rows of a curved cone."""
    linear = structure.cone.zero + structure.cone.nonnegative
    for _, rows in structure.cone.blocks():
        if rows.start >= linear:
            heights[:, rows] = np.max(heights[:, rows], axis=1, keepdims=True)
    return heights


def _or_one(factors: Vectors) -> Vectors:
    return np.where(np.isfinite(factors) & (factors > 0), factors, 1.0)

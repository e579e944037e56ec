"""Quadratic programs with a diagonal P without their variables: what P and A leave of the active rows.

Where the rows count by r = √d, with B = diag(r) A over those with d > 0,

    S = B P⁻¹ Bᵀ + diag(1 − d),    diag(scale) S diag(scale) = RᵀR of unit diagonal,

is of the order of the active rows: dense, positive definite, and far smaller than the systems it stands for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import lapack

from cvxlayers.batches import Values, Vectors
from cvxlayers.patterns import Pattern

Vector = Float[np.ndarray, " _size"]
Whole = Float[np.ndarray, "m m"]


@dataclass(frozen=True, eq=False)
class Complement:
    """What is left of one program.

    Attributes:
        d: how much each row counts.
        rows: those that do.
        scale: what makes the diagonal of S one.
        upper: R; the unit matrix where S is not positive definite.
        norm: of RᵀR, the largest sum of sizes in a row; infinite where S is not positive definite.
    """

    d: Float[np.ndarray, " m"]
    rows: Int[np.ndarray, " _active"]
    scale: Float[np.ndarray, " _active"]
    upper: Float[np.ndarray, "_active _active"]
    norm: float

    @cached_property
    def condition(self) -> float:
        """The condition number of RᵀR."""
        if not len(self.rows):
            return 1.0
        reciprocal = float(lapack.dpocon(self.upper, self.norm)[0]) if self.norm < np.inf else 0.0
        return 1.0 / reciprocal if reciprocal > 0 else np.inf

    def solve(self, rhs: Float[np.ndarray, " _active"]) -> Float[np.ndarray, " _active"]:
        """Returns S⁻¹ rhs."""
        if not len(rhs):
            return rhs  # LAPACK refuses what is empty
        return self.scale * lapack.dpotrs(self.upper, self.scale * rhs)[0]


def unit_scale(A: Pattern, values: Values, weights: Vectors, d: Vectors) -> Vectors:
    """Returns what makes the diagonal of S one, row by row of each item; one where that is zero."""
    sizes = d * A.matvec(values * values, weights) + (1.0 - d)
    return 1.0 / np.sqrt(np.where(sizes > 0, sizes, 1.0))


def find_complement(A: Pattern, values: Vector, weights: Vector, d: Vector, whole: Whole | None = None) -> Complement:
    """Factorises the complement of a program with these stored entries of A, and P⁻¹ as weights.

    Args:
        A: the pattern of A.
        values: its stored entries.
        weights: P⁻¹.
        d: how much each row counts.
        whole: S of all rows, of unit diagonal, if it is known; it serves where rows count by one.
    """
    scale, rows = unit_scale(A, values[None], weights[None], d[None])[0], d.nonzero()[0]
    if whole is not None and (d[rows] == 1.0).all():
        # Two `take` are faster than one index of both axes.
        S = whole.take(rows, axis=0).take(rows, axis=1)
    else:
        S = A.gram(values * (scale * np.sqrt(d)).take(A.rows), weights, d > 0)
    scale, diagonal = scale[rows], np.arange(len(rows))
    S[diagonal, diagonal] += scale * scale * (1.0 - d[rows])
    try:
        # numpy's lets other threads run meanwhile.
        upper = np.linalg.cholesky(S).T
    except np.linalg.LinAlgError:
        return Complement(d, rows, scale, np.eye(len(rows)), np.inf)
    norm = float(np.max(np.sum(np.abs(S, out=S), axis=0), initial=0.0))
    return Complement(d, rows, scale, upper, norm)


def find_whole(A: Pattern, values: Vector, weights: Vector) -> Whole:
    """Returns S of all rows, each of which counts by one, of unit diagonal."""
    scale = unit_scale(A, values[None], weights[None], np.ones((1, A.shape[0])))[0]
    return A.gram(values * scale.take(A.rows), weights)

"""Factorisations of systems with a diagonal P, by the Schur complement of the active rows.

With a diagonal P > 0 and B = diag(r)A, the system K [x; z] = [f; g] is

    x = P⁻¹(f − Bᵀz),    S z = B P⁻¹f − g,    S = B P⁻¹ Bᵀ + diag(1 − d),

where rows with d = 0 are those of the unit matrix, so that S is of the order of the active rows: dense, positive
definite, and far smaller than K, whose sparse factors would fill in.

Items of which S is singular to working precision are left to a factorisation of the whole matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import lapack

from cvxlayers.batches import Vectors
from cvxlayers.derivative.structured import StructuredFactorisation
from cvxlayers.derivative.system import Factorise, Rank, System
from cvxlayers.parallel import chunks, map_chunks

# A condition number above this is for methods that pivot.
_DOUBTFUL = 1e9


@dataclass(frozen=True, eq=False)
class _Factor:
    """The factor R of S = diag(1/scale) RᵀR diag(1/scale) over the active rows, and the condition number of RᵀR."""

    rows: Int[np.ndarray, " _active"]
    scale: Float[np.ndarray, " _active"]
    upper: Float[np.ndarray, "_active _active"]
    condition: float

    def solve(self, rhs: Float[np.ndarray, " _active"]) -> Float[np.ndarray, " _active"]:
        """Returns S⁻¹ rhs."""
        if not len(rhs):
            return rhs  # LAPACK refuses what is empty
        return self.scale * lapack.dpotrs(self.upper, self.scale * rhs)[0]


@dataclass(frozen=True, eq=False)
class _Complement:
    """The systems of a batch: P⁻¹ as `weights`, and the factors of S."""

    system: System
    weights: Vectors
    factors: Sequence[_Factor]

    def solve(self, first: Vectors, second: Vectors) -> tuple[Vectors, Vectors]:
        """Solves K u = [first; second] for each item, once."""
        system, A, values = self.system, self.system.program.structure.A, self.system.program.A
        z = system.to_eigen(A.matvec(values, self.weights * first)) - second
        for row, factor in zip(z, self.factors, strict=True):
            row[factor.rows] = factor.solve(row[factor.rows])
        return self.weights * (first - A.rmatvec(values, system.from_eigen(z))), z


def factorise_schur(system: System, threads: int, factorise: Factorise) -> StructuredFactorisation:
    """Factorises a batch of systems of polyhedral programs with diagonal P.

    Args:
        system: the systems.
        threads: threads over the items.
        factorise: how systems are factorised whose P is not positive, or whose active rows depend on one another.
    """
    P, (first, place) = system.program.P, system.distinct
    weights = 1.0 / np.where(P > 0, P, 1.0)
    positive = np.broadcast_to((P > 0).all(axis=1), place.shape)

    def factorise_piece(piece: slice) -> list[_Factor]:
        return [_factorise(system, weights, item) for item in first[piece].tolist()]

    parts = map_chunks(factorise_piece, chunks(len(first), threads), threads)
    distinct = [factor for part in parts for factor in part]
    factors = [distinct[k] for k in place.tolist()]
    condition = np.where(positive, [factor.condition for factor in factors], np.inf)
    ranks = Rank.regular(condition, system.program.structure.n)
    inverse = _Complement(system, weights, factors).solve
    return StructuredFactorisation.of(system, inverse, ranks, condition <= _DOUBTFUL, factorise)


def _factorise(system: System, weights: Vectors, item: int) -> _Factor:
    """Factorises S of one item, with a unit diagonal; the factor of a singular one stays the unit matrix."""
    program = system.program
    d, root = system.derivative.eigenvalues[item], system.root[item]
    rows = np.flatnonzero(d > 0)
    S = program.structure.A.gram(program.A[item % len(program.A)], weights[item % len(weights)], d > 0)
    diagonal, soft, root = np.arange(len(rows)), 1.0 - d[rows], root[rows]
    size = root * root * S[diagonal, diagonal] + soft
    scale = 1.0 / np.sqrt(np.where(size > 0, size, 1.0))
    S *= (scale * root)[:, None] * (scale * root)
    S[diagonal, diagonal] += scale * scale * soft
    if not len(rows):
        return _Factor(rows, scale, S, 1.0)
    try:
        # numpy's lets other threads run meanwhile.
        upper = np.linalg.cholesky(S).T
    except np.linalg.LinAlgError:
        return _Factor(rows, scale, np.eye(len(rows)), np.inf)
    size = float(np.max(np.sum(np.abs(S), axis=0)))
    reciprocal = float(lapack.dpocon(upper, size)[0])
    return _Factor(rows, scale, upper, 1.0 / reciprocal if reciprocal > 0 else np.inf)

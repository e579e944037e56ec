"""Factorisations of systems with a diagonal P, by the Schur complement of the active rows.

With a diagonal P > 0 and B = diag(r)A, the system K [x; z] = [f; g] is

    x = P⁻¹(f − Bᵀz),    S z = B P⁻¹f − g,    S = B P⁻¹ Bᵀ + diag(1 − d),

where rows with d = 0 are those of the unit matrix. `cvxlayers.complement` has S of the others, which belongs to the
programs, and may have served their solver; the sparse factors of K would fill in.

Items of which S is singular to working precision are left to a factorisation of the whole matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cvxlayers.batches import Vectors
from cvxlayers.complement import Complement
from cvxlayers.derivative.structured import StructuredFactorisation
from cvxlayers.derivative.system import Factorise, Rank, System
from cvxlayers.parallel import chunks, map_chunks

# A condition number above this is for methods that pivot.
_DOUBTFUL = 1e9


@dataclass(frozen=True, eq=False)
class _Inverse:
    """The systems of a batch: P⁻¹ as `weights`, and the factors of S."""

    system: System
    weights: Vectors
    factors: Sequence[Complement]

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
    program, d, (first, place) = system.program, system.derivative.eigenvalues, system.distinct
    positive = np.broadcast_to((program.P > 0).all(axis=1), place.shape)

    def factorise_piece(piece: slice) -> list[Complement]:
        return [program.complement(item, d[item]) for item in first[piece].tolist()]

    parts = map_chunks(factorise_piece, chunks(len(first), threads), threads)
    distinct = [factor for part in parts for factor in part]
    factors = [distinct[k] for k in place.tolist()]
    condition = np.where(positive, [factor.condition for factor in factors], np.inf)
    ranks = Rank.regular(condition, program.structure.n)
    inverse = _Inverse(system, program.weights, factors).solve
    return StructuredFactorisation.of(system, inverse, ranks, condition <= _DOUBTFUL, factorise)

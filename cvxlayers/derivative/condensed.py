"""Factorisations condensed to x and the directions that are nearly fixed.

A direction with d ≤ ½ is eliminated without loss of accuracy, z = (r ã x − g) / (1 − d), which adds d / (1 − d) ã ãᵀ
to P with a factor of one at most. What is left is

    [[P + Ãᵀ diag(d / (1 − d)) Ã, Ã₁ᵀ r₁], [r₁ Ã₁, d₁ − 1]]

with the directions 1 where d > ½: of a second-order cone on its boundary that is one ray.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cvxlayers.batches import Vectors
from cvxlayers.cones import IdentityBasis
from cvxlayers.derivative.kept import Kept
from cvxlayers.derivative.small import SmallFactors
from cvxlayers.derivative.structured import StructuredFactorisation
from cvxlayers.derivative.system import Factorise, Rank, System

_HALF = 0.5


@dataclass(frozen=True, eq=False)
class _Condensed:
    system: System
    kept: Kept
    share: Vectors
    factors: SmallFactors

    def solve(self, first: Vectors, second: Vectors) -> tuple[Vectors, Vectors]:
        """Solves for x and the kept directions, and then for the others."""
        system, A, n = self.system, self.system.program.structure.A, first.shape[1]
        pushed = A.rmatvec(system.program.A, system.from_eigen(self.share * second))
        u = self.factors.solve(np.concatenate([first + pushed, self.kept.take(second)], axis=1))
        x = np.ascontiguousarray(u[:, :n])
        z = self.share * (system.to_eigen(A.matvec(system.program.A, x)) - second)
        self.kept.put(z, u[:, n:])
        return x, z


def factorise_condensed(system: System, factorise: Factorise) -> StructuredFactorisation:
    """Factorises the condensed matrices of a batch of systems.

    Args:
        system: the systems.
        factorise: how those are factorised that are nearly singular.
    """
    program, n, d = system.program, system.program.structure.n, system.derivative.eigenvalues
    A = program.structure.A.dense(program.A)
    if not isinstance(system.derivative.basis, IdentityBasis):
        A = system.derivative.basis.rotate(np.broadcast_to(A, (len(d), *A.shape[1:])))
    loose = d <= _HALF
    share, kept = np.where(loose, 1.0 / np.where(loose, 1.0 - d, 1.0), 0.0), Kept.of(~loose)
    K = np.zeros((len(d), n + kept.order.shape[1], n + kept.order.shape[1]))
    scaled = A * (d * share)[..., None]
    K[:, :n, :n] = np.matmul(A.swapaxes(1, 2), scaled) + program.structure.P.dense(program.P)
    rays = np.take_along_axis(A, kept.order[..., None], axis=1) if len(A) > 1 else A[0][kept.order]
    chosen = kept.take(d)
    K[:, n:, :n] = np.sqrt(chosen)[..., None] * rays
    K[:, :n, n:] = K[:, n:, :n].swapaxes(1, 2)
    diagonal = np.arange(n, K.shape[1])
    K[:, diagonal, diagonal] = chosen - 1.0
    factors = SmallFactors.of(K, n + kept.count)
    ranks = Rank.regular(np.where(factors.sound, factors.condition, np.inf), n)
    inverse = _Condensed(system, kept, share, factors).solve
    return StructuredFactorisation.of(system, inverse, ranks, factors.sound, factorise)

"""Factorisations of systems of projections on cones: diagonal in the eigenbasis of the projection's derivative.

With w = Uᵀ diag(a) x the system K [x; z] = [f; g] is, for each direction,

    ρ w + r z = F,    r w + (d − 1) z = g,    F = Uᵀ f/a,    with the determinant −(ρ(1 − d) + d), never zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cvxlayers.batches import Vectors
from cvxlayers.derivative.structured import StructuredFactorisation
from cvxlayers.derivative.system import Factorise, Rank, System
from cvxlayers.idioms.isotropic import Isotropic


@dataclass(frozen=True, eq=False)
class _Diagonal:
    """The systems of a batch."""

    system: System
    isotropic: Isotropic
    a: Vectors
    rho: Vectors

    def solve(self, first: Vectors, second: Vectors) -> tuple[Vectors, Vectors]:
        """Solves K u = [first; second] for each item."""
        basis, columns = self.system.derivative.basis, self.isotropic.columns
        d, r, x = self.system.derivative.eigenvalues, self.system.root, np.empty(first.shape)
        force = basis.rotate((first[:, columns] / self.a)[..., None])[..., 0]
        size = self.rho * (1.0 - d) + d
        w, z = ((1.0 - d) * force + r * second) / size, (r * force - self.rho * second) / size
        x[:, columns] = basis.unrotate(w[..., None])[..., 0] / self.a
        return x, z


def factorise_isotropic(system: System, isotropic: Isotropic, factorise: Factorise) -> StructuredFactorisation:
    """Factorises a batch of systems of projections.

    Args:
        system: the systems.
        isotropic: which variable each row has.
        factorise: how systems of another form are factorised.
    """
    d = system.derivative.eigenvalues
    with np.errstate(all="ignore"):
        a, rho = isotropic.coefficients(system.program)
        served = np.broadcast_to(isotropic.holds(rho), (len(d),))
        pivots = np.concatenate([np.broadcast_to(rho, d.shape), rho * (1.0 - d) + d], axis=1)
        condition = pivots.max(axis=1, initial=0.0) / pivots.min(axis=1, initial=np.inf)
    ranks = Rank.regular(np.where(np.isfinite(condition), condition, np.inf), system.program.structure.n)
    return StructuredFactorisation.of(system, _Diagonal(system, isotropic, a, rho).solve, ranks, served, factorise)

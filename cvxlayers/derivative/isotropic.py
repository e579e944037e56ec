"""Factorisations of systems of projections on cones: diagonal in the eigenbasis of the projection's derivative.

With w = Uᵀ diag(a) x the system K [x; z] = [f; g] is, for each direction,

    ρ w + r z = F,    r w + (d − 1) z = g,    F = Uᵀ f/a,    with the determinant −(ρ(1 − d) + d), never zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from cvxlayers.derivative.system import Factorisation, Factorise, Rank, Solve, System
from cvxlayers.isotropic import Isotropic
from cvxlayers.program import Vectors, largest


@dataclass(frozen=True, eq=False)
class IsotropicFactorisation(Factorisation):
    """The systems of a batch; those of the items `rest` have another form, and are factorised as a whole."""

    system: System
    isotropic: Isotropic
    a: Vectors
    rho: Vectors
    ranks: Rank
    rest: Int[np.ndarray, " rest"]
    whole: Factorisation | None

    @property
    def rank(self) -> Rank:
        """How regular the systems are."""
        return self.ranks

    def solve(self, first: Vectors, second: Vectors) -> Solve:
        """Solves K u = [first; second] for each item."""
        basis, columns = self.system.derivative.basis, self.isotropic.columns
        d, r, x = self.system.derivative.eigenvalues, self.system.root, np.empty(first.shape)
        with np.errstate(all="ignore"):
            force = basis.rotate((first[:, columns] / self.a)[..., None])[..., 0]
            size = self.rho * (1.0 - d) + d
            w, z = ((1.0 - d) * force + r * second) / size, (r * force - self.rho * second) / size
            x[:, columns] = basis.unrotate(w[..., None])[..., 0] / self.a
            head, tail = self.system.matvec(x, z)
        if self.whole is not None:
            part = self.whole.solve(first[self.rest], second[self.rest])
            x[self.rest], z[self.rest] = part.first, part.second
            head, tail = self.system.matvec(x, z)
        gap, scale = (np.maximum(largest(one), largest(other)) for one, other in _pairs(first, second, head, tail))
        residual = np.divide(gap, scale, out=np.zeros_like(gap), where=scale > 0)
        return Solve(x, z, np.where(np.isfinite(residual), residual, np.inf))


def _pairs(first: Vectors, second: Vectors, head: Vectors, tail: Vectors) -> tuple[tuple[Vectors, Vectors], ...]:
    return (first - head, second - tail), (first, second)


def factorise_isotropic(system: System, isotropic: Isotropic, factorise: Factorise) -> IsotropicFactorisation:
    """Factorises a batch of systems of projections.

    Args:
        system: the systems.
        isotropic: which variable each row has.
        factorise: how systems of another form are factorised.
    """
    d = system.derivative.eigenvalues
    with np.errstate(all="ignore"):
        a, rho = isotropic.coefficients(system.program)
        rest = np.flatnonzero(~np.broadcast_to(isotropic.holds(rho), (len(d),)))
        pivots = np.concatenate([np.broadcast_to(rho, d.shape), rho * (1.0 - d) + d], axis=1)
        condition = pivots.max(axis=1, initial=0.0) / pivots.min(axis=1, initial=np.inf)
    nothing = np.zeros(len(d), dtype=bool)
    condition = np.where(np.isfinite(condition), condition, np.inf)
    free = np.zeros((len(d), system.program.structure.n))
    ranks = Rank(condition, nothing, nothing.copy(), condition.copy(), free)
    whole = factorise(system.item(rest)) if len(rest) else None
    if whole is not None:
        for name in ("condition", "not_unique", "dependent", "inverted", "free"):
            getattr(ranks, name)[rest] = getattr(whole.rank, name)
    return IsotropicFactorisation(system, isotropic, a, rho, ranks, rest, whole)

"""Factorisations of systems whose variables are coordinates of cones: one small system for each item.

With w = A x on the conic rows and ω = Uᵀw, the system K [x; z] = [f; g] is, with multipliers ν of G w = h,

    ρ ω + r z + G̃ᵀ ν = φ,    r ω + (d − 1) z = g,    G̃ ω = h,    G̃ = G U,    φ = Uᵀ f/a.

Where σ = ρ(1 − d) + d is not small, ω = ((1 − d)(φ − G̃ᵀν) + r g) / σ; the other directions, along which a cone lets x
move freely, are kept beside ν.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cvxlayers.batches import Vectors
from cvxlayers.derivative.kept import Kept
from cvxlayers.derivative.small import SmallFactors
from cvxlayers.derivative.structured import StructuredFactorisation
from cvxlayers.derivative.system import Factorise, Rank, System
from cvxlayers.idioms.coordinates import Coordinates, turn

# Directions whose σ is smaller are kept.
_SMALL = 0.1


@dataclass(frozen=True, eq=False)
class _Free:
    """The systems of the kept directions and ν.

    Attributes:
        system: the systems.
        form: where the variables stand.
        a: the coefficient of each variable in its conic row.
        rho: ρ.
        G: G U.
        sigma: σ.
        kept: the kept directions.
        factors: of the small systems.
    """

    system: System
    form: Coordinates
    a: Vectors
    rho: Vectors
    G: Float[np.ndarray, "batch few conic"]
    sigma: Vectors
    kept: Kept
    factors: SmallFactors

    def solve(self, first: Vectors, second: Vectors) -> tuple[Vectors, Vectors]:
        """Solves for the kept directions and ν, and then for the others."""
        form, zero, few, basis = self.form, self.form.zero, self.form.few, self.system.derivative.basis
        d, equal, g = self.system.derivative.eigenvalues[:, zero:], second[:, :zero], second[:, zero:]
        r, free = np.sqrt(d), ~self.kept.mask
        rest = np.where(free, 1.0, 1.0 - d)
        force = np.zeros(second.shape)
        force[:, zero + form.rows] = first / self.a
        phi = basis.rotate(force[..., None])[:, zero:, 0]
        base = np.where(free, ((1.0 - d) * phi + r * g) / self.sigma, 0.0)
        known = -np.matmul(self.G, base[..., None])[..., 0]
        known[:, :zero] += equal
        u = self.factors.solve(np.concatenate([known, self.kept.take(phi + r * g / rest)], axis=1))
        force = np.matmul(np.ascontiguousarray(u[:, None, :few]), self.G)[:, 0]
        omega = base - np.where(free, (1.0 - d) * force / self.sigma, 0.0)
        self.kept.put(omega, u[:, few:])
        z = np.where(free, (r * (phi - force) - self.rho * g) / self.sigma, (r * omega - g) / rest)
        full = np.concatenate([np.zeros((len(omega), zero)), omega], axis=1)
        w = basis.unrotate(full[..., None])[:, zero:, 0]
        return w[:, form.rows] / self.a, np.concatenate([u[:, :zero], z], axis=1)


def factorise_coordinates(system: System, form: Coordinates, factorise: Factorise) -> StructuredFactorisation:
    """Factorises a batch of systems of programs over the coordinates of cones.

    Args:
        system: the systems.
        form: where the variables stand.
        factorise: how systems are factorised that are nearly singular, or whose costs weigh a cone's rows differently.
    """
    program, zero, few = system.program, form.zero, form.few
    a = form.coefficients(program)
    with np.errstate(all="ignore"):
        rho, holds = form.curvature(program, a)
    d = system.derivative.eigenvalues[:, zero:]
    sigma = rho * (1.0 - d) + d
    free = ~(sigma < _SMALL)
    kept, sigma = Kept.of(~free), np.where(free, sigma, 1.0)
    equalities = np.pad(form.equalities(program, a), ((0, 0), (0, 0), (zero, 0)))
    G = np.ascontiguousarray(turn(equalities, zero + form.bare, system.derivative.basis, len(d))[:, :, zero:])
    order = few + kept.order.shape[1]
    K = np.zeros((len(d), order, order))
    K[:, :few, :few] = -np.matmul(G * np.where(free, (1.0 - d) / sigma, 0.0)[:, None], G.swapaxes(1, 2))
    K[:, :few, few:] = np.take_along_axis(G, kept.order[:, None], axis=2)
    K[:, few:, :few] = K[:, :few, few:].swapaxes(1, 2)
    diagonal = np.arange(few, order)
    K[:, diagonal, diagonal] = kept.take(rho + d / (1.0 - np.where(free, 0.0, d)))
    factors = SmallFactors.of(K, few + kept.count)
    served = factors.sound & holds
    ranks = Rank.regular(np.where(served, factors.condition, np.inf), program.structure.n)
    inverse = _Free(system, form, a, rho, G, sigma, kept, factors).solve
    return StructuredFactorisation.of(system, inverse, ranks, served, factorise)

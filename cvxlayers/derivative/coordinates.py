"""Factorisations of systems whose variables are coordinates of cones: one small system for each item.

With w = A x on the conic rows and ω = Uᵀw, the system K [x; z] = [f; g] is, with multipliers ν of G w = h,

    ρ ω + r z + G̃ᵀ ν = φ,    r ω + (d − 1) z = g,    G̃ ω = h,    G̃ = G U,    φ = Uᵀ f/a.

Where σ = ρ(1 − d) + d is not small, ω = ((1 − d)(φ − G̃ᵀν) + r g) / σ; the other directions, along which a cone lets x
move freely, are kept beside ν.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Bool, Float, Int

from cvxlayers.coordinates import Coordinates, turn
from cvxlayers.derivative.grouped import Part, factorise_groups
from cvxlayers.derivative.small import SmallFactors
from cvxlayers.derivative.structured import StructuredFactorisation
from cvxlayers.derivative.system import Factorise, System
from cvxlayers.program import Vectors

# Directions whose σ is smaller are kept.
_SMALL = 0.1


@dataclass(frozen=True, eq=False)
class _Free(Part):
    """The systems of the kept directions and ν.

    Attributes:
        system: the systems.
        form: where the variables stand.
        a: the coefficient of each variable in its conic row.
        holds: for which items ρ has one value in each cone.
        rho: ρ.
        G: G U.
        sigma: σ.
        kept: the kept directions.
        free: the others, as a mask.
        factors: of the small systems.
    """

    system: System
    form: Coordinates
    a: Vectors
    holds: Bool[np.ndarray, " leading"]
    rho: Vectors
    G: Float[np.ndarray, "batch few conic"]
    sigma: Vectors
    kept: Int[np.ndarray, "batch kept"]
    free: Bool[np.ndarray, "batch conic"]
    factors: SmallFactors

    @property
    def condition(self) -> Float[np.ndarray, " batch"]:
        """The ratio of the pivots."""
        return np.where(self.factors.sound & self.holds, self.factors.condition, np.inf)

    def solve(self, first: Vectors, second: Vectors) -> tuple[Vectors, Vectors]:
        """Solves for the kept directions and ν, and then for the others."""
        form, zero, count, basis = self.form, self.form.zero, self.kept.shape[1], self.system.derivative.basis
        d, equal, g = self.system.derivative.eigenvalues[:, zero:], second[:, :zero], second[:, zero:]
        r, rest = np.sqrt(d), np.where(self.free, 1.0, 1.0 - d)
        force = np.zeros(second.shape)
        force[:, zero + form.rows] = first / self.a
        phi = basis.rotate(force[..., None])[:, zero:, 0]
        base = np.where(self.free, ((1.0 - d) * phi + r * g) / self.sigma, 0.0)
        known = -np.matmul(self.G, base[..., None])[..., 0]
        known[:, :zero] += equal
        own = np.take_along_axis(phi + r * g / rest, self.kept, axis=1)
        u = self.factors.solve(np.concatenate([own, known], axis=1))
        force = np.matmul(np.ascontiguousarray(u[:, None, count:]), self.G)[:, 0]
        omega = base - np.where(self.free, (1.0 - d) * force / self.sigma, 0.0)
        np.put_along_axis(omega, self.kept, u[:, :count], axis=1)
        z = np.where(self.free, (r * (phi - force) - self.rho * g) / self.sigma, (r * omega - g) / rest)
        full = np.concatenate([np.zeros((len(omega), zero)), omega], axis=1)
        w = basis.unrotate(full[..., None])[:, zero:, 0]
        return w[:, form.rows] / self.a, np.concatenate([u[:, count : count + zero], z], axis=1)


def factorise_coordinates(system: System, form: Coordinates, factorise: Factorise) -> StructuredFactorisation:
    """Factorises a batch of systems of programs over the coordinates of cones.

    Args:
        system: the systems.
        form: where the variables stand.
        factorise: how systems are factorised that are nearly singular, or whose costs weigh a cone's rows differently.
    """
    a = form.coefficients(system.program)
    with np.errstate(all="ignore"):
        rho, _ = form.curvature(system.program, a)
    d = system.derivative.eigenvalues[:, form.zero :]
    kept = np.zeros(system.derivative.eigenvalues.shape, dtype=bool)
    kept[:, form.zero :] = rho * (1.0 - d) + d < _SMALL
    return factorise_groups(system, kept, partial(_factorise, form), factorise)


def _factorise(form: Coordinates, system: System, kept: Int[np.ndarray, "batch kept"]) -> _Free:
    program, zero, kept = system.program, form.zero, kept - form.zero
    a = form.coefficients(program)
    with np.errstate(all="ignore"):
        rho, holds = form.curvature(program, a)
    d = system.derivative.eigenvalues[:, zero:]
    sigma, free = rho * (1.0 - d) + d, np.ones(d.shape, dtype=bool)
    np.put_along_axis(free, kept, False, axis=1)
    equalities = np.pad(form.equalities(program, a), ((0, 0), (0, 0), (zero, 0)))
    G = np.ascontiguousarray(turn(equalities, zero + form.bare, system.derivative.basis, len(d))[:, :, zero:])
    count = kept.shape[1]
    K = np.zeros((len(d), count + form.few, count + form.few))
    weights = np.where(free, (1.0 - d) / np.where(free, sigma, 1.0), 0.0)
    K[:, count:, count:] = -np.matmul(G * weights[:, None], G.swapaxes(1, 2))
    K[:, count:, :count] = np.take_along_axis(G, kept[:, None], axis=2)
    K[:, :count, count:] = K[:, count:, :count].swapaxes(1, 2)
    own, diagonal = np.take_along_axis(d, kept, axis=1), np.arange(count)
    K[:, diagonal, diagonal] = np.take_along_axis(sigma, kept, axis=1) / (1.0 - own)
    return _Free(system, form, a, holds, rho, G, np.where(free, sigma, 1.0), kept, free, SmallFactors.of(K))

"""The derivative of projections on cones and on balls: one product with E, that of the projection at s₀.

On the rows with costs, with w = aλ, f = x̄/a and g = ȳ, the system P λ + Aᵀμ = x̄, D(Aλ + μ − ȳ) = μ is for cones

    ρ w + μ = f,   D(w + μ − g) = μ,     which leaves     w = g + E h/ρ,   μ = h − E h,   h = f − ρ g,

where E = ρ D′ (ρ D′ + I − D′)⁻¹ for D′ = I − D, the derivative of the projection at s − y.

For a ball of radius R, E is I inside and (R/‖s₀‖) (I − uuᵀ) outside, with u = s/R. There t, with the coefficients c in
the inequality and a₀ in the first row of the cone, has λ_t = ȳ_c/c, and with κ = a₀ λ_t − ȳ₀ all of

    ρ w = ρ g + E h + ρκ u,     μ = h − E h − ρκ u,     μ₀ = ρκ − uᵀh,     μ_c = (x̄_t − a₀ μ₀)/c.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Float

from cvxlayers.batches import Vectors, is_moving, largest
from cvxlayers.cones import Derivative
from cvxlayers.idioms.isotropic import Isotropic
from cvxlayers.program import ConeProgram

Sizes = Float[np.ndarray, " _batch"]
Items = Bool[np.ndarray, " _batch"]


class Projected(ABC):
    """The solution maps of a batch, linearised.

    Attributes:
        condition: the condition numbers of the systems.
        served: which items are such projections.
        unique: which of them have no other solution.
    """

    condition: Sizes
    served: Items
    unique: Items

    @property
    @abstractmethod
    def smallest(self) -> Sizes | None:
        """How far the kinks of curved cones are, where that is known."""

    @abstractmethod
    def solve(self, first: Vectors, second: Vectors, dual: bool) -> tuple[Vectors, Vectors, Sizes]:
        """Returns λ, μ, and relative residuals."""


@final
@dataclass(frozen=True, eq=False)
class _OnCones(Projected):
    """Projections on cones, of the coefficients a and ρ of each row."""

    form: Isotropic
    a: Vectors
    rho: Vectors
    E: Derivative
    condition: Sizes
    served: Items
    unique: Items

    @property
    def smallest(self) -> None:
        """It has to be found out."""
        return None

    def solve(self, first: Vectors, second: Vectors, dual: bool) -> tuple[Vectors, Vectors, Sizes]:
        lam, columns = np.empty(first.shape), self.form.columns
        h = first[:, columns] / self.a - self.rho * second
        kept = self.E.apply(h)
        lam[:, columns] = (second + kept / self.rho) / self.a
        return lam, h - kept, _residual(kept.sum(axis=1))


def linearise_cones(form: Isotropic, program: ConeProgram, y: Vectors, s: Vectors) -> Projected:
    """Linearises projections on cones, at the multipliers and slacks of their solutions."""
    a, rho = form.coefficients(program)
    inner = program.structure.cone.derivative(s - y, s)
    moving = rho * inner.eigenvalues
    pivots = moving + (1.0 - inner.eigenvalues)
    condition = np.maximum(pivots.max(axis=1), rho.max(axis=1)) / np.minimum(pivots.min(axis=1), rho.min(axis=1))
    served = np.broadcast_to(form.holds(rho), condition.shape)
    E = Derivative(moving / pivots, inner.basis)
    return _OnCones(form, a, rho, E, condition, served, np.ones(len(condition), dtype=bool))


@final
@dataclass(frozen=True, eq=False)
class _OnBall(Projected):
    """Projections on balls.

    Attributes:
        form: which variable each row has.
        a: the coefficient of each row.
        rho: ρ.
        bounds: c and a₀.
        s: R u, or what is inside.
        radius: R.
        share: R/‖s₀‖, one inside.
        outside: which items are outside.
        condition: the condition numbers of the systems.
        served: which items are such projections.
        unique: which of them have no other solution.
        distance: how far the kinks of the cone are.
    """

    form: Isotropic
    a: Vectors
    rho: Sizes
    bounds: tuple[Sizes, Sizes]
    s: Vectors
    radius: Sizes
    share: Sizes
    outside: Items
    condition: Sizes
    served: Items
    unique: Items
    distance: Sizes

    @property
    def smallest(self) -> Sizes:
        """How far the kinks of the cone are."""
        return self.distance

    def solve(self, first: Vectors, second: Vectors, dual: bool) -> tuple[Vectors, Vectors, Sizes]:
        form, (slope, head), rho, bound = self.form, self.bounds, self.rho[:, None], self.form.bound
        lam, mu, loose = np.empty(first.shape), np.empty((len(first), form.rows.stop)), np.zeros(len(first))
        moving, g, h = is_moving(second), second[:, form.rows], first[:, form.columns] / self.a
        if moving:
            h -= rho * g
        along, kappa = np.einsum("bn,bn->b", self.s, h) / self.radius, -second[:, form.top]
        if bound is not None:
            lam[:, bound.column] = np.where(self.outside, second[:, 0] / slope, 0.0)
            kappa = kappa + head * lam[:, bound.column]
        kappa = self.rho * kappa
        bend = np.where(self.outside, (self.share * along - kappa) / self.radius, 0.0)
        kept = self.share[:, None] * h
        kept -= bend[:, None] * self.s
        np.subtract(h, kept, out=mu[:, form.rows])
        moved = np.divide(kept, rho, out=kept)
        if moving:
            moved += g
        moved /= self.a
        lam[:, form.columns] = moved
        mu[:, form.top] = np.where(self.outside, kappa - along, 0.0)
        if bound is not None:
            force = first[:, bound.column]
            mu[:, 0] = np.where(self.outside, (force - head * mu[:, form.top]) / slope, 0.0)
            loose = np.where(self.outside | (force == 0.0), 0.0, np.abs(force) / largest(first))
        return lam, mu, loose + _residual(along * self.share + bend)


def linearise_ball(form: Isotropic, program: ConeProgram, y: Vectors, s: Vectors) -> Projected:
    """Linearises projections on balls, at the multipliers and slacks of their solutions."""
    (a, rho), (slope, head), top = form.coefficients(program), form.bounds(program), form.top
    served, rho, radius = form.holds(rho), rho[:, 0], s[:, top]
    outside, inside = y[:, top] > 0.0, y[:, top] == 0.0
    condition = np.maximum(rho, 1.0 / rho)
    if form.bound is not None:
        outside, inside = outside & (y[:, 0] > 0.0), inside & (y[:, 0] == 0.0)
        condition = condition * np.maximum(slope, 1.0 / slope) * np.maximum(-head, -1.0 / head)
    share = radius / (radius + y[:, top] / rho)
    served, condition = served & (outside | inside), np.broadcast_to(condition, outside.shape)
    unique = outside if form.bound is not None else np.ones(len(outside), dtype=bool)
    # Of v = y − s on the cone, ‖v‖ − |v₀|: outside both y and s are on its boundary, inside y is zero.
    smallest, middle = 2.0 * np.minimum(y[:, top], radius), (~outside).nonzero()[0]
    if len(middle):
        smallest[middle] = radius[middle] - np.sqrt(np.sum(s[middle, form.rows] ** 2, axis=1))
    bounds = slope, head
    return _OnBall(form, a, rho, bounds, s[:, form.rows], radius, share, outside, condition, served, unique, smallest)


def _residual(found: Sizes) -> Sizes:
    """Formulas leave nothing but rounding, where they are numbers."""
    return np.where(np.isfinite(found), 0.0, np.inf)

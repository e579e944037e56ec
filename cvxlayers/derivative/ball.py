"""Factorisations of systems of projections on a ball: in the eigenbasis of the cone, but for its first row's variable.

Outside the ball the derivative of the projection on the dual cone has the eigenvalue 0 on (1, u)/√2, 1 on (1, −u)/√2,
and d across, and the bound of t is an equation. With X = ax, F = f/a and [f; g] the right-hand side, this leaves

    c t = g_t,   uᵀX = a₀t − √2 g₋,   z₋ = √2 (ρ uᵀX − uᵀF),   and across   ρX + rz = F,   rX + (d − 1) z = g.

Inside, z = −g, X = F/ρ, and t is anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from cvxlayers.ball import Ball
from cvxlayers.derivative.structured import StructuredFactorisation
from cvxlayers.derivative.system import Factorise, Rank, System
from cvxlayers.program import Vectors

Sizes = Float[np.ndarray, " batch"]


@dataclass(frozen=True, eq=False)
class _Sphere:
    """The systems of a batch, in or outside the ball."""

    system: System
    ball: Ball
    a: Vectors
    rho: Sizes
    outside: Bool[np.ndarray, " batch"]

    def solve(self, first: Vectors, second: Vectors) -> tuple[Vectors, Vectors]:
        """Solves K u = [first; second] for each item."""
        ball, basis, root = self.ball, self.system.derivative.basis, self.system.root
        top, rows, outside = ball.first, ball.tail, self.outside
        d = self.system.derivative.eigenvalues
        force = np.zeros(second.shape)
        force[:, rows] = first[:, ball.columns] / self.a
        turned, rho = basis.rotate(force[..., None])[..., 0], self.rho[:, None]
        size = rho * (1.0 - d) + d
        w, z = ((1.0 - d) * turned + root * second) / size, (root * turned - rho * second) / size
        slope, head = ball.bounds(self.system.program)
        t = np.where(outside, second[:, 0] / slope, 0.0) if ball.bound is not None else np.zeros(len(z))
        along = head * t - np.sqrt(2.0) * second[:, top + 1]
        minus = np.sqrt(2.0) * rho[:, 0] * along + 2.0 * turned[:, top + 1]
        w[:, top], w[:, top + 1] = (head * t + along) / np.sqrt(2.0), (head * t - along) / np.sqrt(2.0)
        if ball.bound is not None:
            w[:, 0] = 0.0
            z[:, 0] = (first[:, ball.bound.column] - head * minus / np.sqrt(2.0)) / slope
        z[:, top], z[:, top + 1] = -second[:, top], minus
        x = np.empty(first.shape)
        inside = np.where(outside[:, None], basis.unrotate(w[..., None])[..., 0][:, rows], force[:, rows] / rho)
        x[:, ball.columns] = inside / self.a
        if ball.bound is not None:
            x[:, ball.bound.column] = t
        return x, np.where(outside[:, None], z, -second)


def factorise_ball(system: System, ball: Ball, factorise: Factorise) -> StructuredFactorisation:
    """Factorises a batch of systems of projections on a ball.

    Args:
        system: the systems.
        ball: which variable each row has.
        factorise: how systems of another form are factorised.
    """
    d, program, top = system.derivative.eigenvalues, system.program, ball.first
    with np.errstate(all="ignore"):
        a, rho, sound = ball.coefficients(program)
        slope, head = ball.bounds(program)
        rho = np.broadcast_to(rho, (len(d),))
        outside = (d[:, top] == 0.0) & (d[:, top + 1] == 1.0) & (d[:, :top] == 1.0).all(axis=1)
        clear = sound & (outside | (d == 0.0).all(axis=1))
        pivots = np.concatenate([rho[:, None] * (1.0 - d) + d, rho[:, None], np.ones((len(d), 1))], axis=1)
        condition = pivots.max(axis=1) / pivots.min(axis=1)
        if ball.bound is not None:
            condition = condition * np.maximum(slope, 1.0 / slope) * np.maximum(-head, -1.0 / head)
    ranks = Rank.regular(np.where(np.isfinite(condition), condition, np.inf), program.structure.n)
    if ball.bound is not None:
        free = np.flatnonzero(~outside)
        ranks.not_unique[free], ranks.condition[free] = True, np.inf
        ranks.free[free, ball.bound.column] = 1.0
    inverse = _Sphere(system, ball, a, rho, outside).solve
    return StructuredFactorisation.of(system, inverse, ranks, clear, factorise)

"""Factorisations of systems of projections on a ball: in the eigenbasis of the cone, but for its first row's variable.

Outside the ball the derivative of the projection on the dual cone has the eigenvalue 0 on (1, u)/√2, 1 on (1, −u)/√2,
and d across, and the bound of t is an equation. With X = ax, F = f/a and [f; g] the right-hand side, this leaves

    c t = g_t,   uᵀX = a₀t − √2 g₋,   z₋ = √2 (ρ uᵀX − uᵀF),   and across   ρX + rz = F,   rX + (d − 1) z = g.

Inside, z = −g, X = F/ρ, and t is anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from cvxlayers.ball import Ball
from cvxlayers.derivative.system import Factorisation, Factorise, Rank, Solve, System
from cvxlayers.program import Vectors, largest

_ESCALATE = 1e-8

Sizes = Float[np.ndarray, " batch"]
Items = Int[np.ndarray, " _items"]


@dataclass(frozen=True, eq=False)
class BallFactorisation(Factorisation):
    """The systems of a batch; those of the items `rest` have another form, and are factorised as a whole."""

    system: System
    ball: Ball
    a: Vectors
    rho: Sizes
    outside: Bool[np.ndarray, " batch"]
    ranks: Rank
    rest: Items
    factorise: Factorise

    @property
    def rank(self) -> Rank:
        """How regular the systems are."""
        return self.ranks

    def solve(self, first: Vectors, second: Vectors) -> Solve:
        """Solves K u = [first; second] for each item."""
        with np.errstate(all="ignore"):
            x, z = self._solve(first, second)
            head, tail = self.system.matvec(x, z)
            gap, scale = (
                np.maximum(largest(one), largest(other))
                for one, other in ((first - head, second - tail), (first, second))
            )
        residual = np.divide(gap, scale, out=np.zeros_like(gap), where=scale > 0)
        residual = np.where(np.isfinite(residual), residual, np.inf)
        rough = np.union1d(self.rest, np.flatnonzero(~(residual <= _ESCALATE)))
        if len(rough):
            part = self.factorise(self.system.item(rough)).solve(first[rough], second[rough])
            x[rough], z[rough], residual[rough] = part.first, part.second, part.residual
        return Solve(x, z, residual)

    def _solve(self, first: Vectors, second: Vectors) -> tuple[Vectors, Vectors]:
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


def factorise_ball(system: System, ball: Ball, factorise: Factorise) -> BallFactorisation:
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
    rest = np.flatnonzero(~clear)
    ranks = Rank.regular(np.where(np.isfinite(condition), condition, np.inf), program.structure.n)
    if ball.bound is not None:
        free = np.flatnonzero(~outside)
        ranks.not_unique[free], ranks.condition[free] = True, np.inf
        ranks.free[free, ball.bound.column] = 1.0
    if len(rest):
        ranks.replace_items(rest, factorise(system.item(rest)).rank)
    return BallFactorisation(system, ball, a, rho, outside, ranks, rest, factorise)

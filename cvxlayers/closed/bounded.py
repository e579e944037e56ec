"""Diagonal costs over bounds and at most one other row, as projections on a box or a simplex; their derivative.

At a solution some bounds are active, c x = b, one of a variable at most: it is held, and the other variables are free.
An adjoint (λ, μ) of the optimality conditions, for cotangents (x̄, ȳ), is c λ = ȳ_c and μ_c = (x̄ − p λ − a μ₀)/c for a
held variable, with p its cost and a its coefficient in the row. The free ones, and the row where that is active, leave

    p λ + a μ₀ = x̄,   aᵀλ = ȳ₀:      λ = h (x̄ − a μ₀),   aᵀh a μ₀ = aᵀ(h x̄ + λ_held) − ȳ₀,

where h is 1/p, or zero where a variable is held. Tangents solve the same system.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np
from jaxtyping import Bool, Float

from cvxlayers.batches import Run, Vectors, is_moving, largest, run
from cvxlayers.closed.form import Certified, ClosedForm, Formula, Seen, Whole, lifted, solve_by
from cvxlayers.derivative import Differential, Point, is_smooth
from cvxlayers.idioms.separable import Separable
from cvxlayers.program import ConeProgram
from cvxlayers.reduction import Reduced, Reduction
from cvxlayers.solvers import Bounded, Options

Sizes = Float[np.ndarray, " batch"]


@final
@dataclass(frozen=True, eq=False)
class BoundedForm(ClosedForm):
    """Diagonal costs over bounds and at most one other row; see `cvxlayers.solvers.bounded`.

    Attributes:
        parts: of the programs that the solver sees.
        reduction: what is eliminated before.
    """

    parts: Separable
    reduction: Reduction | None

    def solve(self, program: ConeProgram, reduced: Reduced | None) -> Certified:
        """Returns points, how many evaluations they took, and which of them are certified solutions, to rounding."""
        return solve_by(Bounded(), program, reduced, Options())

    def linearise(
        self, program: ConeProgram, point: Point, reduced: Reduced | None, seen: Seen, whole: Whole
    ) -> Differential:
        """Returns the derivative at solutions; `whole` is for those next to a kink, or badly conditioned."""
        reduction = self.reduction
        redundant = None if reduction is None else reduction.redundant
        if reduced is None and reduction is not None:
            reduced = reduction.eliminate(program)
        small = program if reduced is None else reduced.program
        y = point.y if reduction is None else point.y[:, reduction.kept[1]]
        with np.errstate(all="ignore"):
            found = linearise_bounds(self.parts, small, y)
        served = found.served & is_smooth(program, point, found.condition, redundant)
        inverse = found.solve if reduced is None else lifted(found.solve, reduced)
        return Formula.of(program, point, inverse, found.condition, served, whole)


class _Held(NamedTuple):
    """Some bounds, their variables and coefficients, and which of them are active."""

    rows: Run
    columns: Run
    c: Vectors
    active: Bool[np.ndarray, "batch _count"]


@dataclass(frozen=True, eq=False)
class _OnBounds:
    """The solution maps of a batch, linearised.

    Attributes:
        rows: the number of rows of the programs.
        p: the costs.
        h: 1/p, zero where a variable is held.
        held: the bounds.
        row: the row a, zero where it is not active, or where there is none.
        position: which row of the programs that is.
        schur: aᵀ h a.
        condition: the condition numbers of the systems.
        served: which systems are of this kind, and regular.
    """

    rows: int
    p: Vectors
    h: Vectors
    held: Sequence[_Held]
    row: Vectors
    position: int | None
    schur: Sizes
    condition: Sizes
    served: Bool[np.ndarray, " batch"]

    def solve(self, first: Vectors, second: Vectors, dual: bool) -> tuple[Vectors, Vectors, Sizes]:
        """Returns λ, μ where it is asked for, and relative residuals: those of the row."""
        a, lam, side = np.broadcast_to(self.row, first.shape), self.h * first, np.zeros(len(first))
        if is_moving(second):
            for rows, columns, c, active in self.held:
                lam[:, columns] += np.where(active, second[:, rows] / c, 0.0)
            side = side if self.position is None else np.where(self.schur > 0, second[:, self.position], side)
        price = np.einsum("bn,bn->b", a, lam) - side
        price = np.divide(price, self.schur, out=np.zeros(len(price)), where=self.schur > 0)
        force = self.row * price[:, None]
        lam -= self.h * force
        mu = np.zeros((len(first), self.rows if dual else 1))
        if dual:
            left = first - force
            left -= self.p * lam
            for rows, columns, c, active in self.held:
                mu[:, rows] = np.where(active, left[:, columns] / c, 0.0)
            if self.position is not None:
                mu[:, self.position] = price
        gap, scale = np.abs(np.einsum("bn,bn->b", a, lam) - side), np.maximum(largest(first), np.abs(side))
        residual = np.divide(gap, scale, out=np.zeros(len(gap)), where=scale > 0)
        return lam, mu, np.where(np.isfinite(gap), residual, np.inf)


def linearise_bounds(parts: Separable, program: ConeProgram, y: Vectors) -> _OnBounds:
    """Linearises the solution maps of a batch at the multipliers of their solutions."""
    p, count = parts.diagonal(program.P), np.zeros((len(y), parts.n), dtype=np.int8)
    held, least, most = [], p.min(axis=1, initial=np.inf), p.max(axis=1, initial=0.0)
    for bounds in parts.bounds:
        rows, columns, entries = run(bounds.rows), run(bounds.columns), run(bounds.entries)
        active, c = y[:, rows] > 0.0, program.A[:, entries]
        held.append(_Held(rows, columns, c, active))
        count[:, columns] += active
        size = np.abs(c)
        least = np.minimum(least, size.min(axis=1, initial=np.inf, where=active if len(c) > 1 else True))
        most = np.maximum(most, size.max(axis=1, initial=0.0))
    h = np.where(count == 0, 1.0 / p, 0.0)
    row, position, schur = np.zeros((1, parts.n)), None, np.zeros(len(h))
    served = (count <= 1).all(axis=1) & (least > 0)
    if len(parts.coupling):
        position = int(parts.coupling[0])
        row = parts.coupling_matrix(program.A)[:, 0]
        active = np.full(len(y), True) if position < program.structure.cone.zero else y[:, position] > 0.0
        row = row * active[:, None] if not active.all() else row
        schur = np.einsum("bn,bn->b", np.broadcast_to(row**2, h.shape), h)
        served &= (schur > 0) | ~active
        pivot = np.where(schur > 0, schur, np.nan)
        least, most = np.fmin(least, pivot), np.fmax(most, pivot)
    condition = np.broadcast_to(np.maximum(most / least, 1.0), len(h))
    return _OnBounds(y.shape[1], p, h, held, row, position, schur, condition, served)

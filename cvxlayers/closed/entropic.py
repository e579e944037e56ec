"""Entropies and linear costs over at most one linear constraint: the certificate of their solutions.

The pair (s, y) of an entropy is right where s = Π(s − y) for the projection Π on the exponential cone. That needs no
projection. For any σ > 0, w > 0 and z the pair

    s′ = (−σz, σ, σ e^−z),     y′ = w (−1, −z − 1, e^z)

lies in the cone and its dual, and is orthogonal; as Π is non-expansive, ‖Π(s − y) − s‖ ≤ 2‖s − s′‖ + ‖y − y′‖. What the
residual map would find at v = y − s is thus no more than the residual of (x, y, s) and that, or that times A.

A solution is made of σ = γ e^z and z in just this way, but for the rounding of a few operations, as are t and w.
Whether the row holds, the costs of x balance, and both entropies of a variable mean the same x has to be seen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import numpy as np
from jaxtyping import Bool, Float

from cvxlayers.batches import Vectors, largest
from cvxlayers.closed.entropic_derivative import linearise_entropies
from cvxlayers.closed.form import Certified, ClosedForm, Formula, Seen, Whole, lifted
from cvxlayers.derivative import Differential
from cvxlayers.idioms.separable import Separable
from cvxlayers.program import ConeProgram
from cvxlayers.reduction import Reduced, Reduction
from cvxlayers.residual import EXACT, Point, relative
from cvxlayers.solvers import Optimum, find_optimum

Sizes = Float[np.ndarray, " batch"]

# What is right but for the rounding of a few operations.
_ROUNDING = 4 * np.finfo(float).eps


@final
@dataclass(frozen=True, eq=False)
class EntropicForm(ClosedForm):
    """Entropies over at most one row; see `cvxlayers.solvers.entropic`.

    Attributes:
        parts: of the programs that the solver sees.
        reduction: what is eliminated before: rows that say nothing new.
    """

    parts: Separable
    reduction: Reduction | None

    def solve(self, program: ConeProgram, reduced: Reduced | None) -> Certified:
        """Returns points, how many evaluations they took, and which of them are certified solutions, to rounding."""
        reduced = self._reduced(program, reduced)
        with np.errstate(all="ignore"):
            small = program if reduced is None else reduced.program
            optimum = find_optimum(small, self.parts)
            point, sure = certified(small, optimum)
            if reduced is not None:
                point = _beside_redundant(point, reduced)
                sure &= point.merit <= EXACT
        return point, optimum.iterations, sure

    def linearise(
        self, program: ConeProgram, point: Point, reduced: Reduced | None, seen: Seen, whole: Whole
    ) -> Differential:
        """Returns the derivative at solutions; `whole` is for those next to a kink."""
        reduced = self._reduced(program, reduced)
        if reduced is None:
            return Formula.of(program, point, *linearise_entropies(program, point, self.parts), whole)
        rows = reduced.reduction.kept[1]
        at = replace(point, v=point.v[:, rows], y=point.y[:, rows], s=point.s[:, rows])
        inverse, condition, served = linearise_entropies(reduced.program, at, self.parts)
        return Formula.of(program, point, lifted(inverse, reduced), condition, served, whole)

    def _reduced(self, program: ConeProgram, reduced: Reduced | None) -> Reduced | None:
        return reduced if self.reduction is None or reduced is not None else self.reduction.eliminate(program)


def _beside_redundant(point: Point, reduced: Reduced) -> Point:
    """Returns the points of the full programs, with what they violate of the redundant rows."""
    full = reduced.full
    x, y, s = reduced.recover(point.x, point.y, point.s)
    off = (full.b - full.structure.A.matvec(full.A, x) - s)[:, reduced.reduction.redundant]
    primal = np.maximum(point.primal, largest(off)[:, None])
    dual, scales = point.dual, (point.dual_scale, point.primal_scale)
    return Point(x, y - s, y, s, dual, primal, *scales, relative(dual, primal, *scales))


def certified(program: ConeProgram, optimum: Optimum) -> tuple[Point, Bool[np.ndarray, " batch"]]:
    """Returns the points, and which of them are solutions to rounding."""
    x, y, s = optimum.point(program)
    scales = _scales(program, optimum)
    dual, primal = _residuals(program, optimum, y, *scales)
    dual, primal = dual[:, None], primal[:, None]
    point = Point(x, y - s, y, s, dual, primal, *scales, relative(dual, primal, *scales))
    return point, optimum.fine & (point.merit <= EXACT)


def _scales(program: ConeProgram, optimum: Optimum) -> tuple[Sizes, Sizes]:
    """Returns sizes of terms that cancel: of costs, and of right-hand sides and points."""
    dual, primal = largest(program.q[:, optimum.parts.main_run]), largest(program.b)
    for sigma, term in zip(optimum.sigma, optimum.response.terms, strict=True):
        dual, primal = np.maximum(dual, largest(term.w * term.head)), np.maximum(primal, sigma.max(axis=1))
    return np.broadcast_to(dual, (program.batch,)), np.broadcast_to(primal, (program.batch,))


def _residuals(
    program: ConeProgram, optimum: Optimum, y: Vectors, dual_scale: Sizes, primal_scale: Sizes
) -> tuple[Sizes, Sizes]:
    """Returns bounds of the residuals of both optimality conditions, per item."""
    force = optimum.row * optimum.nu[:, None]
    force += program.q[:, optimum.parts.main_run]
    dual, primal = _ROUNDING * dual_scale, _ROUNDING * primal_scale
    price = dual_scale + np.abs(optimum.nu) * largest(optimum.row)
    for sigma, term in zip(optimum.sigma, optimum.response.terms, strict=True):
        slope = np.abs(term.alpha)
        force -= term.alpha * y[:, term.places.rows[1]]
        multiplier = price / slope.min(axis=1) + (term.w / term.gamma).max(axis=1) * primal_scale
        off = _ROUNDING * (primal_scale + multiplier)
        dual, primal = dual + off * (slope + np.abs(term.head)).max(axis=1), primal + off
        if len(optimum.sigma) == 2:
            primal = primal + largest(term.alpha * optimum.x + term.beta - sigma)
    if len(optimum.parts.coupling):
        left = optimum.left(program)
        strict = optimum.parts.coupling[0] < program.structure.cone.zero
        primal = primal + np.abs(left if strict else np.minimum(left, optimum.nu))
    return np.abs(force, out=force).max(axis=1) + dual, primal

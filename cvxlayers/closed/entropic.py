"""Entropies and linear costs over at most one linear constraint: the certificate of their solutions.

The pair (s, y) of an entropy is right where s = Π(s − y) for the projection Π on the exponential cone. That needs no
projection: with ρ = s₁/s₂, w = −y₁ and any δ = ‖(s, y) − (s′, y′)‖ for

    s′ = (s₁, s₂, s₂ e^ρ),     y′ = w (−1, ρ − 1, e^−ρ),

which lie in the cone and its dual and are orthogonal, ‖Π(s − y) − s‖ ≤ 2‖s − s′‖ + ‖y − y′‖ since Π is non-expansive.
What the residual map would find at v = y − s is thus no more than the residual of (x, y, s), and that, times A.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Float, Int

from cvxlayers.closed.entropic_derivative import EntropicDerivative, linearise_entropies
from cvxlayers.closed.form import ClosedForm, Whole
from cvxlayers.derivative import EXACT, Point
from cvxlayers.program import ConeProgram, Vectors, largest
from cvxlayers.separable import Places, Separable
from cvxlayers.solvers import Optimum, find_optimum

Sizes = Float[np.ndarray, " batch"]


@final
@dataclass(frozen=True, eq=False)
class EntropicForm(ClosedForm):
    """Entropies over at most one row; see `cvxlayers.solvers.entropic`."""

    parts: Separable

    @property
    def solver(self) -> str:
        """The name of the solver whose form it is."""
        return "ENTROPIC"

    def solve(self, program: ConeProgram) -> tuple[Point, Int[np.ndarray, " batch"], Bool[np.ndarray, " batch"]]:
        """Returns points, how many evaluations they took, and which of them are certified solutions, to rounding."""
        with np.errstate(all="ignore"):
            optimum = find_optimum(program, self.parts)
            x, y, s = optimum.point(program)
            dual, primal = _residuals(program, optimum, x, y, s)
            primal_scale = np.maximum(largest(program.b), _height(self.parts, s))
        dual_scale = np.broadcast_to(program.sizes.q, (program.batch,))
        point = Point(x, y - s, y, s, dual[:, None], primal[:, None], dual_scale, primal_scale)
        return point, optimum.iterations, optimum.fine & (point.merit <= EXACT)

    def linearise(self, program: ConeProgram, point: Point, whole: Whole) -> EntropicDerivative:
        """Returns the derivative at solutions; `whole` is for those next to a kink."""
        return linearise_entropies(program, point, self.parts, whole)


def _height(parts: Separable, s: Vectors) -> Sizes:
    return np.maximum.reduce([s[:, places.rows[1]].max(axis=1) for places in parts.places])


def _residuals(program: ConeProgram, optimum: Optimum, x: Vectors, y: Vectors, s: Vectors) -> tuple[Sizes, Sizes]:
    """Returns bounds of the residuals of both optimality conditions, per item."""
    parts, A, b = optimum.parts, program.A, program.b
    force, hidden = program.q[:, parts.main_run], np.zeros(1)
    primal = np.zeros(1)
    for places in parts.places:
        (first, second, _), alpha, head = places.rows, A[:, places.entries], A[:, places.bounded_entries]
        off = _pairing(places, y, s)
        force = force + alpha * y[:, second]
        hidden = hidden + ((np.abs(alpha) + np.abs(head)) * off).max(axis=1)
        hidden = hidden + largest(program.q[:, places.bounded] + head * y[:, first])
        gap = np.abs(head * x[:, places.bounded] + s[:, first] - b[:, first])
        gap += np.abs(alpha * x[:, places.columns] + s[:, second] - b[:, second])
        gap += off
        primal = np.maximum(primal, gap.max(axis=1))
    for group in parts.bounds:
        rows = group.rows
        primal = np.maximum(primal, largest(A[:, group.entries] * x[:, group.columns] + s[:, rows] - b[:, rows]))
    if len(parts.coupling):
        row, weights = int(parts.coupling[0]), parts.coupling_matrix(A)[:, 0, parts.main_run]
        force = force + weights * optimum.nu[:, None]
        primal = np.maximum(primal, np.abs(np.sum(weights * optimum.x, axis=1) + s[:, row] - b[:, row]))
    return largest(force) + hidden, primal


def _pairing(places: Places, y: Vectors, s: Vectors) -> Vectors:
    """Returns how far each pair may be from one of a point and its normal, as above."""
    first, second, third = places.rows
    sigma, w = s[:, second], -y[:, first]
    rho = s[:, first] / sigma
    growth = np.exp(rho)
    off = 2.0 * np.abs(s[:, third] - sigma * growth)
    off += np.abs(y[:, second] - w * (rho - 1.0))
    off += np.abs(y[:, third] - w / growth)
    return off

"""Lagrangian proximal gradient descent: differences of solutions in place of a derivative.

A cotangent (x̄, ȳ) of a solution is added to the Lagrangian L(x, y; θ) = ½xᵀPx + qᵀx + yᵀ(Ax − b), scaled by ±τ: that
perturbs q to q ± τ x̄ and b to b ∓ τ ȳ. With the solutions z₊ and z₋ of the perturbed programs,

    (∇L(z₊; θ) − ∇L(z₋; θ)) / 2τ,      ∂L/∂P = ½xxᵀ,  ∂L/∂q = x,  ∂L/∂A = y xᵀ,  ∂L/∂b = −y

tends to the exact cotangent of the data as τ → 0, and says which way to go also where that is zero or undefined. Here
τ = μ / ‖(x̄, ȳ)‖∞: the costs change by at most μ, and the result scales with the cotangent as a derivative does.

References: Paulus, Martius, Musil, "LPGD: a general framework for backpropagation through embedded optimization
layers" (2024), arXiv:2407.05920.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from cvxlayers.batches import Vectors
from cvxlayers.derivative import Data, DerivativeInfo, Point
from cvxlayers.kernel import Kernel
from cvxlayers.program import ConeProgram, is_usable
from cvxlayers.solve import CallOptions, solve_programs

Weights = Float[np.ndarray, "batch 1"]


@dataclass(frozen=True, eq=False)
class Differences:
    """The solutions of a batch of programs, with what it takes to solve perturbed ones.

    Where one of the two perturbed programs has no solution, the difference is one-sided; where neither has one, it is
    zero and its residual infinite.

    Attributes:
        kernel: how the programs are solved.
        program: the programs.
        point: their solutions.
        options: what the call asked for.
        mu: the largest entry of a perturbation.
    """

    kernel: Kernel
    program: ConeProgram
    point: Point
    options: CallOptions
    mu: float

    def vjp(self, x: Vectors, y: Vectors) -> tuple[Data, DerivativeInfo]:
        """Returns the cotangent of the data for cotangents of x and y."""
        tau, program = _step(np.concatenate([x, y], axis=1), self.mu), self.program
        shifted = [replace(program, q=program.q + t * x, b=program.b - t * y) for t in (tau, -tau)]
        (above, below), weight, info = self._solved(shifted, tau)
        pairs = zip(_slopes(program, above), _slopes(program, below), strict=True)
        return Data(*(weight * (a - b) for a, b in pairs)), info

    def jvp(self, tangent: Data) -> tuple[Vectors, Vectors, DerivativeInfo]:
        """Returns differences of x and y along a tangent of the data, which it follows by `mu` at its largest entry."""
        largest = np.max([np.max(np.abs(part), axis=1, initial=0.0) for part in tangent], axis=0)
        tau = np.array(np.broadcast_to(_step(largest[:, None], self.mu), (self.program.batch, 1)))
        moved = [
            {name: getattr(self.program, name) + t * part for name, part in tangent._asdict().items()}
            for t in (tau, -tau)
        ]
        (above, below), weight, info = self._solved([replace(self.program, **data) for data in moved], tau)
        return weight * (above.x - below.x), weight * (above.y - below.y), info

    def _solved(self, programs: Sequence[ConeProgram], tau: Weights) -> tuple[list[Point], Weights, DerivativeInfo]:
        """Returns the solutions on both sides, one over the distance between them, and how many there are."""
        points, sides = [], np.zeros((self.program.batch, 1))
        for program in programs:
            outcome, point, _ = solve_programs(self.kernel, program, self.kernel.reduce(program), self.options, None)
            ok = is_usable(outcome.solution.status)
            missing = np.flatnonzero(~ok)
            known = self.point.item(missing).compact()
            points.append(point.compact().put(missing, known) if len(missing) else point)
            sides += ok[:, None]
        width = sides * tau
        weight = np.divide(1.0, width, out=np.zeros_like(width), where=width > 0)
        no = np.zeros(self.program.batch, dtype=bool)
        return points, weight, DerivativeInfo(np.where(sides[:, 0] > 0, 0.0, np.inf), np.ones(len(no)), no, no, no)


def _step(cotangent: Vectors, mu: float) -> Weights:
    size = np.max(np.abs(cotangent), axis=1, initial=0.0, keepdims=True)
    return np.divide(mu, size, out=np.zeros_like(size), where=size > 0)


def _slopes(program: ConeProgram, point: Point) -> Data:
    """The derivative of the Lagrangian by the data."""
    P, A = program.structure.P, program.structure.A
    return Data(0.5 * P.outer((point.x, point.x)), point.x, A.outer((point.y, point.x)), -point.y)

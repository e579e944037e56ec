"""What a closed form is: points with their residuals, and derivatives, of all items that it fits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import final

import numpy as np
from jaxtyping import Bool, Float, Int

from cvxlayers.batches import Vectors
from cvxlayers.cones import Derivative, IdentityBasis
from cvxlayers.derivative import EXACT, DerivativeInfo, Differential, Point, System, evaluate
from cvxlayers.program import ConeProgram, Status
from cvxlayers.reduction import Reduced
from cvxlayers.solvers import Options, Solver

Items = Int[np.ndarray, " items"]
Sizes = Float[np.ndarray, " batch"]
Seen = Callable[[Vectors], Vectors]
Whole = Callable[[Items], Differential]
Inverse = Callable[[Vectors, Vectors, bool], tuple[Vectors, Vectors, Sizes]]


@final
@dataclass(frozen=True, eq=False)
class Formula(Differential):
    """Solution maps linearised by a formula; those of the items `rest` as of any program.

    Attributes:
        program: the programs.
        point: their solutions.
        inverse: see `Differential.solve`; returns relative residuals too. Where μ is not asked for, any will do.
        condition: the condition numbers of the systems.
        rest: the items with another derivative.
        whole: theirs.
    """

    program: ConeProgram
    point: Point
    inverse: Inverse
    condition: Sizes
    rest: Items
    whole: Differential | None

    @classmethod
    def of(
        cls,
        program: ConeProgram,
        point: Point,
        inverse: Inverse,
        condition: Sizes,
        served: Bool[np.ndarray, " batch"],
        whole: Whole,
    ) -> Formula:
        """Linearises as those of any program what the formula does not serve."""
        rest = np.flatnonzero(~served)
        return cls(program, point, inverse, condition, rest, whole(rest) if len(rest) else None)

    def solve(self, first: Vectors, second: Vectors, dual: bool = True) -> tuple[Vectors, Vectors, DerivativeInfo]:
        """Solves by the formula."""
        rest = self.rest
        with np.errstate(all="ignore"):
            lam, mu, residual = self.inverse(first, second, dual or self.whole is not None)
        info = DerivativeInfo(residual, self.condition.copy(), *np.zeros((3, len(residual)), dtype=bool))
        if self.whole is not None:
            lam[rest], mu[rest], found = self.whole.solve(first[rest], second[rest])
            for field in fields(DerivativeInfo):
                getattr(info, field.name)[rest] = getattr(found, field.name)
        return lam, mu, info


Certified = tuple[Point, Items, Bool[np.ndarray, " items"]]


class ClosedForm(ABC):
    """Programs of one structure that formulas solve."""

    @abstractmethod
    def solve(self, program: ConeProgram, reduced: Reduced | None) -> Certified:
        """Returns points, how many evaluations they took, and which of them are certified solutions, to rounding."""

    @abstractmethod
    def linearise(
        self, program: ConeProgram, point: Point, reduced: Reduced | None, seen: Seen, whole: Whole
    ) -> Differential:
        """Returns the derivative at solutions.

        Args:
            program: the programs.
            point: their solutions.
            reduced: the same programs, reduced.
            seen: the outputs, a linear map of x.
            whole: linearises some items as any program: those whose derivative no formula gives.
        """


def solve_by(solver: Solver, program: ConeProgram, reduced: Reduced | None, options: Options) -> Certified:
    """Returns the points of a solver that is a formula; the residual map certifies them."""
    with np.errstate(all="ignore"):
        solution = solver.solve(program if reduced is None else reduced.program, options)
        x, y, s = solution.x, solution.y, solution.s
        if reduced is not None:
            x, y, s = reduced.recover(x, y, s)
        point = evaluate(program, x, y - s, near=s)
    return point, solution.iterations, (solution.status == Status.SOLVED) & (point.merit <= EXACT)


def lifted(inverse: Inverse, reduced: Reduced) -> Inverse:
    """Returns the inverse of the full systems from that of the reduced ones."""
    m = reduced.full.structure.m
    plain = System(reduced.full, Derivative(np.ones((1, m)), IdentityBasis(m)))

    def solve(first: Vectors, second: Vectors, dual: bool) -> tuple[Vectors, Vectors, Sizes]:
        lam, mu, residual = inverse(*reduced.fold(plain, first, second), dual)
        return *reduced.expand(plain, (lam, mu), (first, second)), residual

    return solve

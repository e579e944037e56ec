"""Projections on cones and on balls; the residual map certifies each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float

from cvxlayers.batches import Run
from cvxlayers.closed.form import Certified, ClosedForm, Formula, Seen, Whole, lifted, solve_by
from cvxlayers.closed.projection_derivative import linearise_ball, linearise_cones
from cvxlayers.derivative import Differential, Point, is_smooth
from cvxlayers.idioms.isotropic import Isotropic
from cvxlayers.program import ConeProgram
from cvxlayers.reduction import Reduced, Reduction
from cvxlayers.solvers import Options, Projection


@final
@dataclass(frozen=True, eq=False)
class ProjectionForm(ClosedForm):
    """Projections on cones and on balls; see `cvxlayers.solvers.projection`.

    Attributes:
        form: of the programs that the solver sees.
        reduction: what is eliminated before.
    """

    form: Isotropic
    reduction: Reduction | None

    def solve(self, program: ConeProgram, reduced: Reduced | None) -> Certified:
        """Returns points, how many evaluations they took, and which of them are certified solutions, to rounding."""
        return solve_by(Projection(), program, reduced, Options())

    def linearise(
        self, program: ConeProgram, point: Point, reduced: Reduced | None, seen: Seen, whole: Whole
    ) -> Differential:
        """Returns the derivative at solutions; `whole` is for those next to a kink."""
        form, redundant = self.form, None if self.reduction is None else self.reduction.redundant
        if reduced is None and self.reduction is not None:
            reduced = self.reduction.eliminate(program)
        small, y, s = program if reduced is None else reduced.program, point.y[:, self._rows], point.s[:, self._rows]
        with np.errstate(all="ignore"):
            found = linearise_ball(form, small, y, s) if form.is_ball else linearise_cones(form, small, y, s)
        served = found.served & is_smooth(program, point, found.condition, redundant, found.smallest)
        if not found.unique.all() and seen(self._loose(program.structure.n)).any():
            served &= found.unique
        inverse = found.solve if reduced is None else lifted(found.solve, reduced)
        return Formula.of(program, point, inverse, found.condition, served, whole)

    @property
    def _rows(self) -> Run:
        """The rows of the programs that the solver sees."""
        return slice(None) if self.reduction is None else self.reduction.kept[1]

    def _loose(self, n: int) -> Float[np.ndarray, "1 n"]:
        """Returns which variables may move with that of the radius, which is not unique inside a ball."""
        moved, bound, reduction = np.zeros((1, n)), self.form.bound, self.reduction
        if bound is None:
            return moved
        column = bound.column if reduction is None else reduction.kept_variables[bound.column]
        moved[0, column] = 1.0
        if reduction is not None:
            moved[:, reduction.copies.columns] += reduction.copies.scaled.apply(moved)
            for stack in reduction.stacks:
                moved[0, stack.columns[(stack.support == column).any(axis=1)]] = 1.0
        return moved

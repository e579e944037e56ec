"""Projections onto cones: of matrices on the positive semidefinite ones, of vectors on second-order cones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import numpy as np

from cvxlayers.isotropic import find_isotropic, require_isotropic
from cvxlayers.program import ConeProgram, Solution, Status, Structure
from cvxlayers.solvers.items import unsolved
from cvxlayers.solvers.solver import Options, Solver


@final
class Projection(Solver):
    """One projection for all items. Has no options."""

    @property
    def name(self) -> str:
        """The name by which users choose it."""
        return "PROJECTION"

    def refusal(self, structure: Structure) -> str | None:
        """It takes a diagonal quadratic cost and one variable for each row of the cones."""
        if find_isotropic(structure) is None:
            return "it takes a diagonal quadratic cost over cones with one variable in each row"
        return None

    def native_options(self) -> Mapping[str, type]:
        """It has none."""
        return {}

    @property
    def is_formula(self) -> bool:
        """It is one."""
        return True

    def solve(self, program: ConeProgram, options: Options) -> Solution:
        """Projects s₀ = b + a q/p; leaves items unsolved whose costs weigh the rows of a cone differently."""
        solution, isotropic = unsolved(program.structure, program.batch), require_isotropic(program.structure)
        with np.errstate(all="ignore"):
            a, rho = isotropic.coefficients(program)
            wanted = program.b + program.q[:, isotropic.columns] / (a * rho)
            wanted = np.broadcast_to(wanted, solution.s.shape)
            usable = np.isfinite(wanted).all(axis=1)
            solution.s[usable] = program.structure.cone.project(wanted[usable])
            solution.y[:] = rho * (solution.s - wanted)
            solution.x[:, isotropic.columns] = (program.b - solution.s) / a
        solution.iterations[:] = 1
        solution.status[usable & np.broadcast_to(isotropic.holds(rho), usable.shape)] = Status.SOLVED
        return solution

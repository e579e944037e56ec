"""CVXPY's own reduction of a problem to a parametrised cone program, without values for the parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cvxpy as cp
from cvxpy import settings
from cvxpy.constraints import PowConeND
from cvxpy.reductions import Dgp2Dcp
from cvxpy.reductions.solvers.conic_solvers.clarabel_conif import CLARABEL

from cvxlayers.cones import Product
from cvxlayers.errors import ProblemError


class ConicForm(CLARABEL):
    """CVXPY's interface to Clarabel, stopped where the parametrised program is complete.

    Through it CVXPY keeps quadratic objectives, turns bounds and attributes of variables into rows, and stacks the
    scaled upper triangles of semidefinite constraints. Power cones of n dimensions are left out of what is supported,
    so that CVXPY splits them into three-dimensional ones.
    """

    SUPPORTED_CONSTRAINTS = [cone for cone in CLARABEL.SUPPORTED_CONSTRAINTS if cone is not PowConeND]  # noqa: RUF012

    def name(self) -> str:
        """The name that CVXPY knows it by."""
        return "CVXLAYERS"

    def apply(self, problem: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Formats the constraints and hands out the parametrised program, without evaluating it."""
        program, data, inverse_data = self._prepare_data_and_inv_data(problem)
        inverse_data[settings.OFFSET] = 0.0
        data[settings.PARAM_PROB] = program
        return data, inverse_data


@dataclass(frozen=True, eq=False)
class Conic:
    """The parametrised cone program of a problem, and the chain of reductions that led to it.

    Attributes:
        problem: the user's problem.
        program: CVXPY's `ParamConeProg`.
        chain: CVXPY's chain of reductions, ending in `ConicForm`.
        inverse_data: what the chain needs to carry a solution back.
    """

    problem: cp.Problem
    program: Any
    chain: Any
    inverse_data: list[Any]

    @property
    def cone(self) -> Product:
        """The cone, in the row order of the house."""
        dims = self.program.cone_dims
        return Product(
            zero=dims.zero,
            nonnegative=dims.nonneg,
            second_order=tuple(dims.soc),
            semidefinite=tuple(dims.psd),
            exponential=dims.exp,
            power=tuple(float(alpha) for alpha in dims.p3d),
        )

    @property
    def logarithms(self) -> dict[int, int]:
        """For geometric programs: the id of each parameter whose logarithm enters → the id of the logarithm."""
        found: dict[int, int] = {}
        for reduction in self.chain.reductions:
            if isinstance(reduction, Dgp2Dcp):
                found.update({old: new[0] for old, new in reduction.param_id_map.items()})
        return found

    @property
    def exponentials(self) -> dict[int, int]:
        """For geometric programs: the id of each variable → the id of its logarithm."""
        found: dict[int, int] = {}
        for reduction in self.chain.reductions:
            if isinstance(reduction, Dgp2Dcp):
                found.update({old: new[0] for old, new in reduction.var_id_map.items()})
        return found


def conic_form(problem: cp.Problem, gp: bool) -> Conic:
    """Reduces a problem that is known to be DPP. Nothing is cached on the problem itself."""
    twin = cp.Problem(problem.objective, problem.constraints)
    data, chain, inverse_data = twin.get_problem_data(solver=ConicForm(), gp=gp, enforce_dpp=True, solver_opts={})
    program = data[settings.PARAM_PROB]
    bounds = (program.lower_bounds, program.upper_bounds, program.lb_tensor, program.ub_tensor)
    if any(bound is not None for bound in bounds) or getattr(program, "dir_cones", None) or program.cone_dims.pnd:
        raise ProblemError(
            "CVXPY kept bounds, or cones on bare variables, apart from the rows of the program; this version of CVXPY "
            "is not supported. Write the bounds as constraints"
        )
    return Conic(problem, program, chain, inverse_data)

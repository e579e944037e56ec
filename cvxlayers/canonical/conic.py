"""CVXPY's own reduction of a problem to a parametrised cone program, without values for the parameters."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any, ClassVar

import cvxpy as cp
import numpy as np
from cvxpy import error, settings
from cvxpy.atoms.perspective import perspective
from cvxpy.atoms.suppfunc import SuppFuncAtom
from cvxpy.constraints.exponential import ExpCone
from cvxpy.constraints.nonpos import NonNeg
from cvxpy.constraints.power import PowCone3D, PowConeND
from cvxpy.constraints.psd import SvecPSD
from cvxpy.constraints.second_order import SOC
from cvxpy.constraints.zero import Zero
from cvxpy.reductions.dgp2dcp.dgp2dcp import Dgp2Dcp
from cvxpy.reductions.solvers.conic_solvers.clarabel_conif import CLARABEL
from jaxtyping import Int

from cvxlayers.cones import Product
from cvxlayers.errors import ProblemError

# The kinds of constraints, in the row order of the house.
_HOUSE_ORDER = (Zero, NonNeg, SOC, SvecPSD, ExpCone, PowCone3D)

# The attributes of a variable for which CVXPY puts a shorter one in its place.
_REPLACED = ("symmetric", "PSD", "NSD", "diag", "sparsity")


class ConicForm(CLARABEL):
    """CVXPY's interface to Clarabel, stopped where the parametrised program is complete.

    Through it CVXPY keeps quadratic objectives, turns bounds and attributes of variables into rows, and stacks the
    scaled upper triangles of semidefinite constraints. Power cones of n dimensions are left out of what is supported,
    so that CVXPY splits them into three-dimensional ones.
    """

    SUPPORTED_CONSTRAINTS: ClassVar = [cone for cone in CLARABEL.SUPPORTED_CONSTRAINTS if cone is not PowConeND]

    def name(self) -> Any:
        """The name that CVXPY knows it by."""
        return "CVXLAYERS"

    def apply(self, problem: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Formats the constraints and hands out the parametrised program, without evaluating it."""
        program, data, inverse_data = self._prepare_data_and_inv_data(problem)
        inverse_data[settings.OFFSET] = 0.0
        data[settings.PARAM_PROB] = program
        return data, inverse_data


class _Twin(cp.Problem):
    """A problem of which CVXPY finds a solver when it reduces parts of it by themselves, as with `perspective`."""

    def _construct_chain(self, *arguments: Any, **keywords: Any) -> Any:
        chain: Any = cp.Problem._construct_chain(self, *arguments, **keywords)
        chain.solver_context.solver_name = "CLARABEL"
        return chain


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

    @cached_property
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

    @cached_property
    def house_row(self) -> Int[np.ndarray, " m"]:
        """For each row of CVXPY's program, its place in the row order of the house."""
        constraints = self.program.constraints
        kinds = [_HOUSE_ORDER.index(type(constraint)) for constraint in constraints]
        ranks = np.repeat(np.array(kinds, dtype=int), [constraint.size for constraint in constraints])
        place = np.empty(len(ranks), dtype=int)
        place[np.argsort(ranks, kind="stable")] = np.arange(len(ranks))
        return place

    @cached_property
    def logarithms(self) -> dict[int, int]:
        """For geometric programs: the id of each parameter whose logarithm may enter → the id of the logarithm."""
        return self._replaced("param_id_map")

    @cached_property
    def exponentials(self) -> dict[int, int]:
        """For geometric programs: the id of each variable → the id of its logarithm."""
        return self._replaced("var_id_map")

    def _replaced(self, which: str) -> dict[int, int]:
        found: dict[int, int] = {}
        for reduction in self.chain.reductions:
            if isinstance(reduction, Dgp2Dcp):
                found.update({old: new[0] for old, new in getattr(reduction, which).items()})
        return found


def conic_form(problem: cp.Problem, gp: bool) -> Conic:
    """Reduces a problem that is known to be DPP. Nothing is cached on the problem itself.

    Raises:
        ProblemError: if CVXPY cannot reduce the problem, or to something else than is expected of it.
    """
    twin = _Twin(_objective(problem), problem.constraints)
    try:
        with warnings.catch_warnings():
            # CVXPY tells of its choice of a backend, and complains of its own reading of sparse leaves.
            warnings.filterwarnings("ignore", message="The problem has an expression with dimension greater than 2")
            warnings.filterwarnings("ignore", message="Reading from a sparse CVXPY expression")
            data, chain, inverse_data = twin.get_problem_data(
                solver=ConicForm(), gp=gp, enforce_dpp=True, solver_opts={}
            )
    except (error.DCPError, error.DGPError, error.DPPError, error.SolverError) as failure:
        raise ProblemError(f"CVXPY cannot reduce the problem to a cone program: {failure}") from failure
    except (AssertionError, AttributeError, NotImplementedError, TypeError) as failure:
        # What CVXPY raises where it knows no real form of an atom is not documented.
        if not any(leaf.is_complex() for leaf in (*problem.variables(), *problem.parameters(), *problem.constants())):
            raise
        raise ProblemError(
            "CVXPY cannot write one of the problem's atoms with complex arguments in real numbers. Write that part of "
            f"the problem with cp.real and cp.imag of them ({type(failure).__name__}: {failure})"
        ) from failure
    program = data[settings.PARAM_PROB]
    bounds = (program.lower_bounds, program.upper_bounds, program.lb_tensor, program.ub_tensor)
    # CVXPY 1.9.0 does not know cones on bare variables yet.
    apart = any(bound is not None for bound in bounds) or bool(getattr(program, "dir_cones", None))
    if apart or not all(type(constraint) in _HOUSE_ORDER for constraint in program.constraints):
        raise ProblemError(
            "CVXPY kept bounds, or cones on bare variables, apart from the rows of the program, or used a cone that "
            f"is not known here; version {version('cvxpy')} of CVXPY is not supported. Another version may do"
        )
    return Conic(problem, program, chain, inverse_data)


def _objective(problem: cp.Problem) -> cp.Minimize | cp.Maximize:
    """The objective with variables that CVXPY will replace, by their free entries, standing under two signs.

    CVXPY up to 1.9.2 loses the squares of such a variable where it stands in a quadratic atom by itself.
    """
    replaced = [v for v in problem.variables() if any(v.attributes[attribute] for attribute in _REPLACED)]
    if not replaced:
        return problem.objective
    negated = {id(variable): -variable for variable in replaced}
    kept: dict[int, Any] = {identity: -minus for identity, minus in negated.items()}
    # A copy of these would be of another function, of which CVXPY takes their arguments for all there is to know.
    kept |= {id(atom): atom for atom in _nodes(problem.objective) if isinstance(atom, perspective | SuppFuncAtom)}
    return problem.objective.tree_copy(id_objects=kept)


def _nodes(expression: Any) -> Iterator[Any]:
    yield expression
    for argument in expression.args:
        yield from _nodes(argument)

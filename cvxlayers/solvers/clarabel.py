"""Clarabel: an interior-point method for quadratic objectives over all cones.

References: Goulart, Chen, "Clarabel: An interior-point solver for conic programs with quadratic objectives" (2024).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import numpy as np
import scipy.sparse as sp

from cvxlayers.cones import Product
from cvxlayers.program import ConeProgram, Solution, Status, Structure
from cvxlayers.solvers.solver import Options, Result, Solver, row, solve_each

if TYPE_CHECKING:
    import clarabel

_STATUS = {
    "Solved": Status.SOLVED,
    "AlmostSolved": Status.INACCURATE,
    "InsufficientProgress": Status.INACCURATE,
    "PrimalInfeasible": Status.INFEASIBLE,
    "AlmostPrimalInfeasible": Status.INFEASIBLE,
    "DualInfeasible": Status.UNBOUNDED,
    "AlmostDualInfeasible": Status.UNBOUNDED,
    "MaxIterations": Status.ITERATION_LIMIT,
    "MaxTime": Status.TIME_LIMIT,
}


@final
class Clarabel(Solver):
    """Every program. Releases the GIL.

    A new solver object serves each item: `update` keeps the first item's equilibration.
    """

    @property
    def name(self) -> str:
        """The name by which users choose it."""
        return "CLARABEL"

    def refusal(self, structure: Structure) -> str | None:
        """Refuses nothing."""
        return None

    def native_options(self) -> tuple[str, ...]:
        """Clarabel's settings."""
        return (
            *("max_iter", "time_limit", "verbose", "max_step_fraction", "tol_gap_abs", "tol_gap_rel", "tol_feas"),
            *("tol_infeas_abs", "tol_infeas_rel", "tol_ktratio", "reduced_tol_gap_abs", "reduced_tol_gap_rel"),
            *("reduced_tol_feas", "reduced_tol_infeas_abs", "reduced_tol_infeas_rel", "reduced_tol_ktratio"),
            *("equilibrate_enable", "equilibrate_max_iter", "equilibrate_min_scaling", "equilibrate_max_scaling"),
            *("linesearch_backtrack_step", "min_switch_step_length", "min_terminate_step_length", "max_threads"),
            *("direct_kkt_solver", "direct_solve_method", "static_regularization_enable", "presolve_enable"),
            *("static_regularization_constant", "static_regularization_proportional", "dynamic_regularization_enable"),
            *("dynamic_regularization_eps", "dynamic_regularization_delta", "iterative_refinement_enable"),
            *("iterative_refinement_reltol", "iterative_refinement_abstol", "iterative_refinement_max_iter"),
            *("iterative_refinement_stop_ratio", "chordal_decomposition_enable", "chordal_decomposition_compact"),
            *("chordal_decomposition_merge_method", "chordal_decomposition_complete_dual"),
        )

    def solve(self, program: ConeProgram, options: Options) -> Solution:
        """Solves item by item."""
        import clarabel

        structure = program.structure
        cones, settings = _cones(structure.cone), _settings(options)
        upper = structure.P.rows <= structure.P.cols
        counts = np.bincount(structure.P.cols[upper], minlength=structure.n)
        indptr = np.concatenate([[0], np.cumsum(counts)])
        indices, shape = structure.P.rows[upper], structure.P.shape

        def solve_item(item: int) -> Result:
            P = sp.csc_matrix((row(program.P, item)[upper], indices, indptr), shape=shape)
            A = structure.A.matrix(row(program.A, item))
            solver = clarabel.DefaultSolver(P, row(program.q, item), A, row(program.b, item), cones, settings)
            found = solver.solve()
            # A status that Clarabel may add is not a solution.
            status = _STATUS.get(str(found.status), Status.NUMERICAL_ERROR)
            return Result(np.array(found.x), np.array(found.z), np.array(found.s), status, found.iterations)

        return solve_each(program, solve_item)


def _cones(cone: Product) -> list[object]:
    import clarabel

    cones: list[object] = [clarabel.ZeroConeT(cone.zero)] if cone.zero else []
    cones += [clarabel.NonnegativeConeT(cone.nonnegative)] if cone.nonnegative else []
    cones += [clarabel.SecondOrderConeT(size) for size in cone.second_order]
    cones += [clarabel.PSDTriangleConeT(order) for order in cone.semidefinite]
    cones += [clarabel.ExponentialConeT() for _ in range(cone.exponential)]
    cones += [clarabel.PowerConeT(alpha) for alpha in cone.power]
    return cones


def _settings(options: Options) -> clarabel.DefaultSettings:
    import clarabel

    settings = clarabel.DefaultSettings()
    settings.verbose = options.verbose
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = options.eps
    # Presolve drops rows by their size; the batch has its own threads.
    settings.presolve_enable, settings.max_threads = False, 1
    if options.max_iters is not None:
        settings.max_iter = options.max_iters
    if options.time_limit is not None:
        settings.time_limit = options.time_limit
    for name, value in options.native.items():
        setattr(settings, name, value)
    return settings

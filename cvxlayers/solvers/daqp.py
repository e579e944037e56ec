"""DAQP: a dual active-set method for dense, strictly convex quadratic programs; exact to rounding.

References: Arnström, Bemporad, Axehill, "A dual active-set solver for embedded quadratic programming" (2022).
"""

from __future__ import annotations

from typing import final

import numpy as np

from cvxlayers.program import ConeProgram, Solution, Status, Structure
from cvxlayers.solvers.solver import Options, Result, Solver, row, solve_each

_STATUS = {
    1: Status.SOLVED,
    2: Status.INACCURATE,
    -1: Status.INFEASIBLE,
    -2: Status.NUMERICAL_ERROR,  # cycling
    -3: Status.UNBOUNDED,
    -4: Status.ITERATION_LIMIT,
    -5: Status.NUMERICAL_ERROR,  # P is not positive definite
    -6: Status.NUMERICAL_ERROR,  # the initial working set is overdetermined
    -7: Status.TIME_LIMIT,
}
_EQUALITY = 5


@final
class DAQP(Solver):
    """Dense quadratic programs with positive definite P. An item whose P is not ends as a numerical error."""

    @property
    def name(self) -> str:
        """The name by which users choose it."""
        return "DAQP"

    def refusal(self, structure: Structure) -> str | None:
        """Refuses curved cones, and objectives that cannot be strictly convex."""
        if not structure.cone.polyhedral:
            return "it solves quadratic programs only"
        if not structure.has_full_diagonal:
            return "it needs a strictly convex quadratic objective"
        return None

    def native_options(self) -> tuple[str, ...]:
        """The settings of DAQP that bear on these programs."""
        return (
            *("primal_tol", "dual_tol", "zero_tol", "pivot_tol", "progress_tol", "cycle_tol", "iter_limit"),
            *("fval_bound", "eps_prox", "eta_prox", "sing_tol", "refactor_tol", "time_limit", "eq_reduction"),
        )

    def solve(self, program: ConeProgram, options: Options) -> Solution:
        """Solves item by item. DAQP releases the GIL."""
        import daqp

        structure = program.structure
        # eps_prox = 0: a P that is not positive definite is refused and not regularised behind our back.
        settings: dict[str, object] = {"primal_tol": min(options.eps, 1e-6), "dual_tol": 1e-12, "eps_prox": 0.0}
        if options.max_iters is not None:
            settings["iter_limit"] = options.max_iters
        if options.time_limit is not None:
            settings["time_limit"] = options.time_limit
        settings |= options.native
        H, A = np.ascontiguousarray(structure.P.dense(program.P)), np.ascontiguousarray(structure.A.dense(program.A))
        sense = np.zeros(structure.m, dtype=np.int32)
        sense[: structure.cone.zero] = _EQUALITY
        lower = program.b.copy()
        lower[:, structure.cone.zero :] = -np.inf

        def solve_item(item: int) -> Result:
            data = row(H, item), row(program.q, item), row(A, item), row(program.b, item), row(lower, item)
            x, _, flag, info = daqp.solve(*data, sense, **settings)
            # A flag that DAQP does not document is not a solution.
            return Result(x, info["lam"], None, _STATUS.get(flag, Status.NUMERICAL_ERROR), info["iterations"])

        return solve_each(program, solve_item)

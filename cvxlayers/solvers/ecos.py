"""ECOS: an interior-point method for linear objectives over orthants, second-order and exponential cones.

ECOS is licensed under the GPL-3 and is imported only where it is asked for by name.

References: Domahidi, Chu, Boyd, "ECOS: An SOCP solver for embedded systems" (2013).
"""

from __future__ import annotations

from typing import final

import numpy as np
import scipy.sparse as sp

from cvxlayers.errors import MissingDependencyError
from cvxlayers.program import ConeProgram, Solution, Status, Structure
from cvxlayers.solvers.solver import Options, Result, Solver, row, solve_each

_STATUS = {
    0: Status.SOLVED,
    10: Status.INACCURATE,
    1: Status.INFEASIBLE,
    11: Status.INFEASIBLE,
    2: Status.UNBOUNDED,
    12: Status.UNBOUNDED,
    -1: Status.ITERATION_LIMIT,
}


@final
class ECOS(Solver):
    """Programs with a linear objective and without semidefinite or power cones. Releases the GIL."""

    @property
    def name(self) -> str:
        """The name by which users choose it."""
        return "ECOS"

    def refusal(self, structure: Structure) -> str | None:
        """Refuses quadratic objectives, matrices and power cones, and programs without inequalities."""
        if structure.P.nnz:
            return "it takes linear objectives only (minimise t with sum_squares(...) <= t instead)"
        if structure.cone.semidefinite or structure.cone.power:
            return "it has no semidefinite and no power cones"
        if structure.m == structure.cone.zero:
            return "it needs at least one inequality"
        return None

    def native_options(self) -> tuple[str, ...]:
        """ECOS's settings."""
        return ("abstol", "reltol", "feastol", "abstol_inacc", "reltol_inacc", "feastol_inacc", "max_iters", "nitref")

    def solve(self, program: ConeProgram, options: Options) -> Solution:
        """Solves item by item."""
        try:
            import ecos
        except ImportError:
            raise MissingDependencyError("the solver ECOS is not installed: pip install 'cvxlayers[ecos]'") from None
        structure, cone = program.structure, program.structure.cone
        zero = cone.zero
        # ECOS has the exponential cone's coordinates as (x, z, y).
        order = np.arange(structure.m)
        first = structure.m - 3 * cone.exponential
        order[first:] = order[first:].reshape((-1, 3))[:, [0, 2, 1]].ravel()
        inequalities = order[zero:]
        dims = {"l": cone.nonnegative, "q": list(cone.second_order), "e": cone.exponential}
        settings: dict[str, object] = {"abstol": options.eps, "reltol": options.eps, "feastol": options.eps}
        settings |= {"verbose": options.verbose}
        if options.max_iters is not None:
            settings["max_iters"] = options.max_iters
        settings |= options.native

        def solve_item(item: int) -> Result:
            A, b = structure.A.matrix(row(program.A, item)).tocsr(), row(program.b, item)
            G, h = sp.csc_matrix(A[inequalities]), b[inequalities]
            equalities = {"A": sp.csc_matrix(A[:zero]), "b": b[:zero]} if zero else {}
            found = ecos.solve(row(program.q, item), G, h, dims, **equalities, **settings)
            y, s = np.zeros(structure.m), np.zeros(structure.m)
            y[:zero] = found["y"] if zero else []
            y[inequalities], s[inequalities] = found["z"], found["s"]
            status = _STATUS.get(found["info"]["exitFlag"], Status.NUMERICAL_ERROR)
            return Result(found["x"], y, s, status, found["info"]["iter"])

        return solve_each(program, solve_item)

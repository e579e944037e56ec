"""PIQP: a proximal interior-point method for quadratic and linear programs, dense or sparse.

References: Schwan, Jiang, Kuhn, Jones, "PIQP: A proximal interior-point quadratic programming solver" (2023).
"""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import Any, final

import numpy as np

from cvxlayers.errors import OptionError
from cvxlayers.program import ConeProgram, Solution, Status, Structure
from cvxlayers.solvers.items import each, select_rows, unsolved, upper_triangle
from cvxlayers.solvers.solver import Options, Solver

_STATUS = {
    "PIQP_SOLVED": Status.SOLVED,
    "PIQP_MAX_ITER_REACHED": Status.ITERATION_LIMIT,
    "PIQP_PRIMAL_INFEASIBLE": Status.INFEASIBLE,
    "PIQP_DUAL_INFEASIBLE": Status.UNBOUNDED,
}
# The dense code is faster up to this order, and beyond it where the matrices are this full.
_ALWAYS_DENSE, _DENSE_FILL, _NEVER_DENSE = 25, 0.05, 1500


@final
class PIQP(Solver):
    """Quadratic and linear programs. Holds the GIL while it solves.

    A new solver object serves each item: after `update`, a result depends on the item before. It cannot be stopped by
    the clock: an item that it has not solved after `time_limit` seconds has status TIME_LIMIT.
    """

    @property
    def name(self) -> str:
        """The name by which users choose it."""
        return "PIQP"

    def refusal(self, structure: Structure) -> str | None:
        """Refuses curved cones."""
        return None if structure.cone.polyhedral else "it takes linear constraints only"

    def native_options(self) -> Mapping[str, type]:
        """Its settings."""
        import piqp

        defaults = piqp.DenseSolver().settings
        values = {name: getattr(defaults, name) for name in dir(defaults) if not name.startswith("_")}
        return {name: type(value) for name, value in values.items() if isinstance(value, bool | int | float)}

    def solve(self, program: ConeProgram, options: Options) -> Solution:
        """Solves item by item."""
        import piqp

        structure, batch, equalities = program.structure, program.batch, program.structure.cone.zero
        kind, solution = (
            piqp.DenseSolver if prefers_dense(structure) else piqp.SparseSolver,
            unsolved(structure, batch),
        )
        P, A, G = _matrices(program)
        b, h = each(program.b[:, :equalities], batch), each(program.b[:, equalities:], batch)
        for item, data in enumerate(zip(P, each(program.q, batch), A, b, G, h, strict=True)):
            started = perf_counter()
            found = _run(kind(), data, options)
            solution.x[item] = found.x
            solution.y[item, :equalities], solution.y[item, equalities:] = found.y, found.z_u
            solution.s[item, :equalities], solution.s[item, equalities:] = 0.0, found.s_u
            status = _STATUS.get(found.info.status.name, Status.NUMERICAL_ERROR)
            late = options.time_limit is not None and perf_counter() - started > options.time_limit
            solution.status[item] = Status.TIME_LIMIT if late and status != Status.SOLVED else status
            solution.iterations[item] = found.info.iter
        return solution


def _matrices(program: ConeProgram) -> tuple[Any, Any, Any]:
    """Returns, for all items, P, the rows that are equations, and the rows that are inequalities."""
    structure, batch, equalities = program.structure, program.batch, program.structure.cone.zero
    A = select_rows(structure.A, np.arange(equalities))
    G = select_rows(structure.A, np.arange(equalities, structure.m))
    if prefers_dense(structure):
        P = each(structure.P.dense(program.P).transpose(0, 2, 1), batch)
        return P, each(A.dense(program.A), batch), each(G.dense(program.A), batch)
    upper = upper_triangle(structure.P)
    return upper.each(program.P, batch), A.each(program.A, batch), G.each(program.A, batch)


def _run(solver: Any, data: tuple[Any, ...], options: Options) -> Any:
    """Solves min ½xᵀPx + qᵀx subject to Ax = b, Gx ≤ h."""
    P, q, A, b, G, h = data
    _configure(solver.settings, options)
    solver.setup(P, q, A, b, G, None, h)
    solver.solve()
    return solver.result


def _configure(settings: Any, options: Options) -> None:
    settings.eps_abs = settings.eps_rel = options.eps
    settings.eps_duality_gap_abs = settings.eps_duality_gap_rel = options.eps
    settings.verbose = options.verbose
    if options.max_iters is not None:
        settings.max_iter = options.max_iters
    for name, value in options.native.items():
        try:
            setattr(settings, name, value)
        except (TypeError, ValueError, OverflowError) as error:
            raise OptionError(f"PIQP does not take {name}={value!r}: {error}") from error


def prefers_dense(structure: Structure) -> bool:
    """Whether dense factorisations are the faster ones for programs of this structure."""
    order = structure.n + structure.m
    full = structure.P.nnz + structure.A.nnz >= _DENSE_FILL * structure.n * order
    return order <= _ALWAYS_DENSE or (full and order <= _NEVER_DENSE)

"""SCS: a first-order method over all cones, for programs too large to factorise often.

References: O'Donoghue, "Operator splitting for a homogeneous embedding of the linear complementarity problem" (2021).
"""

from __future__ import annotations

from typing import final

import numpy as np
import scipy.sparse as sp
from jaxtyping import Int

from cvxlayers.cones import Product
from cvxlayers.program import ConeProgram, Solution, Status, Structure
from cvxlayers.solvers.solver import Options, Result, Solver, row, solve_each

_STATUS = {
    1: Status.SOLVED,
    2: Status.INACCURATE,
    -1: Status.UNBOUNDED,
    -2: Status.INFEASIBLE,
    -6: Status.UNBOUNDED,
    -7: Status.INFEASIBLE,
}
_INACCURATE_BY_LIMIT, _MOST_ITERATIONS = 2, 100_000


@final
class SCS(Solver):
    """Every program. Releases the GIL."""

    @property
    def name(self) -> str:
        """The name by which users choose it."""
        return "SCS"

    def refusal(self, structure: Structure) -> str | None:
        """Refuses programs without rows, which it cannot take."""
        return None if structure.m else "it needs at least one constraint"

    def native_options(self) -> tuple[str, ...]:
        """SCS's settings."""
        return (
            *("use_indirect", "mkl", "gpu", "normalize", "scale", "adaptive_scale", "rho_x", "max_iters", "eps_abs"),
            *("eps_rel", "eps_infeas", "alpha", "time_limit_secs", "verbose", "acceleration_lookback"),
            *("acceleration_interval", "write_data_filename", "log_csv_filename", "linear_solver"),
        )

    def solve(self, program: ConeProgram, options: Options) -> Solution:
        """Solves item by item, each from a cold start."""
        import scs

        structure = program.structure
        order = _row_order(structure.cone)
        back = np.argsort(order)
        cone = _cone(structure.cone)
        settings: dict[str, object] = {
            "eps_abs": options.eps,
            "eps_rel": options.eps,
            "verbose": options.verbose,
            "max_iters": _MOST_ITERATIONS if options.max_iters is None else options.max_iters,
        }
        if options.time_limit is not None:
            settings["time_limit_secs"] = options.time_limit
        settings |= options.native

        def solve_item(item: int) -> Result:
            data = {
                "P": sp.csc_matrix(sp.triu(structure.P.matrix(row(program.P, item)))),
                "A": sp.csc_matrix(structure.A.matrix(row(program.A, item)).tocsr()[order]),
                "b": row(program.b, item)[order],
                "c": row(program.q, item),
            }
            found = scs.SCS(data, cone, **settings).solve(warm_start=False)
            info = found["info"]
            status = _STATUS.get(info["status_val"], Status.NUMERICAL_ERROR)
            if info["status_val"] == _INACCURATE_BY_LIMIT and info["iter"] >= settings["max_iters"]:
                status = Status.ITERATION_LIMIT
            return Result(found["x"], found["y"][back], found["s"][back], status, info["iter"])

        return solve_each(program, solve_item)


def _cone(cone: Product) -> dict[str, object]:
    return {
        "z": cone.zero,
        "l": cone.nonnegative,
        "q": list(cone.second_order),
        "s": list(cone.semidefinite),
        "ep": cone.exponential,
        "p": list(cone.power),
    }


def _row_order(cone: Product) -> Int[np.ndarray, " m"]:
    """Returns our row for each row of SCS, which stacks the lower triangle of matrices by columns, and not the upper."""
    order = np.arange(cone.dim)
    start = cone.zero + cone.nonnegative + sum(cone.second_order)
    for size in cone.semidefinite:
        length = size * (size + 1) // 2
        cols, rows = np.triu_indices(size)  # the lower triangle by columns: entry (rows, cols) with rows ≥ cols
        order[start : start + length] = start + rows * (rows + 1) // 2 + cols
        start += length
    return order

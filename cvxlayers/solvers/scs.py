"""SCS: a first-order method for all cones, for programs too large to factorise often.

References: O'Donoghue, "Operator splitting for a homogeneous embedding of the linear complementarity problem" (2021).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import numpy as np
import scipy.sparse as sp
from jaxtyping import Int

from cvxlayers.cones import Product, Semidefinite
from cvxlayers.errors import OptionError
from cvxlayers.program import ConeProgram, Solution, Status, Structure
from cvxlayers.solvers.items import each, select_rows, unsolved, upper_triangle
from cvxlayers.solvers.solver import Options, Solver

_STATUS = {
    1: Status.SOLVED,
    2: Status.INACCURATE,
    -1: Status.UNBOUNDED,
    -6: Status.UNBOUNDED,
    -2: Status.INFEASIBLE,
    -7: Status.INFEASIBLE,
}
_NATIVE: Mapping[type, tuple[str, ...]] = {
    float: ("eps_abs", "eps_rel", "eps_infeas", "alpha", "rho_x", "scale", "time_limit_secs"),
    int: ("acceleration_lookback", "acceleration_interval"),
    bool: ("normalize", "adaptive_scale"),
    str: ("linear_solver", "write_data_filename", "log_csv_filename"),
}


@final
class SCS(Solver):
    """Every program. It stacks semidefinite blocks by their lower triangles, and we by the upper. Frees the GIL."""

    @property
    def name(self) -> str:
        """The name by which users choose it."""
        return "SCS"

    def refusal(self, structure: Structure) -> str | None:
        """Refuses nothing."""
        return None

    def native_options(self) -> Mapping[str, type]:
        """Its settings."""
        return {name: kind for kind, names in _NATIVE.items() for name in names}

    def solve(self, program: ConeProgram, options: Options) -> Solution:
        """Solves item by item, each from a cold start."""
        import scs

        structure, batch = program.structure, program.batch
        settings, solution = _settings(options), unsolved(structure, batch)
        order, cone = _row_order(structure.cone), _cone(structure.cone)
        P = upper_triangle(structure.P).each(program.P, batch)
        A = select_rows(structure.A, order).each(program.A, batch)
        vectors = (each(program.q, batch), each(program.b[:, order], batch))
        for item, (H, G, c, b) in enumerate(zip(P, A, *vectors, strict=True)):
            rows = {"A": G, "b": b} if structure.m else _free_row(structure.n)
            try:
                found = scs.SCS({"P": H, "c": c, **rows}, cone, **settings).solve(warm_start=False)
            except TypeError as error:
                raise OptionError(f"SCS does not take {dict(options.native)}: {error}") from error
            solution.x[item] = found["x"]
            solution.y[item, order] = found["y"][: structure.m]
            solution.s[item, order] = found["s"][: structure.m]
            solution.status[item] = _status(found["info"])
            solution.iterations[item] = found["info"]["iter"]
        return solution


def _status(info: Mapping[str, Any]) -> Status:
    """What SCS has when it reaches a limit it calls inaccurate, and says in words which limit it was."""
    if "max_iters" in info["status"]:
        return Status.ITERATION_LIMIT
    if "time_limit" in info["status"]:
        return Status.TIME_LIMIT
    return _STATUS.get(info["status_val"], Status.NUMERICAL_ERROR)


def _settings(options: Options) -> dict[str, Any]:
    """The linear solver is the bundled one: the rounding of others may depend on their threads."""
    settings: dict[str, Any] = {"eps_abs": options.eps, "eps_rel": options.eps, "eps_infeas": min(options.eps, 1e-9)}
    settings |= {"verbose": options.verbose, "linear_solver": "qdldl"}
    if options.max_iters is not None:
        settings["max_iters"] = options.max_iters
    if options.time_limit is not None:
        settings["time_limit_secs"] = options.time_limit
    return {**settings, **options.native}


def _free_row(n: int) -> dict[str, Any]:
    """SCS needs a row: 0ᵀx + s = 1, s ≥ 0, which binds nothing."""
    return {"A": sp.csc_matrix((1, n)), "b": np.ones(1)}


def _cone(cone: Product) -> dict[str, Any]:
    if not cone.dim:
        return {"l": 1}
    return {
        "z": cone.zero,
        "l": cone.nonnegative,
        "q": list(cone.second_order),
        "s": list(cone.semidefinite),
        "ep": cone.exponential,
        "p": list(cone.power),
    }


def _row_order(cone: Product) -> Int[np.ndarray, " rows"]:
    """Returns our row for each row of SCS.

    Entry (i, j), i ≤ j, of a triangle stands in our row j (j + 1) / 2 + i; SCS has column i of the lower triangle,
    which is row i of the upper one, in one piece.
    """
    order = np.arange(cone.dim)
    for block, rows in cone.blocks():
        if isinstance(block, Semidefinite):
            i, j = np.triu_indices(block.order)
            order[rows] = rows.start + j * (j + 1) // 2 + i
    return order

"""ECOS: an interior-point method for linear objectives over the orthant, second-order and exponential cones.

Its licence is GPL-3: it is an extra, imported only where a user asks for it by name.

References: Domahidi, Chu, Boyd, "ECOS: An SOCP solver for embedded systems" (2013); Serrano, "Algorithms for
unsymmetric cone optimization and an implementation for problems with the exponential cone" (2015).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import numpy as np
from jaxtyping import Int

from cvxlayers.cones import Exponential, Product
from cvxlayers.errors import MissingDependencyError
from cvxlayers.program import ConeProgram, Solution, Status, Structure
from cvxlayers.solvers.items import each, select_rows, unsolved
from cvxlayers.solvers.solver import Options, Solver

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
    """Linear objectives. It orders the exponential cone as (x, z, y), and cannot be stopped by the clock."""

    @property
    def name(self) -> str:
        """The name by which users choose it."""
        return "ECOS"

    def refusal(self, structure: Structure) -> str | None:
        """Refuses quadratic objectives, the cones that it lacks, and programs without inequalities."""
        if structure.P.nnz:
            return "it takes linear objectives only"
        if structure.cone.semidefinite or structure.cone.power:
            return "it has no semidefinite and no power cones"
        return None if structure.m > structure.cone.zero else "it needs at least one inequality"

    def native_options(self) -> Mapping[str, type]:
        """Its settings."""
        reals = ("abstol", "reltol", "feastol", "abstol_inacc", "reltol_inacc", "feastol_inacc")
        return dict.fromkeys(reals, float)

    def solve(self, program: ConeProgram, options: Options) -> Solution:
        """Solves item by item."""
        ecos = _package()
        structure, batch, equalities = program.structure, program.batch, program.structure.cone.zero
        settings, solution, order = _settings(options), unsolved(structure, batch), _row_order(structure.cone)
        cone = structure.cone
        dims = {"l": cone.nonnegative, "q": list(cone.second_order), "e": cone.exponential}
        G = select_rows(structure.A, order).each(program.A, batch)
        A = select_rows(structure.A, np.arange(equalities)).each(program.A, batch)
        vectors = (each(vector, batch) for vector in (program.q, program.b[:, order], program.b[:, :equalities]))
        for item, (rows, equations, c, h, b) in enumerate(zip(G, A, *vectors, strict=True)):
            found = ecos.solve(c, rows, h, dims, *((equations, b) if equalities else ()), **settings)
            solution.x[item] = found["x"]
            solution.y[item, order], solution.s[item, order] = found["z"], found["s"]
            solution.y[item, :equalities] = found["y"] if equalities else 0.0
            solution.s[item, :equalities] = 0.0
            solution.status[item] = _STATUS.get(found["info"]["exitFlag"], Status.NUMERICAL_ERROR)
            solution.iterations[item] = found["info"]["iter"]
        return solution


def _package() -> Any:
    try:
        import ecos
    except ImportError:
        raise MissingDependencyError("solver ECOS needs its package: pip install 'cvxlayers[ecos]'") from None
    return ecos


def _settings(options: Options) -> dict[str, Any]:
    settings: dict[str, Any] = dict.fromkeys(("abstol", "reltol", "feastol"), options.eps)
    settings["verbose"] = options.verbose
    if options.max_iters is not None:
        settings["max_iters"] = options.max_iters
    return {**settings, **options.native}


def _row_order(cone: Product) -> Int[np.ndarray, " rows"]:
    """Returns our row for each inequality of ECOS."""
    order = np.arange(cone.dim)
    for block, rows in cone.blocks():
        if isinstance(block, Exponential):
            order[rows] = rows.start + np.array([0, 2, 1])
    return order[cone.zero :]

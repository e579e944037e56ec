"""Clarabel: an interior-point method for quadratic objectives over all cones.

References: Goulart, Chen, "Clarabel: An interior-point solver for conic programs with quadratic objectives" (2024).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import numpy as np

from cvxlayers.cones import Product
from cvxlayers.errors import OptionError
from cvxlayers.program import ConeProgram, Solution, Status, Structure
from cvxlayers.solvers.items import each, select_rows, unsolved, upper_triangle
from cvxlayers.solvers.solver import Options, Solver

# Other words, as "NumericalError", and those that a later Clarabel may add, are no solution.
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
    """Every program. Its rows are ordered and scaled as ours. Frees the GIL.

    A new solver object serves each item: `update` keeps the first item's equilibration.
    """

    @property
    def name(self) -> str:
        """The name by which users choose it."""
        return "CLARABEL"

    def refusal(self, structure: Structure) -> str | None:
        """Refuses nothing."""
        return None

    def native_options(self) -> Mapping[str, type]:
        """Its settings."""
        defaults = _package().DefaultSettings()
        values = {name: getattr(defaults, name) for name in dir(defaults) if not name.startswith("_")}
        return {name: type(value) for name, value in values.items() if isinstance(value, bool | int | float | str)}

    def solve(self, program: ConeProgram, options: Options) -> Solution:
        """Solves item by item."""
        structure, batch = program.structure, program.batch
        settings, cones, solution = _settings(options), _cones(structure.cone), unsolved(structure, batch)
        P = upper_triangle(structure.P).each(program.P, batch)
        A = select_rows(structure.A, np.arange(structure.m)).each(program.A, batch)
        data = (P, each(program.q, batch), A, each(program.b, batch))
        for item, values in enumerate(zip(*data, strict=True)):
            found = _run(*values, cones, settings)
            solution.x[item], solution.y[item], solution.s[item] = found.x, found.z, found.s
            solution.status[item] = _STATUS.get(str(found.status), Status.NUMERICAL_ERROR)
            solution.iterations[item] = found.iterations
        return solution


def _package() -> Any:
    import clarabel

    return clarabel


def _run(*arguments: Any) -> Any:
    """Runs Clarabel; a panic of its Rust code, which Python does not count among its `Exception`s, becomes one."""
    try:
        return _package().DefaultSolver(*arguments).solve()
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise RuntimeError(f"Clarabel panicked: {error}") from error


def _settings(options: Options) -> Any:
    settings = _package().DefaultSettings()
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = options.eps
    settings.tol_infeas_abs = settings.tol_infeas_rel = min(options.eps, 1e-9)
    # The batch has its own threads.
    settings.max_threads, settings.verbose = 1, options.verbose
    if options.max_iters is not None:
        settings.max_iter = options.max_iters
    if options.time_limit is not None:
        settings.time_limit = options.time_limit
    for name, value in options.native.items():
        try:
            setattr(settings, name, value)
        except (TypeError, ValueError, OverflowError) as error:
            raise OptionError(f"CLARABEL does not take {name}={value!r}: {error}") from error
    return settings


def _cones(cone: Product) -> list[object]:
    clarabel = _package()
    cones: list[object] = [clarabel.ZeroConeT(cone.zero)] if cone.zero else []
    cones += [clarabel.NonnegativeConeT(cone.nonnegative)] if cone.nonnegative else []
    # A second-order cone of one row is the half-line.
    cones += [(clarabel.SecondOrderConeT if k > 1 else clarabel.NonnegativeConeT)(k) for k in cone.second_order]
    cones += [clarabel.PSDTriangleConeT(order) for order in cone.semidefinite]
    cones += [clarabel.ExponentialConeT() for _ in range(cone.exponential)]
    cones += [clarabel.PowerConeT(alpha) for alpha in cone.power]
    return cones

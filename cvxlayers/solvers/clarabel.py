"""Clarabel: an interior-point method for quadratic objectives over all cones.

References: Goulart, Chen, "Clarabel: An interior-point solver for conic programs with quadratic objectives" (2024).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, final

import numpy as np

from cvxlayers.cones import Product
from cvxlayers.errors import OptionError
from cvxlayers.program import ConeProgram, Solution, Status, Structure
from cvxlayers.solvers.items import each, select_rows, unsolved, upper_triangle
from cvxlayers.solvers.solver import Options, Solver

# Iterations within which programs of ordinary scale are solved.
_SOON = 50
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

    One solver object serves many items, without equilibration: with it, `update` would keep the first item's. What that
    does not solve soon is solved again, equilibrated, by an object of its own.
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
        series, solution = _Series(_cones(structure.cone), options), unsolved(structure, batch)
        P = upper_triangle(structure.P).each(program.P, batch)
        A = select_rows(structure.A, np.arange(structure.m)).each(program.A, batch)
        data = (P, each(program.q, batch), A, each(program.b, batch))
        for item, values in enumerate(zip(*data, strict=True)):
            found = _unpanicked(series.solve, *values)
            solution.x[item], solution.y[item], solution.s[item] = found.x, found.z, found.s
            solution.status[item] = _STATUS.get(str(found.status), Status.NUMERICAL_ERROR)
            solution.iterations[item] = found.iterations
        return solution


def _package() -> Any:
    import clarabel

    return clarabel


class _Series:
    """Solves programs of one pattern in turn."""

    def __init__(self, cones: list[object], options: Options) -> None:
        """Says how programs are set up, and how where they share a solver; they do not with settings of the caller."""
        self.cones, self.settings, self.shared = cones, _settings(options), None
        self.plain = None if options.native else _plain(options)

    def solve(self, P: Any, q: Any, A: Any, b: Any) -> Any:
        """Solves one program."""
        if self.plain is not None:
            # After a failure, the next program has a new solver.
            shared, self.shared = self.shared, None
            if shared is None:
                shared = _package().DefaultSolver(P, q, A, b, self.cones, self.plain)
            else:
                shared.update(P=P.data, q=q, A=A.data, b=b)
            found = shared.solve()
            if str(found.status) == "Solved":
                self.shared = shared
                return found
        return _package().DefaultSolver(P, q, A, b, self.cones, self.settings).solve()


def _plain(options: Options) -> Any:
    """Returns the settings under which a solver's data may be replaced."""
    settings = _settings(options)
    settings.equilibrate_enable = settings.presolve_enable = settings.input_sparse_dropzeros = False
    settings.chordal_decomposition_enable = False
    settings.max_iter = min(settings.max_iter, _SOON)
    return settings


def _unpanicked(solve: Callable[..., Any], *program: Any) -> Any:
    """Solves; a panic of Clarabel's Rust code, which Python does not count among its `Exception`s, becomes one."""
    try:
        return solve(*program)
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

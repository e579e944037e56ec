"""PIQP: a proximal interior-point method for quadratic and linear programs, dense or sparse.

References: Schwan, Jiang, Kuhn, Jones, "PIQP: A proximal interior-point quadratic programming solver" (2023).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from itertools import accumulate, repeat
from time import perf_counter
from typing import Any, final

import numpy as np

from cvxlayers.batches import Vectors
from cvxlayers.errors import OptionError
from cvxlayers.program import ConeProgram, Solution, Status, Structure
from cvxlayers.solvers.boxes import Boxes, find_boxes
from cvxlayers.solvers.items import each, select_rows, unsolved, upper_triangle
from cvxlayers.solvers.solver import Options, Solver

_STATUS = {
    "PIQP_SOLVED": Status.SOLVED,
    "PIQP_MAX_ITER_REACHED": Status.ITERATION_LIMIT,
    "PIQP_PRIMAL_INFEASIBLE": Status.INFEASIBLE,
    "PIQP_DUAL_INFEASIBLE": Status.UNBOUNDED,
}
# What it says of an item: one variable, one multiplier and one slack for each row and for each bound on a variable.
_PARTS = ("x", "y", "z_u", "s_u", "z_bu", "s_bu", "z_bl", "s_bl")
# Iterations within which programs of ordinary scale are solved.
_SOON = 30
# How near to the boundary of the cone steps go at most, the first time: that saves one in seven.
_TAU = 0.999
# The dense code is faster up to this order, and beyond it where the matrices are this full.
_ALWAYS_DENSE, _DENSE_FILL, _NEVER_DENSE = 25, 0.05, 1500


@final
class PIQP(Solver):
    """Quadratic and linear programs. Holds the GIL while it solves.

    One solver object serves many items, without equilibration: then a result has no history. What that does not solve
    soon is solved again, equilibrated, by an object of its own. It cannot be stopped by the clock: an item that it has
    not solved after `time_limit` seconds has status TIME_LIMIT.
    """

    @property
    def name(self) -> str:
        """The name by which users choose it."""
        return "PIQP"

    def refusal(self, structure: Structure) -> str | None:
        """Refuses curved cones."""
        return None if structure.cone.polyhedral else "it takes linear constraints only"

    def free_microseconds(self, structure: Structure) -> float:
        """It keeps the interpreter to itself."""
        return 0.0

    def native_options(self) -> Mapping[str, type]:
        """Its settings."""
        import piqp

        defaults = piqp.DenseSolver().settings
        values = {name: getattr(defaults, name) for name in dir(defaults) if not name.startswith("_")}
        return {name: type(value) for name, value in values.items() if isinstance(value, bool | int | float)}

    def solve(self, program: ConeProgram, options: Options) -> Solution:
        """Solves item by item."""
        import piqp

        kind = piqp.DenseSolver if prefers_dense(program.structure) else piqp.SparseSolver
        found = [(boxes, _solve(boxes, _Series(kind, options), options.time_limit)) for boxes in find_boxes(program)]
        if len(found) == 1:
            return found[0][1]
        solution = unsolved(program.structure, program.batch)
        for boxes, part in found:
            for field in fields(Solution):
                getattr(solution, field.name)[boxes.items] = getattr(part, field.name)
        return solution


def _solve(boxes: Boxes, series: _Series, time_limit: float | None) -> Solution:
    """Solves some items in turn."""
    rows = np.empty((len(boxes.items), sum(_sizes(boxes))))
    statuses, iterations = np.zeros((2, len(rows)), dtype=np.int64)
    for item, data in enumerate(_data(boxes)):
        started = perf_counter()
        found, status = series.solve(data)
        np.concatenate([getattr(found, part) for part in _PARTS], out=rows[item])
        late = time_limit is not None and perf_counter() - started > time_limit
        statuses[item] = Status.TIME_LIMIT if late and status != Status.SOLVED else status
        iterations[item] = found.info.iter
    return Solution(*_points(boxes, rows), statuses, iterations)


def _data(boxes: Boxes) -> Iterator[tuple[Any, ...]]:
    """Yields for each item P, q, the equations, the inequalities, and the bounds on the variables."""
    program, equalities = boxes.program, boxes.program.structure.cone.zero
    structure, batch, inequalities = program.structure, program.batch, boxes.kept[equalities:]
    A, G = (select_rows(structure.A, rows) for rows in (boxes.kept[:equalities], inequalities))
    if prefers_dense(structure):
        P = each(structure.P.dense(program.P).transpose(0, 2, 1), batch)
        matrices = P, each(A.dense(program.A), batch), each(G.dense(program.A), batch)
    else:
        upper = upper_triangle(structure.P)
        matrices = upper.each(program.P, batch), A.each(program.A, batch), G.each(program.A, batch)
    b, h = each(program.b[:, :equalities], batch), each(np.take(program.b, inequalities, axis=1), batch)
    found = [each(bound, batch) for bound in boxes.bounds()]
    bounds = found if boxes.bounded else [repeat(None, batch), repeat(None, batch)]
    return zip(matrices[0], each(program.q, batch), matrices[1], b, matrices[2], h, *bounds, strict=True)


class _Series:
    """Solves programs min ½xᵀPx + qᵀx subject to Ax = b, Gx ≤ h, lower ≤ x ≤ upper of one pattern in turn."""

    def __init__(self, kind: Callable[[], Any], options: Options) -> None:
        """Makes the solver that programs share; they do not with settings of the caller."""
        self.kind, self.options, self.shares = kind, options, not options.native
        self.shared, self.is_new = self._plain(), True

    def solve(self, data: tuple[Any, ...]) -> tuple[Any, Status]:
        """Solves one program; returns what PIQP says of it, and its status."""
        P, q, A, b, G, h, lower, upper = data
        # An update without lower bounds of the rows would keep those that PIQP gave rows without an upper one.
        rows = P, q, A, b, G, np.full(h.shape, -np.inf), h, lower, upper
        if self.shares:
            (self.shared.setup if self.is_new else self.shared.update)(*rows)
            self.shared.solve()
            self.is_new = False
            if (status := _status(self.shared)) == Status.SOLVED:
                return self.shared.result, status
            self.shared, self.is_new = self._plain(), True
        own = self._new()
        own.setup(*rows)
        own.solve()
        return own.result, _status(own)

    def _plain(self) -> Any:
        solver = self._new()
        solver.settings.preconditioner_iter, solver.settings.tau = 0, _TAU
        solver.settings.max_iter = min(solver.settings.max_iter, _SOON)
        return solver

    def _new(self) -> Any:
        solver = self.kind()
        _configure(solver.settings, self.options)
        return solver


def _sizes(boxes: Boxes) -> tuple[int, ...]:
    """Returns how many numbers each part of what PIQP says of an item has."""
    n, equalities = boxes.program.structure.n, boxes.program.structure.cone.zero
    inequalities = len(boxes.kept) - equalities
    return n, equalities, inequalities, inequalities, n, n, n, n


def _status(solver: Any) -> Status:
    return _STATUS.get(solver.result.info.status.name, Status.NUMERICAL_ERROR)


def _points(boxes: Boxes, rows: Vectors) -> tuple[Vectors, Vectors, Vectors]:
    """Takes the items' x, y and s from what PIQP says of them, side by side."""
    sizes, equalities, m = _sizes(boxes), boxes.program.structure.cone.zero, boxes.program.structure.m
    parts = (rows[:, stop - size : stop] for stop, size in zip(accumulate(sizes), sizes, strict=True))
    x, of_equations, z, slack, z_upper, s_upper, z_lower, s_lower = parts
    y, s = np.zeros((2, len(rows), m))
    y[:, boxes.kept[:equalities]] = of_equations
    y[:, boxes.kept[equalities:]], s[:, boxes.kept[equalities:]] = z, slack
    for side, multipliers, slacks in ((boxes.upper, z_upper, s_upper), (boxes.lower, z_lower, s_lower)):
        if len(side.rows):
            y[:, side.rows] = side.multipliers(multipliers)
            s[:, side.rows] = slacks[:, side.columns] * side.sizes
    return x.copy(), y, s


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

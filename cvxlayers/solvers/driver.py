"""The batch driver: cuts a batch into chunks over threads, checks what solvers claim, falls back where they fail."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import reduce
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Bool, Int, TypeCheckError

from cvxlayers.batches import every, some
from cvxlayers.errors import CvxlayersError, CvxlayersWarning
from cvxlayers.parallel import chunks, map_chunks, worthwhile_chunks
from cvxlayers.program import ConeProgram, Solution, Status
from cvxlayers.residual import Point, evaluate, start
from cvxlayers.solvers.certificate import certify
from cvxlayers.solvers.items import unsolved
from cvxlayers.solvers.optimality import violation
from cvxlayers.solvers.registry import Plan
from cvxlayers.solvers.scaling import Scaling, scale
from cvxlayers.solvers.solver import Options, Solver

T = TypeVar("T", Point, Solution)

# Relative violation of the optimality conditions up to which a point that its solver calls inaccurate is accurate
# after all, and beyond which one that its solver calls solved is inaccurate; the polish rescues what lies between.
_SOLVED, _ROUGH = 1e-8, 1e-6
# Relative residual of the point next to it where y or s of each inequality is zero, up to which the polish takes over.
_NEAR = 1e-5
# By status: which items no other solver is worth asking about, and the order of outcomes, solved, proven to have no
# solution, inaccurate, and all others.
_SETTLED = np.isin(list(Status), [Status.SOLVED, Status.INFEASIBLE, Status.UNBOUNDED, Status.TIME_LIMIT])
_RANK = np.full(len(Status), 3)
_RANK[[Status.SOLVED, Status.INFEASIBLE, Status.UNBOUNDED, Status.INACCURATE]] = 0, 1, 1, 2
# Bytes of dense matrices that may be in memory at once.
_MEMORY = 2**26


@dataclass(frozen=True, eq=False)
class Outcome:
    """The solution of a batch, and which solver served each item.

    Attributes:
        solution: points and statuses.
        names: the solvers of the plan, in order.
        served: per item, the position in `names` of the solver whose result it has; −1 where none was asked.
        point: the residual map at these points, where it is what they were judged by.
    """

    solution: Solution
    names: tuple[str, ...]
    served: Int[np.ndarray, "#batch"]
    point: Point | None = None

    def item(self, index: Int[np.ndarray, " k"]) -> Outcome:
        """Returns the outcome of some items."""
        return Outcome(_item(self.solution, index), self.names, self.served[index])

    @property
    def solvers(self) -> list[str]:
        """The name of the solver whose result each item has; "" where none was asked."""
        return [self.names[index] if index >= 0 else "" for index in self.served.tolist()]

    @property
    def is_first_choice(self) -> bool:
        """Whether the first solver of the plan solved every item."""
        return not some(self.served) and not some(self.solution.status)

    @property
    def fell_back(self) -> Bool[np.ndarray, "#batch"]:
        """Which items have the result of a fallback."""
        return self.served > 0


class _Served(NamedTuple):
    """The solution of a batch, which solver of the plan served each item, and the residual map if it was asked."""

    solution: Solution
    served: Int[np.ndarray, "#batch"]
    point: Point | None


class _Attempt(NamedTuple):
    """What one solver found.

    Settled are items that are solved, out of time, or proven by a certificate that the solver meant as one. An iterate
    that happens to certify something is proof only if no other solver knows better.
    """

    solution: Solution
    settled: Bool[np.ndarray, "#batch"]
    point: Point | None


def solve_batch(program: ConeProgram, plan: Plan, options: Options, threads: int) -> Outcome:
    """Solves every item of a batch; no item's result depends on the others, on their order, or on the threads.

    Items with NaN or infinite data are INVALID_INPUT, and no solver sees them. What a solver does not solve, the
    plan's fallbacks try once each. INFEASIBLE and UNBOUNDED are only said with a certificate that holds.
    """
    names = tuple(solver.name for solver in plan.solvers)
    finite = _finite(program)
    if every(finite):
        solution, served, point = _solve(program, plan, options, threads)
        return Outcome(solution, names, served, point)
    solution, served = unsolved(program.structure, program.batch), np.full(program.batch, -1)
    solution.status[:] = Status.INVALID_INPUT
    finite = np.flatnonzero(np.broadcast_to(finite, (program.batch,)))
    if len(finite):
        part, who, _ = _solve(program.item(finite), plan, options, threads)
        solution, served[finite] = _put(solution, finite, part), who
    return Outcome(solution, names, served)


def _finite(program: ConeProgram) -> Bool[np.ndarray, "#batch"]:
    return np.isfinite(reduce(np.maximum, program.sizes))


def _solve(program: ConeProgram, plan: Plan, options: Options, threads: int) -> _Served:
    """Solves a batch of finite programs."""
    structure, primary = program.structure, plan.primary
    pieces = worthwhile_chunks(program.batch, threads, primary.free_microseconds(structure))
    dense = program.batch * primary.dense_bytes(structure) // _MEMORY
    if not dense:
        primary.prepare(program, threads)
    pieces = pieces if len(pieces) > dense else chunks(program.batch, dense + 1)
    results = map_chunks(lambda piece: _solve_chunk(program.item(piece), plan, options), pieces, threads)
    if len(results) == 1:
        return results[0]
    solutions, served, points = zip(*results, strict=True)
    known = [point for point in points if point is not None]
    point = _joined(Point, known) if len(known) == len(points) else None
    return _Served(_joined(Solution, solutions), np.concatenate(served), point)


def _solve_chunk(program: ConeProgram, plan: Plan, options: Options) -> _Served:
    solution, settled, point = _attempt(program, plan.primary, options)
    served = np.zeros(program.batch, dtype=np.int64)
    if every(settled):
        return _Served(solution, served, point)
    # The native options are the primary solver's: the others would not know them.
    common = replace(options, native={})
    for position, solver in enumerate(plan.fallbacks, start=1):
        pending = np.flatnonzero(~settled)
        if not len(pending):
            break
        second, settled[pending] = _attempt_again(program.item(pending), solver, common)
        better = _RANK[second.status] < _RANK[solution.status[pending]]
        served[pending[better]] = position
        solution = _put(solution, pending[better], _item(second, np.flatnonzero(better)))
    return _Served(solution, served, None)


def _attempt_again(
    program: ConeProgram, solver: Solver, options: Options
) -> tuple[Solution, Bool[np.ndarray, "#batch"]]:
    """Solves with a fallback, whose dense matrices the chunk was not cut for."""
    pieces = chunks(program.batch, program.batch * solver.dense_bytes(program.structure) // _MEMORY + 1)
    solutions, settled, _ = zip(*(_attempt(program.item(piece), solver, options) for piece in pieces), strict=True)
    return _joined(Solution, solutions), np.concatenate(settled)


def _attempt(program: ConeProgram, solver: Solver, options: Options) -> _Attempt:
    """Solves with one solver, and replaces what it says of each item by what the data say."""
    scaling = Scaling(program) if solver.is_unit_free else scale(program)
    solution = scaling.restore(_guarded(scaling.program, solver, options))
    point = _nearest(program, solution, solver.is_precise)
    status, near = solution.status, np.zeros(program.batch, dtype=bool)
    if point is not None:
        # The residual map says more than the violation of an optimality condition.
        limit = _SOLVED if solver.is_precise else max(options.eps, _NEAR)
        near = (status == Status.SOLVED) & (point.merit <= limit)
        if every(near):
            return _Attempt(solution, near, point)
    residual, claimed = violation(program, solution), _SETTLED[status]
    close = residual <= np.where(status == Status.INACCURATE, max(options.eps, _SOLVED), 0.0)
    rough = (status == Status.SOLVED) & (residual > max(options.eps, _ROUGH)) & ~near
    status = np.where(close, Status.SOLVED, np.where(rough, Status.INACCURATE, status))
    solution = replace(solution, status=status)
    doubtful = np.flatnonzero(status != Status.SOLVED)
    if len(doubtful):
        solution = _put(solution, doubtful, certify(program.item(doubtful), _item(solution, doubtful)))
    return _Attempt(solution, _SETTLED[solution.status] & (claimed | (solution.status == Status.SOLVED)), point)


def _nearest(program: ConeProgram, solution: Solution, precise: bool) -> Point | None:
    """Returns the residual map where the polish will start from; None on curved cones, but for precise points."""
    if not (precise or program.structure.cone.polyhedral):
        return None
    y, s = solution.y, solution.s
    with np.errstate(invalid="ignore", over="ignore"):  # what is not solved may be infinite
        v = y - s if precise else start(program.structure.cone, y, s)
        return evaluate(program, solution.x, v, near=s)


def _guarded(program: ConeProgram, solver: Solver, options: Options) -> Solution:
    """Solves; an item on which the solver raises has failed, and the others of its chunk have not.

    The catch is as broad as it is because what foreign solvers raise is not documented: all of them raise ValueError or
    RuntimeError on some data, and through their bindings anything else.
    """
    try:
        return solver.solve(program, options)
    except (CvxlayersError, TypeCheckError):  # an annotation that does not hold is our mistake
        raise
    except Exception as error:
        if program.batch == 1:
            message = f"{solver.name} raised {type(error).__name__} ({error}); the item counts as a numerical error"
            warnings.warn(message, CvxlayersWarning, stacklevel=2)
            return unsolved(program.structure, 1)
    solution = unsolved(program.structure, program.batch)
    for item in range(program.batch):
        solution = _put(solution, np.array([item]), _guarded(program.item(slice(item, item + 1)), solver, options))
    return solution


def _joined(kind: type[T], parts: Sequence[T]) -> T:
    """Puts the arrays of consecutive items together."""
    columns = ([getattr(part, field.name) for part in parts] for field in fields(kind))
    return kind(*(np.concatenate(column) for column in columns))


def _item(solution: Solution, index: Int[np.ndarray, " k"]) -> Solution:
    return Solution(*(getattr(solution, field.name)[index] for field in fields(Solution)))


def _put(solution: Solution, index: Int[np.ndarray, " k"], part: Solution) -> Solution:
    """Returns the solution with the items `index` replaced."""
    columns = [getattr(solution, field.name).copy() for field in fields(Solution)]
    for column, field in zip(columns, fields(Solution), strict=True):
        column[index] = getattr(part, field.name)
    return Solution(*columns)

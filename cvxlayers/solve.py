"""From cone programs to polished solutions, by what a kernel chose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from cvxlayers.batches import Vectors, spread_rows
from cvxlayers.blas import one_thread
from cvxlayers.closed import solve_by
from cvxlayers.cones import Derivative, IdentityBasis
from cvxlayers.derivative import (
    Factorise,
    Keeper,
    Known,
    Point,
    System,
    evaluate,
    improve,
    polish,
    start,
)
from cvxlayers.errors import ShapeError
from cvxlayers.kernel import Kernel
from cvxlayers.program import ConeProgram, Solution, Status, is_usable
from cvxlayers.reduction import Reduced
from cvxlayers.result import WarmStart
from cvxlayers.solvers import Options, Outcome, Plan, solve_batch

# Accuracy that Newton's method must reach from a warm start, for a solver not to be asked.
_EXACT = 1e-12
# Accuracy that curved programs are solved to before the polish; on exponential and power cones, whose boundaries bend,
# this much saves one of its steps.
_START, _START_BENT = 1e-7, 1e-8
# Accuracy of a polished point beyond which its program is solved again, unless the caller asked for less than the other
# number, and how accurately then.
_FINE, _ASKED, _TIGHT = 1e-12, 1e-8, 1e-13
# How many times its size a multiplier counts when it is judged which inequalities are active: where the objective
# hardly feels a variable, the multiplier of its bound is tiny beside the others.
_BIASES = (1.0, 1e8)
# Bytes of an item's factors up to which programs without inequalities are solved by a Newton step, and of a batch's
# factors up to which they are kept for its derivatives.
_STEP, _KEPT = 2**19, 2**25


@dataclass(frozen=True)
class CallOptions:
    """What one call asks for."""

    solver: Options
    plan: Plan
    on_failure: str
    threads: int


class Solved(NamedTuple):
    """What a solve returns: how it ended, the polished points, and the factors that polished them, if they are kept."""

    outcome: Outcome
    point: Point
    known: Known | None


def solve_programs(
    kernel: Kernel, program: ConeProgram, reduced: Reduced | None, options: CallOptions, warm_start: WarmStart | None
) -> Solved:
    """Solves and polishes every item; where Newton's method succeeds from the warm start, without a solver.

    A program that only has equalities is solved by one step from anywhere.
    """
    plan = options.plan.of(program.batch)
    options = options if plan is options.plan else replace(options, plan=plan)
    if warm_start is None and options.plan.primary.is_formula and program.batch:
        return Solved(*_by_formula(kernel, program, reduced, options), None)
    direct = options.plan.primary.name == "DIRECT" and kernel.factor_bytes <= _STEP
    keeps = kernel.structure.cone.polyhedral and program.batch * kernel.factor_bytes <= _KEPT
    keeper = Keeper(program.batch if keeps else -1)
    if warm_start is None and not direct:
        return Solved(*_solve_cold(kernel, program, reduced, options, keeper), keeper.known)
    with np.errstate(invalid="ignore", over="ignore"):  # items of invalid data, which the solver will refuse
        point = _newton(kernel, program, reduced, warm_start, options.threads, keeper)
        cold = np.flatnonzero(~(point.accuracy(program) <= _EXACT))
    names, zeros = tuple(solver.name for solver in options.plan.solvers), np.zeros(program.batch, dtype=np.int64)
    served, iterations = (zeros - 1, zeros) if warm_start is not None else (zeros, zeros + 1)
    outcome = Outcome(Solution(point.x, point.y, point.s, zeros, iterations), names, served)
    if not len(cold):
        return Solved(outcome, point, keeper.known)
    left = None if reduced is None else reduced.item(cold)
    solved, polished = _solve_cold(kernel, program.item(cold), left, options, Keeper(-1))
    return Solved(_put(outcome, cold, solved), point.put(cold, polished), keeper.known)


def _by_formula(
    kernel: Kernel, program: ConeProgram, reduced: Reduced | None, options: CallOptions
) -> tuple[Outcome, Point]:
    """Solves every item by formulas, and what they do not certify as any program."""
    if kernel.closed is not None:
        point, count, sure = kernel.closed.solve(program, reduced)
    else:
        point, count, sure = solve_by(options.plan.primary, program, reduced, options.solver)
    names, none = tuple(solver.name for solver in options.plan.solvers), np.zeros(program.batch, dtype=np.int64)
    outcome = Outcome(Solution(point.x, point.y, point.s, none, count), names, none)
    if sure.all():
        return outcome, point
    left = np.flatnonzero(~sure)
    rest = None if reduced is None else reduced.item(left)
    with one_thread(len(left) > 1 or kernel.is_delayed):
        solved, polished = _solve_cold(kernel, program.item(left), rest, options, Keeper(-1))
    return _put(outcome, left, solved), point.compact().put(left, polished.compact())


def _newton(
    kernel: Kernel,
    program: ConeProgram,
    reduced: Reduced | None,
    warm_start: WarmStart | None,
    threads: int,
    keeper: Keeper,
) -> Point:
    """Returns where Newton's method comes from a warm start, or without inequalities, from anywhere.

    That is done in the reduced programs; a point of the full ones is only checked, and moved where that helps.
    """
    small, plain = program if reduced is None else reduced.program, kernel.plain(threads, keeper)
    if warm_start is None:
        x, v = _stationary(small, plain)
    else:
        pairs = zip((warm_start.x, warm_start.v), (kernel.full.n, kernel.full.m), strict=True)
        x, v = (_started(*pair, program.batch) for pair in pairs)
        if kernel.reduction is not None:
            x, v = x[:, kernel.reduction.kept_variables], v[:, kernel.reduction.kept_rows]
    point = polish(small, x, v, plain)
    if reduced is None:
        return point
    x, y, s = reduced.recover(point.x, point.y, point.s)
    return polish(program, x, y - s, kernel.factoriser(threads, reduced))


def _solve_cold(
    kernel: Kernel, program: ConeProgram, reduced: Reduced | None, options: CallOptions, keeper: Keeper
) -> tuple[Outcome, Point]:
    """Solves and polishes every item, without a point to start from."""
    outcome = _solve(program, reduced, _at_first(kernel, options))
    outcome, point = _polish(kernel, program, reduced, outcome, options.threads, keeper)
    return _again(kernel, program, reduced, options, outcome, point)


def _at_first(kernel: Kernel, options: CallOptions) -> CallOptions:
    """Asks for no more than the polish needs to start from: on curved cones it gains more than further steps."""
    if kernel.structure.cone.polyhedral:
        return options
    first = _START_BENT if kernel.structure.cone.exponential or kernel.structure.cone.power else _START
    return replace(options, solver=replace(options.solver, eps=max(options.solver.eps, first)))


def _again(
    kernel: Kernel, program: ConeProgram, reduced: Reduced | None, options: CallOptions, outcome: Outcome, point: Point
) -> tuple[Outcome, Point]:
    """Solves more tightly what is still rough after the polish, with the plan's first solvers in turn.

    An interior point that stops early may lie beside the wrong face, where no Newton step helps: then what is left of
    the residual is no rounding, but as a rule a multiplier that is missing.
    """
    if point.is_exact:
        return outcome, point
    enough = _FINE if options.solver.eps <= _ASKED else options.solver.eps
    # What is precise is as tight as it can be.
    tightened = [pair for pair in enumerate(options.plan.solvers) if not pair[1].is_precise]
    for position, solver in tightened[:2]:
        rough = is_usable(outcome.solution.status) & ~(point.accuracy(program) <= enough)
        items = np.flatnonzero(rough)
        if not len(items):
            break
        native = options.solver.native if position == 0 else {}
        tight = replace(options.solver, eps=_TIGHT, native=native)
        part = replace(options, plan=Plan(solver), solver=tight)
        lower = None if reduced is None else reduced.item(items)
        rest = program.item(items)
        ended = _judged_by_points(_solve(rest, lower, part))
        for bias in _BIASES:
            solved, polished = _polish(kernel, rest, lower, ended, options.threads, Keeper(-1), bias)
            usable = is_usable(solved.solution.status)
            better = np.flatnonzero(usable & (polished.accuracy(rest) < point.item(items).accuracy(rest)))
            served = np.full(len(items), position)
            outcome = _put(outcome, items[better], replace(solved.item(better), served=served[better]))
            point = point.put(items[better], polished.item(better))
    return outcome, point


def _solve(program: ConeProgram, reduced: Reduced | None, options: CallOptions) -> Outcome:
    """Solves the programs, or where they are reduced, the reduced ones."""
    return solve_batch(program if reduced is None else reduced.program, options.plan, options.solver, options.threads)


def _polish(
    kernel: Kernel,
    program: ConeProgram,
    reduced: Reduced | None,
    outcome: Outcome,
    threads: int,
    keeper: Keeper,
    bias: float = 1.0,
) -> tuple[Outcome, Point]:
    """Polishes the items that have a solution, of reduced programs these first; the others keep the last point.

    Returns:
        The outcome for the programs themselves, and the polished points.
    """
    if reduced is None:
        return outcome, _polished(program, outcome, lambda _: kernel.plain(threads, keeper), bias)

    def factoriser(items: Int[np.ndarray, " k"] | None) -> Factorise:
        return kernel.factoriser(threads, reduced if items is None else reduced.item(items))

    small = _polished(reduced.program, outcome, lambda _: kernel.plain(threads, keeper), bias)
    x, y, s = reduced.recover(small.x, small.y, small.s)
    solution = Solution(x, y, s, outcome.solution.status, outcome.solution.iterations)
    full = Outcome(solution, outcome.names, outcome.served)
    return full, _polished(program, full, factoriser)


def _polished(
    program: ConeProgram,
    outcome: Outcome,
    factoriser: Callable[[Int[np.ndarray, " k"] | None], Factorise],
    bias: float = 1.0,
) -> Point:
    """Polishes the items that have a solution, given how those of an index are factorised; None means all."""
    solution = outcome.solution
    promising = is_usable(solution.status).nonzero()[0]
    if len(promising) == program.batch and outcome.point is not None and bias == 1.0:
        return improve(program, outcome.point, factoriser(None))
    x, v = solution.x, start(program.structure.cone, solution.y, solution.s, bias)
    if len(promising) == program.batch:
        return polish(program, x, v, factoriser(None), near=solution.s)
    with np.errstate(invalid="ignore", over="ignore"):  # points of items without a solution may be infinite
        point = evaluate(program, x, v)
    if not len(promising):
        return point
    near = solution.s[promising]
    polished = polish(program.item(promising), x[promising], v[promising], factoriser(promising), near=near)
    return point.put(promising, polished)


def _stationary(program: ConeProgram, factorise: Factorise) -> tuple[Vectors, Vectors]:
    """Returns x and y where the Lagrangian of programs without inequalities is stationary."""
    structure, batch = program.structure, program.batch
    system = System(program, Derivative(np.ones((batch, structure.m)), IdentityBasis(structure.m)))
    q, b = (spread_rows(part, batch) for part in (program.q, program.b))
    return factorise(system).once(-q, b)


def _judged_by_points(outcome: Outcome) -> Outcome:
    """Returns the outcome with what ended early as inaccurate: how accurate its points are, their residuals say."""
    status, points = outcome.solution.status, (outcome.solution.x, outcome.solution.y, outcome.solution.s)
    finite = np.all([np.isfinite(part).all(axis=1) for part in points], axis=0)
    early = finite & np.isin(status, (Status.ITERATION_LIMIT, Status.TIME_LIMIT, Status.NUMERICAL_ERROR))
    status = np.where(early, Status.INACCURATE, status)
    return replace(outcome, solution=replace(outcome.solution, status=status))


def _started(array: Vectors, size: int, batch: int) -> Vectors:
    if array.shape[1] != size:
        raise ShapeError("the warm start comes from a layer of another problem")
    if len(array) not in (1, batch):
        raise ShapeError(f"the warm start comes from a batch of {len(array)}, this call's batch is {batch}")
    return np.array(np.broadcast_to(array, (batch, size)))


def _put(outcome: Outcome, index: Int[np.ndarray, " k"], part: Outcome) -> Outcome:
    """Returns the outcome with the items `index` replaced."""
    columns = {field.name: getattr(outcome.solution, field.name).copy() for field in fields(Solution)}
    for name, column in columns.items():
        column[index] = getattr(part.solution, name)
    served = outcome.served.copy()
    served[index] = part.served
    return replace(outcome, solution=Solution(**columns), served=served, point=None)

"""From cone programs to polished solutions, and to the factorised systems of their derivatives.

A kernel is what compilation chose for one structure: what is eliminated before the solver, and how the systems are
factorised. Programs and points outside it are always the full ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from cvxlayers.batches import Vectors, spread_rows
from cvxlayers.blas import one_thread_each
from cvxlayers.closed import ClosedForm, solve_by
from cvxlayers.compiled import VariableMap
from cvxlayers.cones import Derivative, IdentityBasis
from cvxlayers.coordinates import require_coordinates
from cvxlayers.derivative import (
    DerivativeInfo,
    Factorisation,
    Factorise,
    Keeper,
    Known,
    Lifted,
    Method,
    Point,
    System,
    central_point,
    evaluate,
    factorise,
    improve,
    polish,
    start,
    without_rows,
)
from cvxlayers.errors import ShapeError
from cvxlayers.kkt import band_of, dense_microseconds, stored
from cvxlayers.program import ConeProgram, Solution, Status, Structure
from cvxlayers.reduction import Reduced, Reduction
from cvxlayers.result import WarmStart
from cvxlayers.solvers import Options, Outcome, Plan, solve_batch

# Accuracy that Newton's method must reach from a warm start, for a solver not to be asked.
_EXACT = 1e-12
# Accuracy that curved programs are solved to before the polish; on exponential and power cones, whose boundaries bend,
# this much saves one of its steps.
_START, _START_BENT = 1e-7, 1e-8
# Accuracy of a polished point beyond which its program is solved again, and how accurately then.
_ROUGH, _TIGHT = 1e-8, 1e-13
_DOUBLE, _INDEX = 8, 4
# Bytes of an item's factors up to which programs without inequalities are solved by a Newton step, and of a batch's
# factors up to which they are kept for its derivatives.
_STEP, _KEPT = 2**19, 2**25
# How many numbers a structured factorisation keeps for each unknown.
_VECTORS = 12
# And how many a formula does.
_FORMULA = 4


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


@dataclass(frozen=True, eq=False)
class Kernel:
    """How the programs of one structure are solved and differentiated.

    Attributes:
        full: their structure.
        reduction: what is eliminated before the solver.
        method: how the systems are factorised.
        closed: the formulas of the programs, where they have any.
    """

    full: Structure
    reduction: Reduction | None
    method: Method
    closed: ClosedForm | None = None

    @property
    def structure(self) -> Structure:
        """The structure of the programs that the solver sees."""
        return self.full if self.reduction is None else self.reduction.structure

    @property
    def redundant(self) -> Int[np.ndarray, " _count"] | None:
        """The rows of the full programs that say nothing new."""
        return None if self.reduction is None else self.reduction.redundant

    def shares(self, outputs: VariableMap) -> bool:
        """Whether outputs are multipliers that repeated rows could share in other ways."""
        return self.reduction is not None and bool(self.reduction.repeated.asked(outputs.y.inputs).any())

    def tell(
        self, info: DerivativeInfo, listed: Bool[np.ndarray, " m"], y: Vectors, cotangent: Vectors | None = None
    ) -> DerivativeInfo:
        """Returns how far to trust a derivative of multipliers; see `Repeated.tell`."""
        return info if self.reduction is None else self.reduction.repeated.tell(info, listed, y, cotangent)

    @property
    def is_small(self) -> bool:
        """Whether an item is many products of small matrices, which threads of BLAS only delay."""
        return self.method in (Method.CONDENSED, Method.COORDINATES)

    @property
    def uses_blas(self) -> bool:
        """Whether linear algebra takes much of an item's time: formulas have none, but for eigenvectors."""
        return self.closed is None or bool(self.full.cone.semidefinite)

    @property
    def free_microseconds(self) -> float:
        """About how long the factorisation of one item's system leaves the interpreter to other threads."""
        if self.closed is not None or self.method.is_structured or self.method is Method.BANDED:
            return 0.0
        return dense_microseconds(self.structure.n + self.structure.m)

    @property
    def factor_bytes(self) -> int:
        """About how much memory one item's system and its factors take."""
        structure = self.structure
        order = structure.n + structure.m
        if self.closed is not None:
            return _FORMULA * order * _DOUBLE
        if self.method is Method.CONDENSED:
            return _DOUBLE * (2 * structure.n * structure.m + order * order // 4)
        if self.method is Method.COORDINATES:
            few = require_coordinates(structure).few
            return _DOUBLE * (2 * few * structure.m + 4 * few * few)
        if self.method.is_structured:
            return _VECTORS * order * _DOUBLE
        if self.method is Method.CHOLESKY:
            return _DOUBLE * (structure.n**2 + structure.n * structure.m + 2 * structure.m**2)
        if self.method is Method.DENSE:
            return 2 * order * order * _DOUBLE
        if self.method is Method.BANDED:
            return order * (3 * band_of(structure).width + 1) * _DOUBLE
        if self.method is Method.SCHUR:
            return structure.m**2 * _DOUBLE
        return 3 * stored(structure) * (_DOUBLE + _INDEX)

    def reduce(self, program: ConeProgram) -> Reduced | None:
        """Eliminates what the structure allows; None where that is nothing."""
        return None if self.reduction is None else self.reduction.eliminate(program)

    def solve(
        self, program: ConeProgram, reduced: Reduced | None, options: CallOptions, warm_start: WarmStart | None
    ) -> Solved:
        """Solves and polishes every item; where Newton's method succeeds from the warm start, without a solver.

        A program that only has equalities is solved by one step from anywhere.
        """
        options = replace(options, plan=options.plan.of(program.batch))
        if warm_start is None and options.plan.primary.is_formula and program.batch:
            return Solved(*self._by_formula(program, reduced, options), None)
        direct = options.plan.primary.name == "DIRECT" and self.factor_bytes <= _STEP
        keeps = self.structure.cone.polyhedral and program.batch * self.factor_bytes <= _KEPT
        keeper = Keeper(program.batch if keeps else -1)
        if warm_start is None and not direct:
            return Solved(*self._solve_cold(program, reduced, options, keeper), keeper.known)
        with np.errstate(invalid="ignore", over="ignore"):  # items of invalid data, which the solver will refuse
            point = self._newton(program, reduced, warm_start, options.threads, keeper)
            cold = np.flatnonzero(~(point.accuracy(program) <= _EXACT))
        names, zeros = tuple(solver.name for solver in options.plan.solvers), np.zeros(program.batch, dtype=np.int64)
        served, iterations = (zeros - 1, zeros) if warm_start is not None else (zeros, zeros + 1)
        outcome = Outcome(Solution(point.x, point.y, point.s, zeros, iterations), names, served)
        if not len(cold):
            return Solved(outcome, point, keeper.known)
        left = None if reduced is None else reduced.item(cold)
        solved, polished = self._solve_cold(program.item(cold), left, options, Keeper(-1))
        return Solved(_put(outcome, cold, solved), point.put(cold, polished), keeper.known)

    def _by_formula(self, program: ConeProgram, reduced: Reduced | None, options: CallOptions) -> tuple[Outcome, Point]:
        """Solves every item by formulas, and what they do not certify as any program."""
        if self.closed is not None:
            point, count, sure = self.closed.solve(program, reduced)
        else:
            point, count, sure = solve_by(options.plan.primary, program, reduced, options.solver)
        names, none = tuple(solver.name for solver in options.plan.solvers), np.zeros(program.batch, dtype=np.int64)
        outcome = Outcome(Solution(point.x, point.y, point.s, none, count), names, none)
        if sure.all():
            return outcome, point
        left = np.flatnonzero(~sure)
        rest = None if reduced is None else reduced.item(left)
        with one_thread_each(len(left)):
            solved, polished = self._solve_cold(program.item(left), rest, options, Keeper(-1))
        return _put(outcome, left, solved), point.compact().put(left, polished.compact())

    def _newton(
        self,
        program: ConeProgram,
        reduced: Reduced | None,
        warm_start: WarmStart | None,
        threads: int,
        keeper: Keeper,
    ) -> Point:
        """Returns where Newton's method comes from a warm start, or without inequalities, from anywhere.

        That is done in the reduced programs; a point of the full ones is only checked, and moved where that helps.
        """
        small, plain = program if reduced is None else reduced.program, self._plain(threads, keeper)
        if warm_start is None:
            x, v = _stationary(small, plain)
        else:
            pairs = zip((warm_start.x, warm_start.v), (self.full.n, self.full.m), strict=True)
            x, v = (_started(*pair, program.batch) for pair in pairs)
            if self.reduction is not None:
                x, v = x[:, self.reduction.kept_variables], v[:, self.reduction.kept_rows]
        point = polish(small, x, v, plain)
        if reduced is None:
            return point
        x, y, s = reduced.recover(point.x, point.y, point.s)
        return polish(program, x, y - s, self.factoriser(threads, reduced))

    def _solve_cold(
        self, program: ConeProgram, reduced: Reduced | None, options: CallOptions, keeper: Keeper
    ) -> tuple[Outcome, Point]:
        """Solves and polishes every item, without a point to start from."""
        outcome = self._solve(program, reduced, self._at_first(options), keeper)
        point = self._polish(program, reduced, outcome, options.threads, keeper if reduced is None else Keeper(-1))
        return self._again(program, reduced, options, outcome, point)

    def _at_first(self, options: CallOptions) -> CallOptions:
        """Asks for no more than the polish needs to start from: on curved cones it gains more than further steps."""
        if self.structure.cone.polyhedral:
            return options
        first = _START_BENT if self.structure.cone.exponential or self.structure.cone.power else _START
        return replace(options, solver=replace(options.solver, eps=max(options.solver.eps, first)))

    def _again(
        self, program: ConeProgram, reduced: Reduced | None, options: CallOptions, outcome: Outcome, point: Point
    ) -> tuple[Outcome, Point]:
        """Solves more tightly what is still rough after the polish, with the plan's first solvers in turn.

        An interior point that stops early may lie beside the wrong face, where no Newton step helps.
        """
        if point.is_exact:
            return outcome, point
        enough = max(options.solver.eps, _ROUGH)
        # What is precise is as tight as it can be.
        tightened = [pair for pair in enumerate(options.plan.solvers) if not pair[1].is_precise]
        for position, solver in tightened[:2]:
            rough = (outcome.solution.status <= Status.INACCURATE) & ~(point.accuracy(program) <= enough)
            items = np.flatnonzero(rough)
            if not len(items):
                break
            native = options.solver.native if position == 0 else {}
            tight = replace(options.solver, eps=_TIGHT, native=native)
            part = replace(options, plan=Plan(solver), solver=tight)
            lower = None if reduced is None else reduced.item(items)
            rest = program.item(items)
            solved = _judged_by_points(self._solve(rest, lower, part, Keeper(-1)))
            polished = self._polish(rest, lower, solved, options.threads, Keeper(-1))
            usable = solved.solution.status <= Status.INACCURATE
            better = np.flatnonzero(usable & (polished.accuracy(rest) < point.item(items).accuracy(rest)))
            served = np.full(len(items), position)
            outcome = _put(outcome, items[better], replace(solved.item(better), served=served[better]))
            point = point.put(items[better], polished.item(better))
        return outcome, point

    def factoriser(self, threads: int, reduced: Reduced | None = None, known: Known | None = None) -> Factorise:
        """Returns how the systems of the full programs are factorised: by way of the reduced ones.

        Args:
            threads: threads over the items.
            reduced: the same programs, reduced; otherwise each system's programs are reduced anew.
            known: factorised systems of the solver's programs, at other points.
        """
        reduction = self.reduction
        plain = self._plain(threads)
        if known is not None:
            plain = partial(known.factorise, factorise=plain)
        if reduction is None:
            return plain
        dropped = np.ones(self.full.m, dtype=bool)
        dropped[reduction.kept_rows] = False

        def lift(system: System, items: Int[np.ndarray, " k"] | None = None) -> Factorisation:
            if reduced is None:
                lower = reduction.eliminate(system.program)
            else:
                lower = reduced if items is None or len(items) == reduced.full.batch else reduced.item(items)
            small = System(lower.program, without_rows(system.derivative, dropped))
            fold, expand = partial(lower.fold, system), partial(lower.expand, system)
            return Lifted(plain(small), fold, expand, lower.carry)

        return lift

    def central_point(self, program: ConeProgram, reduced: Reduced | None, point: Point, mu: float) -> Point:
        """Returns the points of the central path with barrier parameter `mu`; see `derivative.central_point`.

        The barrier is that of the reduced programs: a row that says nothing new repels nothing.

        Args:
            program: the programs.
            reduced: the same programs, reduced; otherwise they are reduced anew.
            point: their solutions.
            mu: the barrier parameter.
        """
        reduction = self.reduction
        if reduction is None:
            return central_point(program, point.x, point.v, mu, self._plain(1))
        lower = reduction.eliminate(program) if reduced is None else reduced
        x, v = np.take(point.x, reduction.kept_variables, axis=1), np.take(point.v, reduction.kept_rows, axis=1)
        small = central_point(lower.program, x, v, mu, self._plain(1))
        x, y, s = lower.recover(small.x, small.y, small.s)
        return replace(small, x=x, v=y - s, y=y, s=s)

    def _plain(self, threads: int, keeper: Keeper | None = None) -> Factorise:
        """Returns how systems of the solver's own programs are factorised."""

        def plain(system: System, items: Int[np.ndarray, " k"] | None = None) -> Factorisation:
            factors = factorise(system, self.method, threads)
            return factors if keeper is None else keeper.keep(system, factors)

        return plain

    def _solve(self, program: ConeProgram, reduced: Reduced | None, options: CallOptions, keeper: Keeper) -> Outcome:
        """Solves the programs: where they are reduced, polishes these first, and returns the full ones' solutions."""
        if reduced is None:
            return solve_batch(program, options.plan, options.solver, options.threads)
        outcome = solve_batch(reduced.program, options.plan, options.solver, options.threads)
        small = _polished(reduced.program, outcome, lambda _: self._plain(options.threads, keeper))
        x, y, s = reduced.recover(small.x, small.y, small.s)
        return replace(outcome, solution=replace(outcome.solution, x=x, y=y, s=s), point=None)

    def _polish(
        self, program: ConeProgram, reduced: Reduced | None, outcome: Outcome, threads: int, keeper: Keeper
    ) -> Point:
        """Polishes the items that have a solution; the others keep the solver's last point."""

        def factoriser(items: Int[np.ndarray, " k"] | None) -> Factorise:
            if reduced is None:
                return self._plain(threads, keeper)
            return self.factoriser(threads, reduced if items is None else reduced.item(items))

        return _polished(program, outcome, factoriser)


def _polished(
    program: ConeProgram, outcome: Outcome, factoriser: Callable[[Int[np.ndarray, " k"] | None], Factorise]
) -> Point:
    """Polishes the items that have a solution, given how those of an index are factorised; None means all."""
    solution = outcome.solution
    promising = np.flatnonzero(solution.status <= Status.INACCURATE)
    if len(promising) == program.batch and outcome.point is not None:
        return improve(program, outcome.point, factoriser(None))
    x, v = solution.x, start(program.structure.cone, solution.y, solution.s)
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
    solve = factorise(system).solve(-q, b)
    return solve.first, solve.second


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

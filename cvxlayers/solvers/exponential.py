"""Newton's method along a path to the solution, for exponential cones: of a whole batch at once.

Every point is on the path of some v = y − s: complementarity holds with the barrier parameter μ, and the linear
equations alone are not yet solved. A step aims at a smaller μ from where it is: y then changes by (μ′/μ − 1) y even
where s stays. That is a step of a primal-dual interior-point method, but along v, which no boundary stops.

References: Nocedal, Wright, "Numerical Optimization" (2006), 19; and those of `cvxlayers.solvers.continuation`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, final

import numpy as np
from jaxtyping import Bool, Float, Int

from cvxlayers.batches import Vectors
from cvxlayers.blas import one_thread
from cvxlayers.cones.curves import CurvePoints
from cvxlayers.cones.metric import LineMetric
from cvxlayers.program import ConeProgram, Solution, Status, Structure
from cvxlayers.solvers.items import unsolved
from cvxlayers.solvers.newton_step import DenseStep, Residual, dot
from cvxlayers.solvers.path import Walk, follow, lowered
from cvxlayers.solvers.path_units import PathUnits
from cvxlayers.solvers.solver import Options, Solver

Strength = Float[np.ndarray, "batch 1"]
Columns = Float[np.ndarray, "batch count"]
Index = Int[np.ndarray, " _count"]
Sizes = Float[np.ndarray, " batch"]

# ρ of cones where v = 0 and μ = 1, and how many Newton steps find the first one from there.
_RHO, _FIRST = 1.1, 4
# The first barrier parameter to aim at, the multiple of a power of the last that is the least, and where the last one
# comes next.
_BEGIN, _STEEPEST, _LAST = 0.1, 0.1, 1e-14
# A step is halved, at most so often, unless it leaves less than this of the residual, or this multiple of μ.
_LEFT, _NEAR, _HALVINGS = 0.9, 100.0, 6
# After shorter steps the barrier parameter falls by this factor at most, after still shorter ones it stays, and where
# no step is found, it rises.
_SLOWLY, _SHORT, _BACK = 0.3, 0.25, 10.0
# Where the path ends, and residuals are rounding; or, at latest, where both are small and no longer halved.
_END, _ROUNDING, _SMALL = 3e-15, 1e-13, 1e-9
# Items that come this far are few, and better left to others; so are those without a step so often.
_LIMIT, _STUCK = 25, 2
_ORDER = 100


@final
class ExponentialPath(Solver):
    """Small programs over exponential cones and linear constraints, as those of logarithms, exponentials, entropies.

    It proves nothing of programs without a solution: these are left to others.
    """

    @property
    def name(self) -> str:
        """The name by which users choose it."""
        return "EXPONENTIAL"

    def refusal(self, structure: Structure) -> str | None:
        """It takes exponential cones, among others only linear constraints, and few variables."""
        cone = structure.cone
        if not cone.exponential or cone.second_order or cone.semidefinite or cone.power:
            return "it takes exponential cones, and among others only linear constraints"
        if structure.n + cone.zero > _ORDER:
            return f"it takes up to {_ORDER} variables and equalities"
        # Else the coordinates of a cone may all vanish at the solution, where no path leads.
        filled = np.bincount(structure.A.rows, minlength=structure.m)[-3 * cone.exponential :].reshape(-1, 3) > 0
        if (filled[:, 1] & filled[:, 2]).any():
            return "it takes exponential cones whose second or third coordinate is no variable, as those of log and exp"
        return None

    def native_options(self) -> Mapping[str, type]:
        """It has none."""
        return {}

    @property
    def is_precise(self) -> bool:
        """Its points are."""
        return True

    def free_microseconds(self, structure: Structure) -> float:
        """Arithmetic of small arrays: the interpreter is never free for long."""
        return 0.0

    def solve(self, program: ConeProgram, options: Options) -> Solution:
        """Follows the paths of all items."""
        with one_thread(), np.errstate(all="ignore"):
            return self._solve(program, options)

    def _solve(self, program: ConeProgram, options: Options) -> Solution:
        structure, batch, unit = program.structure, program.batch, PathUnits.of(program)
        solution, items = unsolved(structure, batch), np.arange(batch)
        walk = _Walk.begin(DenseStep.of(unit.program, unit.widths), structure, batch)
        follow(walk, items, solution, _LIMIT, options)
        return unit.restore(solution, items)


@dataclass(frozen=True, eq=False)
class _Point:
    """A point of the path, what the equations leave there, and how much."""

    x: Vectors
    equal: Vectors
    lines: LineMetric
    curves: CurvePoints
    y: Vectors
    s: Vectors
    residual: Residual
    mu: Strength
    merit: Sizes

    @classmethod
    def of(
        cls, step: DenseStep, x: Vectors, equal: Vectors, v: Vectors, rho: Columns, mu: Strength, steps: int
    ) -> _Point:
        """Returns the point that so many Newton steps from ρ find next to v."""
        split = v.shape[1] - 3 * rho.shape[1]
        lines, curves = LineMetric.of(v[:, :split], mu), CurvePoints.near(v[:, split:], rho, mu, steps)
        y, s = np.empty(v.shape), np.empty(v.shape)
        y[:, :split], y[:, split:], s[:, split:] = lines.y, curves.y, curves.s
        np.subtract(lines.y, v[:, :split], out=s[:, :split])
        residual = step.residual(step.linear(x, equal), y, s)
        return cls(x, equal, lines, curves, y, s, residual, mu, np.fmin(step.size(residual), np.inf))

    def write(self, index: Index, solution: Solution, items: Index) -> None:
        """Writes some points to a solution: of inequalities, y or s without what the path adds to both."""
        zero, split, y, s = self.equal.shape[1], self.lines.y.shape[1], self.y[index], self.s[index]
        v = y[:, :split] - s[:, :split]
        y[:, :split], s[:, :split] = np.maximum(v, 0.0), np.maximum(-v, 0.0)
        solution.x[items] = self.x[index]
        solution.y[items], solution.s[items] = np.pad(y, ((0, 0), (zero, 0))), np.pad(s, ((0, 0), (zero, 0)))
        solution.y[items, :zero] = self.equal[index]


@dataclass(frozen=True, eq=False)
class _Way:
    """Where a Newton step leads: x, y of the equalities, v and y of the conic rows, and μ."""

    x: Vectors
    equal: Vectors
    v: Vectors
    y: Vectors
    mu: Strength

    @classmethod
    def of(cls, step: DenseStep, point: _Point, aim: Strength) -> _Way:
        """Returns the way from a point of the path to where the linear equations hold, and μ is what it aims at.

        In the directions B in which H = Bᵀ diag(w) B, those of its cones, (P + Aᵀ H A) dx = −r − Aᵀ (H r + gain).
        """
        split, residual, gain = point.lines.y.shape[1], point.residual, (aim / point.mu - 1.0) * point.y
        curves, weights = point.curves, np.concatenate([point.lines.values, point.curves.steep, point.curves.bent], 1)
        BA, Br = _turned(step.A, split, curves), _turned(residual.conic, split, curves)
        At, BAt = step.A.swapaxes(1, 2), BA.swapaxes(1, 2)
        rhs = -residual.dual - dot(BAt, weights * Br) - dot(At, gain)
        dx, equal = step.solve(np.matmul(BAt, weights[..., None] * BA), rhs, residual.equal)
        pushed, dy = weights * (dot(BA, dx) + Br), gain
        dy[:, :split] += pushed[:, :split]
        curves.add(pushed[:, split : split + curves.count], pushed[:, split + curves.count :], dy[:, split:])
        return cls(dx, equal, dy + dot(step.A, dx) + residual.conic, dy, aim - point.mu)

    def end(self, step: DenseStep, point: _Point, share: float) -> _Point:
        """Returns the point of the path next to where a share of the way leads."""
        split = point.lines.y.shape[1]
        x, equal, v = point.x + share * self.x, point.equal + share * self.equal, point.y - point.s + share * self.v
        rho = point.curves.moved(self.y[:, split:], share)
        return _Point.of(step, x, equal, v, rho, point.mu + share * self.mu, 2)


def _turned(rows: np.ndarray, split: int, curves: CurvePoints) -> np.ndarray:
    """Returns the products with B: first those of lines, then those of curves with ∇g, and with u."""
    along, across = curves.products(rows[:, split::3], rows[:, split + 1 :: 3], rows[:, split + 2 :: 3])
    lines = rows[:, :split]
    if len(lines) < len(along):
        lines = np.broadcast_to(lines, (len(along), *lines.shape[1:]))
    return np.concatenate([lines, along, across], axis=1)


@dataclass(frozen=True, eq=False)
class _Walk(Walk):
    """Where items are, and what they aim at.

    Attributes:
        step: their Newton steps.
        point: the points.
        aim: the barrier parameters to aim at.
        before: the sizes of the residuals before the last step.
        stuck: how often no step was found.
    """

    step: DenseStep
    point: _Point
    aim: Strength
    before: Sizes
    stuck: Sizes

    @classmethod
    def begin(cls, step: DenseStep, structure: Structure, batch: int) -> _Walk:
        """Returns where the paths of a batch begin."""
        zero = structure.cone.zero
        x, equal, v = (np.zeros((batch, size)) for size in (structure.n, zero, structure.m - zero))
        rho = np.full((batch, structure.cone.exponential), _RHO)
        point = _Point.of(step, x, equal, v, rho, np.ones((batch, 1)), _FIRST)
        return cls(step, point, np.full((batch, 1), _BEGIN), point.merit, np.zeros(batch))

    @property
    def merit(self) -> Sizes:
        """The sizes of the residuals."""
        return self.point.merit

    @property
    def status(self) -> Int[np.ndarray, " batch"]:
        """SOLVED at the end of the path, and why items are given up that are stuck; else −1."""
        mu, merit = self.point.mu[:, 0], self.point.merit
        solved = (mu <= _END) & (merit <= _ROUNDING)
        solved |= (np.maximum(mu, merit) <= _SMALL) & (merit > 0.5 * self.before)
        return np.where(solved, Status.SOLVED, np.where(self.stuck < _STUCK, -1, Status.ITERATION_LIMIT))

    def advance(self, pending: Bool[np.ndarray, " batch"]) -> _Walk:
        """Takes one step."""
        point, length = _advance(self.step, self.point, self.aim, pending)
        return _Walk(
            self.step, point, _lower(point, self.point.merit, length), self.point.merit, self.stuck + (length == 0)
        )

    def item(self, index: Index) -> _Walk:
        """Returns the walk of some items."""
        rest = self.aim[index], self.before[index], self.stuck[index]
        return _Walk(self.step.item(index), _take(self.point, index), *rest)

    def write(self, index: Index, solution: Solution, items: Index) -> None:
        """Writes the points of some items."""
        self.point.write(index, solution, items)


def _advance(
    step: DenseStep, point: _Point, aim: Strength, pending: Bool[np.ndarray, " batch"]
) -> tuple[_Point, Sizes]:
    """Returns where the longest of some steps leads that stays next to the path, and the steps.

    Items that are not pending stay where any step leads.
    """
    way, length = _Way.of(step, point, aim), np.ones(len(aim))
    reached = way.end(step, point, 1.0)
    far = pending & ~_is_near(reached, point, _LEFT)
    if not far.any():
        return reached, length
    items, share = np.flatnonzero(far), 1.0
    reached, length[items] = _put(reached, items, _take(point, items)), 0.0
    for _ in range(_HALVINGS):
        share *= 0.5
        start = _take(point, items)
        trial = _take(way, items).end(step.item(items), start, share)
        near = _is_near(trial, start, 1.0 - 0.1 * share)
        reached, length[items[near]] = _put(reached, items[near], _take(trial, np.flatnonzero(near))), share
        items = items[~near]
        if not len(items):
            break
    return reached, length


def _is_near(trial: _Point, point: _Point, left: float) -> Bool[np.ndarray, " batch"]:
    return trial.merit <= np.maximum(left * point.merit, _NEAR * trial.mu[:, 0])


def _lower(point: _Point, before: Sizes, length: Sizes) -> Strength:
    """Returns the barrier parameters to aim at next, after steps of some length."""
    last = point.mu[:, 0]
    lower = np.minimum(lowered(last, point.merit, before, _STEEPEST), last)
    lower = np.where(lower <= _LAST, _END, lower)
    if (length < 1.0).any():
        short = np.where(length > _SHORT, np.maximum(lower, _SLOWLY * last), np.where(length > 0, last, _BACK * last))
        lower = np.where(length == 1.0, lower, short)
    return np.maximum(lower, _END)[:, None]


def _take(values: Any, index: Index) -> Any:
    """Returns some items of arrays, or of what consists of arrays."""
    if isinstance(values, np.ndarray):
        return values[index]
    return type(values)(*(_take(getattr(values, field.name), index) for field in fields(values)))


def _put(values: Any, index: Index, others: Any) -> Any:
    """Returns the arrays with some items replaced."""
    if isinstance(values, np.ndarray):
        values = values.copy()
        values[index] = others
        return values
    pairs = ((getattr(values, field.name), getattr(others, field.name)) for field in fields(values))
    return type(values)(*(_put(mine, index, theirs) for mine, theirs in pairs))

"""Continuation: Newton's method along the central path, on the smoothed residual map, of a whole batch at once.

Smoothed by the barrier parameter μ, the residual map vanishes on the central path alone, is smooth, and y and s stay
inside their cones wherever x and v = y − s are: no step has to stop at a boundary. From v = 0 each Newton step aims at
a smaller μ, the smaller the better the step before has met its aim.

References: Chen, Mangasarian, "A class of smoothing functions for nonlinear and mixed complementarity problems" (1996);
Qi, Sun, Zhou, "A new look at smoothing Newton methods for nonlinear complementarity problems" (2000).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any, final

import numpy as np
from jaxtyping import Bool, Float, Int

from cvxlayers.blas import one_thread_each
from cvxlayers.cones import Product
from cvxlayers.cones.frame import Frame, Metric, is_symmetric
from cvxlayers.coordinates import find_coordinates
from cvxlayers.program import ConeProgram, Solution, Status, Structure, Vectors, largest
from cvxlayers.solvers.items import unsolved
from cvxlayers.solvers.newton_step import CoordinateStep, DenseStep, Residual, Step
from cvxlayers.solvers.solver import Options, Solver

Strength = Float[np.ndarray, "batch 1"]
Index = Int[np.ndarray, " _count"]

_SHORTER = (0.5, 0.25, 0.0625, 0.015625)
# The next barrier parameter is this share of the residual, but neither larger than the last nor smaller than this
# multiple of its power.
_SHARE, _STEEPEST, _POWER = 0.007, 0.2, 1.8
# Where no step is found, it rises by this factor.
_BACK = 30.0
# The path is followed to this part of the tolerance, the points on it are so many times rougher, and never finer than
# rounding; what ends early with a residual below the last may still be of use.
_GAP, _RESIDUAL, _FINEST, _ROUGH = 0.01, 10.0, 1e-14, 1e-6
_LIMIT = 40
# Up to this order of the systems, and this many coordinates, dense algebra of a batch beats sparse algebra of items.
_ORDER, _COORDINATES = 200, 2000


@final
class Continuation(Solver):
    """Programs over second-order and semidefinite cones whose Newton systems are small and dense, all items at once.

    It proves nothing of programs without a solution: these are left to others.
    """

    @property
    def name(self) -> str:
        """The name by which users choose it."""
        return "CONTINUATION"

    def refusal(self, structure: Structure) -> str | None:
        """It takes curved symmetric cones, and few variables or few constraints on the coordinates of cones."""
        cone = structure.cone
        if not is_symmetric(cone) or cone.polyhedral:
            return "it takes second-order and semidefinite cones, among others only linear constraints"
        if find_coordinates(structure) is not None:
            return None if structure.m <= _COORDINATES else f"it takes up to {_COORDINATES} coordinates of cones"
        if structure.n + cone.zero > _ORDER:
            return f"it takes up to {_ORDER} variables and equalities, unless the variables are coordinates of cones"
        return None

    def native_options(self) -> Mapping[str, type]:
        """It has none."""
        return {}

    def free_microseconds(self, structure: Structure) -> float:
        """Dense algebra without the interpreter."""
        form, m = find_coordinates(structure), structure.m
        order = structure.n + structure.cone.zero if form is None else form.few
        return 10.0 * 5e-5 * (order**3 + order**2 * m)

    def solve(self, program: ConeProgram, options: Options) -> Solution:
        """Follows the central paths of all items."""
        with one_thread_each(program.batch, small=True):
            return self._solve(program, options)

    def _solve(self, program: ConeProgram, options: Options) -> Solution:
        structure, solution = program.structure, unsolved(program.structure, program.batch)
        items = _suited(program)
        if not len(items):
            return solution
        unit, form = _Units.of(program.item(items)), find_coordinates(structure)
        step = DenseStep.of(unit.program) if form is None else CoordinateStep.of(unit.program, form)
        point, everyone = _begin(step, structure, len(items)), items
        limit = _LIMIT if options.max_iters is None else options.max_iters
        deadline = np.inf if options.time_limit is None else monotonic() + options.time_limit
        target = max(_GAP * options.eps, _FINEST)
        for iteration in range(1, limit + 1):
            point, moved = _advance(step, structure.cone, point)
            solution.iterations[items] = iteration
            status = np.where(point.arrived(target), Status.SOLVED, -1)
            if iteration == limit or monotonic() > deadline:
                why = Status.ITERATION_LIMIT if iteration == limit else Status.TIME_LIMIT
                status[status < 0] = np.where(point.merit <= _ROUGH, Status.INACCURATE, why)[status < 0]
            ended, left = np.flatnonzero(status >= 0), np.flatnonzero(status < 0)
            if len(ended):
                point.write(solution, items[ended], ended)
                solution.status[items[ended]] = status[ended]
                items, step = items[left], step.item(left)
            if not len(items):
                break
            point = _aimed(step, structure.cone, point, left, point.lower(moved, target))
        return unit.restore(solution, everyone)


def _suited(program: ConeProgram) -> Index:
    """Returns the items whose steps can be computed: on coordinates of cones, costs have to weigh all alike."""
    form = find_coordinates(program.structure)
    if form is None:
        return np.arange(program.batch)
    with np.errstate(all="ignore"):
        _, holds = form.curvature(program, form.coefficients(program))
    return np.flatnonzero(np.broadcast_to(holds, (program.batch,)))


@dataclass(frozen=True, eq=False)
class _Units:
    """Programs with q and b of size one, and the units of x and s, and of y."""

    program: ConeProgram
    length: Vectors
    price: Vectors

    @classmethod
    def of(cls, program: ConeProgram) -> _Units:
        length, price = (_power(largest(part))[:, None] for part in (program.b, program.q))
        P = program.P * (length / price) if program.structure.P.nnz else program.P
        return cls(replace(program, P=P, q=program.q / price, b=program.b / length), length, price)

    def restore(self, solution: Solution, items: Index) -> Solution:
        solution.x[items] *= self.length
        solution.s[items] *= self.length
        solution.y[items] *= self.price
        return solution


def _power(sizes: Float[np.ndarray, " leading"]) -> Float[np.ndarray, " leading"]:
    """Returns powers of two next to some sizes; one for zero."""
    return np.ldexp(1.0, np.frexp(np.where(sizes > 0, sizes, 0.5))[1])


@dataclass(frozen=True, eq=False)
class _Point:
    """Where items are, what they aim at, and the residual map there.

    Attributes:
        x: the variables.
        equal: y of the equalities.
        v: y − s of the conic rows.
        mu: the barrier parameter of the point of the path that is aimed at.
        frame: v, decomposed.
        metric: the point of the path at v.
        residual: the residual map.
        merit: its size.
    """

    x: Vectors
    equal: Vectors
    v: Vectors
    mu: Strength
    frame: Frame
    metric: Metric
    residual: Residual
    merit: Float[np.ndarray, " batch"]

    def arrived(self, target: float) -> Bool[np.ndarray, " batch"]:
        """Returns which are as near to the point of the path as they have to be, and that to a solution."""
        return (self.merit <= _RESIDUAL * target) & (self.mu[:, 0] <= target)

    def lower(self, moved: Bool[np.ndarray, " batch"], target: float) -> Strength:
        """Returns the barrier parameters to aim at next: higher ones where no step has been found."""
        mu = self.mu[:, 0]
        lower = np.clip(_SHARE * self.merit, _STEEPEST * mu**_POWER, mu)
        return np.maximum(np.where(moved, lower, _BACK * mu), target)[:, None]

    def write(self, solution: Solution, items: Index, chosen: Index) -> None:
        """Writes some of the points to their items of a solution."""
        y = self.metric.y[chosen]
        solution.x[items] = self.x[chosen]
        solution.y[items] = np.concatenate([self.equal[chosen], y], axis=1)
        solution.s[items] = np.concatenate([np.zeros((len(chosen), self.equal.shape[1])), y - self.v[chosen]], axis=1)


def _aimed(step: Step, cone: Product, point: _Point, left: Index, mu: Strength) -> _Point:
    """Returns the points of some items, aimed at the next point of the path."""
    if len(left) == len(point.x):
        return _point(step, cone, point.x, point.equal, point.v, mu, point.frame)
    return _point(step, cone, point.x[left], point.equal[left], point.v[left], mu[left])


def _begin(step: Step, structure: Structure, batch: int) -> _Point:
    zero = structure.cone.zero
    x, equal, v = (np.zeros((batch, size)) for size in (structure.n, zero, structure.m - zero))
    return _point(step, structure.cone, x, equal, v, np.ones((batch, 1)))


def _point(
    step: Step, cone: Product, x: Vectors, equal: Vectors, v: Vectors, mu: Strength, frame: Frame | None = None
) -> _Point:
    frame = Frame.of(cone, v) if frame is None else frame
    metric = frame.at(mu)
    y = metric.y
    residual = step.residual(x, equal, y, y - v)
    merit = np.maximum(largest(residual.dual), largest(residual.conic))
    if residual.equal.shape[1]:
        merit = np.maximum(merit, largest(residual.equal))
    return _Point(x, equal, v, mu, frame, metric, residual, np.where(np.isfinite(merit), merit, np.inf))


def _advance(step: Step, cone: Product, point: _Point) -> tuple[_Point, Bool[np.ndarray, " batch"]]:
    """Returns where the longest of some steps leads that lowers the residual, and for which items there is one."""
    start = point.x, point.equal, point.v
    way = _finite(step.direction(point.metric, point.residual))
    trial = _point(step, cone, *_moved(start, way, 1.0), point.mu)
    moved = trial.merit < 0.9 * point.merit
    if moved.all():
        return trial, moved
    share = np.where(moved, 1.0, 0.0)
    for shorter in _SHORTER:
        items = np.flatnonzero(share == 0.0)
        if not len(items):
            break
        near = _moved([part[items] for part in start], [part[items] for part in way], shorter)
        trial = _point(step.item(items), cone, *near, point.mu[items])
        share[items[trial.merit < (1.0 - 0.1 * shorter) * point.merit[items]]] = shorter
    return _point(step, cone, *_moved(start, way, share[:, None]), point.mu), share > 0.0


def _moved(start: Sequence[Vectors], way: Sequence[Vectors], share: Any) -> tuple[Vectors, Vectors, Vectors]:
    """Returns where a share of a way leads."""
    x, equal, v = (part + share * move for part, move in zip(start, way, strict=True))
    return x, equal, v


def _finite(way: Sequence[Vectors]) -> Sequence[Vectors]:
    """Returns a way that leads nowhere where it is not finite."""
    if all(np.isfinite(move).all() for move in way):
        return way
    return [np.nan_to_num(move, nan=0.0, posinf=0.0, neginf=0.0) for move in way]

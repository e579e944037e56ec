"""Continuation: Newton's method along the central path, on the smoothed residual map, of a whole batch at once.

Smoothed by the barrier parameter μ, the residual map vanishes on the central path alone, is smooth, and y and s stay
inside their cones wherever x and v = y − s are: no step has to stop at a boundary. From v = 0 each Newton step aims at
a smaller μ, the smaller the better the step before has met its aim.

References: Chen, Mangasarian, "A class of smoothing functions for nonlinear and mixed complementarity problems" (1996);
Qi, Sun, Zhou, "A new look at smoothing Newton methods for nonlinear complementarity problems" (2000).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import final

import numpy as np
from jaxtyping import Float, Int

from cvxlayers.blas import one_thread_each
from cvxlayers.cones.frame import Frame, is_symmetric
from cvxlayers.cones.metric import Metric
from cvxlayers.coordinates import find_coordinates
from cvxlayers.program import ConeProgram, Solution, Status, Structure, Vectors
from cvxlayers.solvers.items import unsolved
from cvxlayers.solvers.newton_step import CoordinateStep, DenseStep, Residual, Step
from cvxlayers.solvers.path_units import PathUnits
from cvxlayers.solvers.solver import Options, Solver

Strength = Float[np.ndarray, "batch 1"]
Index = Int[np.ndarray, " _count"]
Sizes = Float[np.ndarray, " batch"]

# The first barrier parameter, and that of programs with semidefinite cones.
_BEGIN, _BEGIN_MATRICES = 0.5, 1.0
# The next one is this share of the residual, but neither larger than the last nor smaller than this multiple of its
# power.
_SHARE, _STEEPEST, _POWER = 3e-4, 0.2, 1.8
# A full step leaves less than this of the residual, or it is halved, at most so often.
_LEFT, _HALVINGS = 0.9, 4
# After a step up to this short the barrier parameter stays, and where no step is found, or none but the shortest twice,
# it rises by this factor. Then it falls to no less than this share of the last, which full steps make as much smaller.
_SHORT, _BACK, _CAREFUL = 0.2, 10.0, 0.3
# The path is followed to this part of the tolerance, the points on it are so many times rougher, and never finer than
# rounding; what ends early with a residual below the last may still be of use.
_GAP, _RESIDUAL, _FINEST, _ROUGH = 0.05, 15.0, 1e-14, 1e-6
# The last barrier parameter is aimed at from so many times itself.
_NEAR = 20.0
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
        unit, form = PathUnits.of(program.item(items)), find_coordinates(structure)
        step = (
            DenseStep.of(unit.program, unit.widths)
            if form is None
            else CoordinateStep.of(unit.program, unit.widths, form)
        )
        everyone, place, aim = items, _begin(step, structure, len(items)), _Aim.begin(structure, len(items))
        limit = _LIMIT if options.max_iters is None else options.max_iters
        deadline = np.inf if options.time_limit is None else monotonic() + options.time_limit
        target = max(_GAP * options.eps, _FINEST)
        for iteration in range(1, limit + 1):
            place, merit, length = _advance(step, place, aim.mu)
            solution.iterations[items] = iteration
            status = np.where((merit <= _RESIDUAL * target) & (aim.mu[:, 0] <= target), Status.SOLVED, -1)
            if iteration == limit or monotonic() > deadline:
                why = Status.ITERATION_LIMIT if iteration == limit else Status.TIME_LIMIT
                status[status < 0] = np.where(merit <= _ROUGH, Status.INACCURATE, why)[status < 0]
            ended = np.flatnonzero(status >= 0)
            if len(ended):
                place.item(ended).write(solution, items[ended], aim.mu[ended])
                solution.status[items[ended]] = status[ended]
                if len(ended) == len(items):
                    break
                left = np.flatnonzero(status < 0)
                items, step, place = items[left], step.item(left), place.item(left)
                aim, merit, length = aim.item(left), merit[left], length[left]
            aim = aim.lower(merit, length, target)
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
class _Aim:
    """The barrier parameters that steps aim at, and which shares of them the next ones are at least."""

    mu: Strength
    least: Sizes

    @classmethod
    def begin(cls, structure: Structure, batch: int) -> _Aim:
        """Returns where the paths of a batch begin."""
        mu = _BEGIN_MATRICES if structure.cone.semidefinite else _BEGIN
        return cls(np.full((batch, 1), mu), np.zeros(batch))

    def item(self, index: Index) -> _Aim:
        """Returns those of some items."""
        return _Aim(self.mu[index], self.least[index])

    def lower(self, merit: Sizes, length: Sizes, target: float) -> _Aim:
        """Returns what to aim at next, after steps of some length that left residuals of some size."""
        last, full = self.mu[:, 0], (length == 1.0).all()
        if full:
            least = _CAREFUL * self.least
        else:
            least = np.where(length > _SHORT, self.least, np.maximum(self.least, _CAREFUL))
            least = np.where(length == 1.0, _CAREFUL * least, least)
        lower = np.maximum(np.maximum(_SHARE * merit, least * last), _STEEPEST * last**_POWER)
        lower = np.minimum(lower, last)
        if not full:
            stuck = (length == 0) | ((length <= 0.5**_HALVINGS) & (self.least >= _CAREFUL))
            lower = np.where(length > _SHORT, lower, np.where(stuck, _BACK * last, last))
        last_one = (lower <= _NEAR * target) & (least < _CAREFUL)
        return _Aim(np.where(last_one, target, np.maximum(lower, target))[:, None], least)


@dataclass(frozen=True, eq=False)
class _Place:
    """Where items are: x, y of the equalities, what these make of the residual map, and v = y − s, decomposed."""

    x: Vectors
    equal: Vectors
    linear: Residual
    frame: Frame

    @classmethod
    def of(cls, step: Step, x: Vectors, equal: Vectors, frame: Frame) -> _Place:
        return cls(x, equal, step.linear(x, equal), frame)

    def moved(self, step: Step, way: Sequence[Vectors], share: float) -> _Place:
        """Returns where a share of a way leads."""
        x, equal, v = (part + share * move for part, move in zip((self.x, self.equal, self.frame.v), way, strict=True))
        return _Place.of(step, x, equal, self.frame.moved(v))

    def item(self, index: Index) -> _Place:
        """Returns where some items are."""
        return _Place(self.x[index], self.equal[index], self.linear.item(index), self.frame.item(index))

    def put(self, index: Index, values: _Place) -> _Place:
        """Returns the places with those of some items replaced."""
        x, equal = self.x.copy(), self.equal.copy()
        x[index], equal[index] = values.x, values.equal
        return _Place(x, equal, self.linear.put(index, values.linear), self.frame.put(index, values.frame))

    def write(self, solution: Solution, items: Index, mu: Strength) -> None:
        """Writes the points of the path to some items of a solution."""
        y = self.frame.at(mu).y
        solution.x[items] = self.x
        solution.y[items] = np.concatenate([self.equal, y], axis=1)
        solution.s[items] = np.concatenate([np.zeros(self.equal.shape), y - self.frame.v], axis=1)


@dataclass(frozen=True, eq=False)
class _Point:
    """The residual map at a place, smoothed by a barrier parameter, and its size."""

    place: _Place
    metric: Metric
    residual: Residual
    merit: Sizes

    @classmethod
    def of(cls, step: Step, place: _Place, mu: Strength) -> _Point:
        metric = place.frame.at(mu)
        residual = step.residual(place.linear, metric.y, metric.y - place.frame.v)
        return cls(place, metric, residual, np.fmin(step.size(residual), np.inf))


def _begin(step: Step, structure: Structure, batch: int) -> _Place:
    zero = structure.cone.zero
    x, equal, v = (np.zeros((batch, size)) for size in (structure.n, zero, structure.m - zero))
    return _Place.of(step, x, equal, Frame.of(structure.cone, v))


def _advance(step: Step, place: _Place, mu: Strength) -> tuple[_Place, Sizes, Sizes]:
    """Returns where the longest of some steps leads that lowers the residual, what is left of it, and the steps."""
    point, length = _Point.of(step, place, mu), np.ones(len(mu))
    way = _finite(step.direction(point.metric, point.residual))
    trial = _Point.of(step, place.moved(step, way, 1.0), mu)
    near = trial.merit < _LEFT * point.merit
    if near.all():
        return trial.place, trial.merit, length
    items = np.flatnonzero(~near)
    reached, merit, share = trial.place.put(items, place.item(items)), trial.merit.copy(), 1.0
    merit[items], length[items] = point.merit[items], 0.0
    for _ in range(_HALVINGS):
        share *= 0.5
        some = step.item(items)
        trial = _Point.of(some, place.item(items).moved(some, [part[items] for part in way], share), mu[items])
        lower = trial.merit < (1.0 - 0.1 * share) * point.merit[items]
        found, chosen = items[lower], np.flatnonzero(lower)
        if len(found):
            reached = reached.put(found, trial.place.item(chosen))
            merit[found], length[found] = trial.merit[chosen], share
        items = items[~lower]
        if not len(items):
            break
    return reached, merit, length


def _finite(way: Sequence[Vectors]) -> Sequence[Vectors]:
    """Returns a way that leads nowhere where v would not be finite."""
    if np.isfinite(way[2]).all():
        return way
    return [np.nan_to_num(move, nan=0.0, posinf=0.0, neginf=0.0) for move in way]

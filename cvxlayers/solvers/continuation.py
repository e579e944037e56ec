"""Continuation: Newton's method along the central path, on the smoothed residual map, of a whole batch at once.

Smoothed by the barrier parameter μ, the residual map vanishes on the central path alone, is smooth, and y and s stay
inside their cones wherever x and v = y − s are: no step has to stop at a boundary. From v = 0 each Newton step starts
on the path of one μ and aims at a smaller one, so that y changes by (μ′/μ − 1) y even where s stays: the smaller the
better the step before has met its aim, and at last at rounding.

References: Chen, Mangasarian, "A class of smoothing functions for nonlinear and mixed complementarity problems" (1996);
Qi, Sun, Zhou, "A new look at smoothing Newton methods for nonlinear complementarity problems" (2000).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Float, Int

from cvxlayers.batches import Vectors
from cvxlayers.blas import one_thread
from cvxlayers.cones.frame import Frame, is_symmetric
from cvxlayers.cones.metric import Metric
from cvxlayers.idioms.coordinates import find_coordinates
from cvxlayers.program import ConeProgram, Solution, Status, Structure
from cvxlayers.solvers.items import unsolved
from cvxlayers.solvers.newton_step import CoordinateStep, DenseStep, Residual, Step
from cvxlayers.solvers.path import Walk, follow, lowered
from cvxlayers.solvers.path_units import PathUnits
from cvxlayers.solvers.solver import Options, Solver

Strength = Float[np.ndarray, "batch 1"]
Index = Int[np.ndarray, " _count"]
Sizes = Float[np.ndarray, " batch"]

# The first barrier parameter, and that of programs with semidefinite cones.
_BEGIN, _BEGIN_MATRICES = 0.5, 1.0
# The multiple of a power of the last one that is the least, and where the last one comes next.
_STEEPEST, _LAST = 0.2, 1e-11
# A step is halved, at most so often, unless it leaves less than this of the residual, or this multiple of μ, but that
# only up to some size.
_LEFT, _AWAY, _FAR, _HALVINGS = 0.9, 1e3, 10.0, 4
# After a step up to this short the barrier parameter stays, and where no step is found, or none but the shortest twice,
# it rises by this factor. Then it falls to no less than this share of the last, which full steps make as much smaller.
_SHORT, _BACK, _CAREFUL = 0.2, 10.0, 0.3
# Where the path ends, and residuals are rounding; or, at latest, where the barrier parameter is small, the residual no
# more than so many times that, and so many steps in turn have left more than a part of it. No step starts from a
# barrier parameter below the sharpest: there rounding would be all that is left of the flat directions of H.
_END, _ROUNDING, _SMALL, _RESIDUAL, _STALLED, _SLOW, _SHARP = 1e-15, 1e-13, 5e-9, 15.0, 2, 0.1, 1e-10
_LIMIT, _TINY = 50, np.finfo(float).tiny
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

    @property
    def is_precise(self) -> bool:
        """Its points are."""
        return True

    def free_microseconds(self, structure: Structure) -> float:
        """Dense algebra without the interpreter."""
        form, m = find_coordinates(structure), structure.m
        order = structure.n + structure.cone.zero if form is None else form.few
        return 10.0 * 5e-5 * (order**3 + order**2 * m)

    def solve(self, program: ConeProgram, options: Options) -> Solution:
        """Follows the central paths of all items."""
        with one_thread(), np.errstate(all="ignore"):
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
        walk = _Walk.begin(step, structure, len(items))
        follow(walk, items, solution, _LIMIT, options)
        return unit.restore(solution, items)


def _suited(program: ConeProgram) -> Index:
    """Returns the items whose steps can be computed: on coordinates of cones, costs have to weigh all alike."""
    form = find_coordinates(program.structure)
    if form is None:
        return np.arange(program.batch)
    with np.errstate(all="ignore"):
        _, holds = form.curvature(program, form.coefficients(program))
    return np.flatnonzero(np.broadcast_to(holds, (program.batch,)))


@dataclass(frozen=True, eq=False)
class _Walk(Walk):
    """Where items are, and what they aim at.

    Attributes:
        step: their Newton steps.
        point: the points.
        aim: the barrier parameters to aim at.
        stalled: how many steps in turn have gained little.
    """

    step: Step
    point: _Point
    aim: _Aim
    stalled: Sizes

    @classmethod
    def begin(cls, step: Step, structure: Structure, batch: int) -> _Walk:
        """Returns where the paths of a batch begin."""
        zero, mu = structure.cone.zero, _BEGIN_MATRICES if structure.cone.semidefinite else _BEGIN
        x, equal, v = (np.zeros((batch, size)) for size in (structure.n, zero, structure.m - zero))
        place = _Place.of(step, x, equal, Frame.of(structure.cone, v))
        point = _Point.of(step, place, np.full((batch, 1), mu))
        return cls(step, point, _Aim(point.mu, np.zeros(batch)), np.zeros(batch))

    @property
    def merit(self) -> Sizes:
        """The sizes of the residuals."""
        return self.point.merit

    @property
    def status(self) -> Int[np.ndarray, " batch"]:
        """SOLVED where the path ends, or where residuals are small and steps gain little; else −1."""
        mu, merit = self.point.mu[:, 0], self.point.merit
        solved = (mu <= _END) & (merit <= _ROUNDING)
        solved |= (mu <= _SMALL) & (merit <= _RESIDUAL * _SMALL) & (self.stalled >= _STALLED)
        return np.where(solved, Status.SOLVED, -1)

    def advance(self, pending: Bool[np.ndarray, " batch"]) -> _Walk:
        """Takes one step."""
        start, mu = self.point, np.maximum(np.maximum(self.point.mu, self.aim.mu), _SHARP)
        if (mu > start.mu)[pending].any():
            start = _Point.of(self.step, start.place, mu)
        point, length = _advance(self.step, start, self.aim.mu, pending)
        merit, before = point.merit, self.point.merit
        stalled = np.where(merit > _SLOW * before, self.stalled + 1.0, 0.0)
        return _Walk(self.step, point, self.aim.lower(merit, before, length), stalled)

    def item(self, index: Index) -> _Walk:
        """Returns the walk of some items."""
        step = self.step.item(index)
        point = _Point.of(step, self.point.place.item(index), self.point.mu[index])
        return _Walk(step, point, self.aim.item(index), self.stalled[index])

    def write(self, index: Index, solution: Solution, items: Index) -> None:
        """Writes points of the path: where it has ended, those that it ends at."""
        place, mu = self.point.place.item(index), self.point.mu[index]
        place.write(solution, items, np.where(mu <= _END, _TINY, mu))


@dataclass(frozen=True, eq=False)
class _Aim:
    """The barrier parameters that steps aim at, and which shares of them the next ones are at least."""

    mu: Strength
    least: Sizes

    def item(self, index: Index) -> _Aim:
        """Returns those of some items."""
        return _Aim(self.mu[index], self.least[index])

    def lower(self, merit: Sizes, before: Sizes, length: Sizes) -> _Aim:
        """Returns what to aim at next, after steps of some length that left residuals of some size."""
        last, full = self.mu[:, 0], (length == 1.0).all()
        if full:
            least = _CAREFUL * self.least
        else:
            least = np.where(length > _SHORT, self.least, np.maximum(self.least, _CAREFUL))
            least = np.where(length == 1.0, _CAREFUL * least, least)
        lower = np.maximum(lowered(last, merit, before, _STEEPEST), least * last)
        lower = np.where((lower <= _LAST) & (least < _CAREFUL), _END, lower)
        lower = np.minimum(lower, last)
        if not full:
            stuck = (length == 0) | ((length <= 0.5**_HALVINGS) & (self.least >= _CAREFUL))
            lower = np.where(length > _SHORT, lower, np.where(stuck, _BACK * last, last))
        return _Aim(np.maximum(lower, _END)[:, None], least)


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
    mu: Strength
    merit: Sizes

    @classmethod
    def of(cls, step: Step, place: _Place, mu: Strength) -> _Point:
        metric = place.frame.at(mu)
        residual = step.residual(place.linear, metric.y, metric.y - place.frame.v)
        return cls(place, metric, residual, mu, np.fmin(step.size(residual), np.inf))


def _advance(step: Step, point: _Point, mu: Strength, pending: Bool[np.ndarray, " batch"]) -> tuple[_Point, Sizes]:
    """Returns where the longest of some steps leads that stays next to the path, and the steps."""
    length, place = np.ones(len(mu)), point.place
    way = _finite(step.direction(point.metric, point.residual, (mu / point.mu - 1.0) * point.metric.y))
    trial = _Point.of(step, place.moved(step, way, 1.0), mu)
    far = ~_is_near(trial, point.merit, _LEFT)
    if not far.any():
        return trial, length
    items, share = np.flatnonzero(far), 1.0
    reached, strength = trial.place.put(items, place.item(items)), mu.copy()
    strength[items], length[items] = point.mu[items], 0.0
    items = items[pending[items]]
    for _ in range(_HALVINGS):
        if not len(items):
            break
        share *= 0.5
        aim = (1.0 - share) * point.mu[items] + share * mu[items]
        end = place.item(items).moved(step.item(items), [part[items] for part in way], share)
        near = _is_near(_Point.of(step.item(items), end, aim), point.merit[items], 1.0 - 0.1 * share)
        found, chosen = items[near], np.flatnonzero(near)
        if len(found):
            reached, strength[found], length[found] = reached.put(found, end.item(chosen)), aim[chosen], share
        items = items[~near]
    return _Point.of(step, reached, strength), length


def _is_near(trial: _Point, merit: Sizes, left: float) -> Bool[np.ndarray, " batch"]:
    mu = trial.mu[:, 0]
    return trial.merit <= np.maximum(
        left * merit, np.where(mu > _SMALL, np.minimum(_AWAY * mu, _FAR), _RESIDUAL * _SMALL)
    )


def _finite(way: Sequence[Vectors]) -> Sequence[Vectors]:
    """Returns a way that leads nowhere where v would not be finite."""
    if np.isfinite(way[2]).all():
        return way
    return [np.nan_to_num(move, nan=0.0, posinf=0.0, neginf=0.0) for move in way]

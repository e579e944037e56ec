"""Kinks of the solution map: where a constraint holds with a zero multiplier, or a cone's projection bends at once.

There the derivative has more than one value. Points are known no better than their residuals, which the conditioning
amplifies, so that what lies near a kink may lie on either side of it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from cvxlayers.batches import Vectors, largest, some
from cvxlayers.cones import Derivative, Exponential, Power, Product, SecondOrder, Semidefinite, derivative_dual
from cvxlayers.derivative.terms import drowned
from cvxlayers.program import ConeProgram
from cvxlayers.residual import Point

# A dual and a slack both below this, relative to the largest of their kind, count as both zero: weakly active.
_WEAKLY_ACTIVE = 1e-10
# Multipliers this small beside the terms of the costs may be rounding.
_FAINT = 1e-6
# So do both below the residual of the point times the condition number of the system, up to this.
_FARTHEST, _ROUNDING = 1e-6, 1e-16
# Residuals are relative to all terms of a condition, of which multipliers and slacks may be as small a part as this.
_PART = 30.0
# A system with this condition number amplifies the residual of a polished point to no more than the first of these.
_WELL = 1e3
# Points with a larger residual are not exact.
INEXACT = 1e-12
# A system with a condition number below this is far from singular.
_DOUBTFUL = 1e9
# Across a kink of a curved cone's projection, its derivative of a random direction of size one jumps by more than this.
_JUMP = 1e-2
# So many directions are tried.
_PROBES = 4
# At so many times the distance of the probe from where the boundary bends, it is smooth.
_SMOOTH = 1e4

Sizes = tuple[Float[np.ndarray, "batch 1"], Float[np.ndarray, "batch 1"]]


def projection_derivative(
    program: ConeProgram, point: Point, telling: Bool[np.ndarray, " m"]
) -> tuple[Derivative, Bool[np.ndarray, " batch"]]:
    """Returns DΠ(v), with the rounding noise of weakly active inequality rows removed, and which items have such.

    Only those rows are asked that are `telling`.
    """
    cone = program.structure.cone
    derivative = cone.derivative(-point.v, point.s).complement()
    if not cone.nonnegative:
        return derivative, np.zeros(len(point.v), dtype=bool)
    rows = _inequalities(cone)
    v, y, small = point.v[:, rows], point.y[:, rows], _WEAKLY_ACTIVE * point.sizes[0]
    weak = _weak(cone, point, sizes_of(program, point))
    if not some(weak):
        return derivative, np.zeros(len(weak), dtype=bool)
    weak &= np.isfinite(v)
    # Where all multipliers are rounding, the largest of them says nothing.
    for item in np.flatnonzero(np.any(weak & (y > small), axis=1)).tolist():
        index = np.array([item])
        weak[item] &= (y[item] <= small[item]) | drowned(program.item(index), point.item(index))[rows]
    if not some(weak):
        return derivative, np.zeros(len(weak), dtype=bool)
    eigenvalues = derivative.eigenvalues.copy()
    eigenvalues[:, rows] = np.where(weak, 0.5, eigenvalues[:, rows])
    return replace(derivative, eigenvalues=eigenvalues), np.any(weak & telling[rows], axis=1)


def _inequalities(cone: Product) -> slice:
    return slice(cone.zero, cone.zero + cone.nonnegative)


def sizes_of(program: ConeProgram, point: Point) -> Sizes:
    """Returns the sizes of y and of the costs that it balances, where rounding comes from, and of s and b."""
    y, s = point.sizes
    return np.maximum(y, point.dual_scale[:, None]), np.maximum(s, program.sides[1][:, None])


def _weak(cone: Product, point: Point, sizes: Sizes) -> Bool[np.ndarray, "batch _rows"]:
    """Returns which inequalities may be weakly active: where all multipliers are small, the largest says nothing."""
    rows, (y, s) = _inequalities(cone), sizes
    small = np.maximum(_WEAKLY_ACTIVE * y, _FAINT * point.dual_scale[:, None])
    return (point.s[:, rows] <= _WEAKLY_ACTIVE * s) & (point.y[:, rows] <= small)


def is_smooth(
    program: ConeProgram,
    point: Point,
    condition: Float[np.ndarray, " batch"],
    redundant: Int[np.ndarray, " _count"] | None = None,
    smallest: Float[np.ndarray, " batch"] | None = None,
) -> Bool[np.ndarray, " batch"]:
    """Returns which points are exact, and clearly away from every kink, in programs that are not badly conditioned.

    Args:
        program: the programs.
        point: their solutions.
        condition: the condition numbers of their systems.
        redundant: rows that say nothing new: they are no kinks where they are active.
        smallest: how far the kinks of curved cones are, where that is known.
    """
    telling = telling_rows(program, redundant)
    clear = (condition <= _DOUBTFUL) & (point.merit <= INEXACT)
    cone, y = program.structure.cone, np.maximum(largest(point.y), point.dual_scale)
    sizes = y[:, None], point.primal_scale[:, None]
    weak = _weak(cone, point, sizes) & telling[_inequalities(cone)]
    return clear & ~weak.any(axis=1) & ~near_kinks(cone, point, sizes, telling, condition, smallest)


def telling_rows(program: ConeProgram, redundant: Int[np.ndarray, " _count"] | None) -> Bool[np.ndarray, " m"]:
    """Returns which rows say something that the others do not."""
    telling = np.ones(program.structure.m, dtype=bool)
    if redundant is not None:
        telling[redundant] = False
    return telling


class Reach(NamedTuple):
    """How near to a kink a point may lie on either side of it: relative to the sizes of y and s, and absolutely."""

    near: Float[np.ndarray, "batch 1"]
    sizes: Sizes

    @property
    def distance(self) -> Float[np.ndarray, "batch 1"]:
        """The distance."""
        return self.near * np.maximum(np.minimum(*self.sizes), 1e-3 * np.maximum(*self.sizes))

    def both_zero(self, y: Vectors, s: Vectors) -> Bool[np.ndarray, "batch _rows"]:
        """Returns which y and s may both be zero."""
        near = _PART * self.near
        return (y <= near * self.sizes[0]) & (s <= near * self.sizes[1])

    def is_smooth(self, smallest: Float[np.ndarray, " batch"]) -> Bool[np.ndarray, " batch"]:
        """Returns whether projections are smooth this near, from the distance of what bends.

        The boundary of an exponential cone bends within distances of the size of the smallest coordinate of y and s.
        """
        return smallest > _SMOOTH * self.distance[:, 0]


def reach(
    point: Point,
    condition: Float[np.ndarray, " batch"],
    sizes: Sizes,
) -> Reach:
    """Returns how near that is: it follows from the residual of the point, which the conditioning amplifies."""
    with np.errstate(invalid="ignore"):
        near = condition * np.maximum(point.merit, _ROUNDING)
    near = np.minimum(np.fmax(near, _WEAKLY_ACTIVE), _FARTHEST)
    return Reach(near[:, None], sizes)


def near_kinks(
    cone: Product,
    point: Point,
    sizes: Sizes,
    telling: Bool[np.ndarray, " m"],
    condition: Float[np.ndarray, " batch"],
    smallest: Float[np.ndarray, " batch"] | None = None,
) -> Bool[np.ndarray, " batch"]:
    """Returns which points have a kink of the projection so near that they may lie on either side of it.

    How far those of curved cones are may be known; they are `smallest` away.
    """
    if not cone.polyhedral:
        close = reach(point, condition, sizes)
        found = _weak_within(cone, point, close, telling)
        curved = _may_be_kinked(cone, point, close) if smallest is None else ~close.is_smooth(smallest)
        if some(curved):
            found[curved] |= _kinked(cone, point.v[curved], close.distance[curved])
        return found
    found = np.zeros(len(point.v), dtype=bool)
    items = (~(condition <= _WELL)).nonzero()[0]
    if len(items):
        mine = point if len(items) == len(found) else point.item(items)
        close = reach(mine, condition[items], (sizes[0][items], sizes[1][items]))
        found[items] = _weak_within(cone, mine, close, telling)
    return found


def _weak_within(
    cone: Product, point: Point, close: Reach, telling: Bool[np.ndarray, " m"]
) -> Bool[np.ndarray, " batch"]:
    """Returns which points have an inequality that is weakly active within reach."""
    rows = _inequalities(cone)
    return np.any(close.both_zero(point.y[:, rows], point.s[:, rows]) & telling[rows], axis=1)


def _may_be_kinked(cone: Product, point: Point, close: Reach) -> Bool[np.ndarray, " batch"]:
    """Returns which points are not clearly away from the kinks of curved cones; of power cones nothing is known.

    Those of second-order cones are where ‖z‖ = |t|, and those of semidefinite ones where an eigenvalue is zero.
    """
    y, s, v, smallest = point.y, point.s, point.v, np.full(len(point.v), np.inf)
    for part, rows in cone.groups:
        match part:
            case SecondOrder():
                t, _, norm = part.split(v[:, rows])
                smallest = np.minimum(smallest, np.abs(norm - np.abs(t)).min(axis=1))
            case Semidefinite():
                smallest = np.minimum(smallest, np.abs(part.spectrum(v[:, rows])).min(axis=(1, 2)))
            case Exponential():
                smallest = np.minimum(smallest, np.minimum(np.abs(y[:, rows]), np.abs(s[:, rows])).min(axis=1))
            case Power():
                return np.ones(len(y), dtype=bool)
    return ~close.is_smooth(smallest)


def _kinked(cone: Product, v: Vectors, distance: Float[np.ndarray, "batch 1"]) -> Bool[np.ndarray, " batch"]:
    """Returns whether the projection on a curved cone has a kink within about a distance of v.

    Across a kink its derivative jumps; where it is smooth, a step as small as this changes it hardly at all. One
    random direction may happen to lie along the kink.
    """
    curved, found = np.arange(v.shape[1]) >= cone.zero + cone.nonnegative, np.zeros(len(v), dtype=bool)
    for directions in np.random.default_rng(0).normal(size=(_PROBES, 2, 1, v.shape[1])):
        step, probe = directions * curved
        step, probe = distance * step, np.broadcast_to(probe, v.shape)
        ahead, behind = (derivative_dual(cone, v + sign * step).apply(probe) for sign in (1.0, -1.0))
        with np.errstate(invalid="ignore"):
            found |= np.max(np.abs(ahead - behind), axis=1, initial=0.0) > _JUMP
    return found

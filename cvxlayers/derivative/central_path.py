"""The point of the central path with a given barrier parameter, from the solution, by Newton's method.

Where Newton's method from the solution stalls, the path is followed from a large parameter down, where the map is
almost linear, each point from the one before.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cvxlayers.batches import Vectors, largest
from cvxlayers.cones import Smoothed
from cvxlayers.derivative.polish import polish
from cvxlayers.derivative.system import Factorise
from cvxlayers.program import ConeProgram
from cvxlayers.residual import Point

# Newton steps from the solution, and from each point of the path to the next.
_REACHED, _STEPS, _FEWER = 1e-10, 20, 8
# The parameter falls by this factor from one point of the path to the next.
_FALL = 0.1
# How much larger than the solution a point of the path may be, that there is a path.
_AWAY = 1e4


def central_point(program: ConeProgram, x: Vectors, v: Vectors, mu: float, factorise: Factorise) -> Point:
    """Returns the point with s ∘ y = μ e of each item; items for which there is none keep a residual.

    Args:
        program: the programs.
        x: their solutions.
        v: their solutions, y − s.
        mu: the barrier parameter.
        factorise: how the systems are factorised.
    """
    cone = program.structure.cone
    found = polish(program, x, v, factorise, _STEPS, Smoothed(cone, mu))
    far = np.flatnonzero(~(found.merit <= _REACHED))
    if not len(far):
        return _reached(found, x, v)
    items = program.item(far)
    start = max(mu, float(np.max(largest(v[far]), initial=1.0)) ** 2)
    steps = max(1, int(np.ceil(np.log(start / mu) / np.log(1.0 / _FALL))))
    point = found.item(far)
    point_x, point_v = x[far], v[far]
    for strength in [*np.geomspace(start, mu, steps, endpoint=False).tolist(), mu]:
        point = polish(items, point_x, point_v, factorise, _FEWER, Smoothed(cone, strength))
        point_x, point_v = point.x, point.v
    better = point.merit < found.merit[far]
    return _reached(found.put(far[better], point.item(np.flatnonzero(better))), x, v)


def _reached(found: Point, x: Vectors, v: Vectors) -> Point:
    """Gives points that ran away from their solutions an infinite residual: to them, all residuals are relative."""
    away = (largest(found.x) > _AWAY * (1.0 + largest(x))) | (largest(found.v) > _AWAY * (1.0 + largest(v)))
    return replace(found, merit=np.where(away, np.inf, found.merit)) if away.any() else found

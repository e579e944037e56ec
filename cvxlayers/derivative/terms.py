"""The sizes of the terms in each optimality condition by itself: what norms of all of them do not tell.

In badly chosen units a condition may be violated as much as its own terms are large, and still by little beside the
terms of the others; and a multiplier may be small beside the others, and still be more than rounding.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from cvxlayers.batches import Vectors
from cvxlayers.program import ConeProgram
from cvxlayers.residual import Point, evaluate

Sizes = Float[np.ndarray, " batch"]

# A multiplier's terms this small beside those of the costs are rounding.
_LOST = 1e-14
# Conditions whose terms are smaller than this, beside those of the others, count as of this size: they may be rounding.
_FLOOR = 1e-8


def drowned(program: ConeProgram, point: Point) -> Bool[np.ndarray, " m"]:
    """Returns which multipliers of one program no cost of its variables can tell from zero: each is rounding there."""
    A, entries = program.structure.A, np.abs(program.A[0])
    costs = _costs(program, point)
    costs = np.where(costs > 0, costs + A.rmatvec(np.abs(program.A), np.abs(point.y)), point.dual_scale[:, None])
    felt = entries * np.abs(point.y[0, A.rows]) > _LOST * costs[0, A.cols]
    return np.bincount(A.rows[felt], minlength=program.structure.m) == 0


def worst(program: ConeProgram, point: Point) -> Sizes:
    """Returns the largest residual of any condition relative to its own terms, per item."""
    A, found = program.structure.A, evaluate(program, point.x, point.v)
    entries = np.abs(program.A)
    dual = _costs(program, found) + A.rmatvec(entries, np.abs(found.y))
    primal = np.abs(program.b) + A.matvec(entries, np.abs(found.x)) + np.abs(found.s)
    return np.maximum(_ratio(found.dual, dual), _ratio(found.primal, primal))


def _costs(program: ConeProgram, point: Point) -> Vectors:
    P = program.structure.P
    return np.abs(program.q) + P.matvec(np.abs(program.P), np.abs(point.x))


def _ratio(residual: Vectors, terms: Vectors) -> Sizes:
    floor = _FLOOR * np.max(terms, axis=1, initial=0.0, keepdims=True)
    size = np.maximum(terms, floor)
    return np.max(np.divide(np.abs(residual), size, out=np.zeros(size.shape), where=size > 0), axis=1, initial=0.0)

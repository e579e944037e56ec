"""The conic residual map, its zeros and its size.

With v = y − s and Moreau's decomposition y = Π(v), s = Π(v) − v, where Π projects onto the dual cone K*,

    R(x, v) = [ Px + AᵀΠ(v) + q ;  Ax + Π(v) − v − b ]

vanishes exactly at the primal-dual solutions. Complementarity and membership of the cones hold by construction.

References: Busseti, Moursi, Boyd, "Solution refinement at regular points of conic problems" (2019), with τ = 1
eliminated; Healey, Nobel, Boyd, "Differentiating through a quadratic cone program" (2025), arXiv:2508.17522.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from cvxlayers.batches import Vectors, every, is_everything, largest, some
from cvxlayers.cones import Cone, Product
from cvxlayers.program import ConeProgram, Residuals

Sizes = Float[np.ndarray, "#batch"]

# A point whose relative residual is below this is a solution, beyond doubt.
EXACT = 1e-13
# A right-hand side below this part of the terms that would cancel in it is what rounding left of zero.
_ROUNDING = 1e-15
# How much larger than the products of y and s those of their largest values are, where these say something.
_CLEAR = 1e3


@dataclass(frozen=True, eq=False)
class Point:
    """A point (x, v) with y, s in their cones, the residual map there, and the sizes of the terms that cancel in it.

    `merit` is the larger of the two relative residuals, per item; infinite where the point is not finite.
    """

    x: Vectors
    v: Vectors
    y: Vectors
    s: Vectors
    dual: Vectors
    primal: Vectors
    dual_scale: Sizes
    primal_scale: Sizes
    merit: Sizes

    @cached_property
    def is_exact(self) -> bool:
        """Whether the residuals of all items are below every doubt."""
        return every(self.merit <= EXACT)

    @cached_property
    def sizes(self) -> tuple[Vectors, Vectors]:
        """The largest entries of y and of s, as columns."""
        return largest(self.y)[:, None], largest(self.s)[:, None]

    def accuracy(self, program: ConeProgram) -> Sizes:
        """As `merit`, but absolute where q or b sets no scale, since it is zero or b rounding: so may a solution be.

        It is never larger, and where the merit is beyond doubt, it is the merit.
        """
        merit = self.merit
        if self.is_exact:
            return merit
        doubtful = (~(merit <= EXACT)).nonzero()[0]
        if len(doubtful) == len(merit):
            return self.measured(program)
        merit = merit.copy()
        merit[doubtful] = self.item(doubtful).measured(program.item(doubtful))
        return merit

    def measured(self, program: ConeProgram) -> Sizes:
        """Returns the accuracy also of points beyond doubt."""
        dual_scale = np.where(np.any(program.q, axis=1), self.dual_scale, np.maximum(self.dual_scale, 1.0))
        primal_scale = np.where(np.any(program.b, axis=1), self.primal_scale, np.maximum(self.primal_scale, 1.0))
        primal_scale = np.maximum(primal_scale, _side_of_rounding(program))
        return relative(self.dual, self.primal, dual_scale, primal_scale)

    def item(self, index: slice | Int[np.ndarray, " k"]) -> Point:
        """Returns the points of some items."""
        if is_everything(index, len(self.x)):
            return self  # with what is known of it
        return Point(*(getattr(self, field.name)[index] for field in fields(self)))

    def compact(self) -> Point:
        """Returns the points with nothing but the sizes of their residuals."""
        return replace(self, dual=largest(self.dual)[:, None], primal=largest(self.primal)[:, None])

    def put(self, index: Int[np.ndarray, " k"], values: Point) -> Point:
        """Returns these points with the items `index` replaced."""
        if not len(index):
            return self
        if is_everything(index, len(self.x)):
            return values
        columns = [getattr(self, field.name).copy() for field in fields(self)]
        for column, field in zip(columns, fields(self), strict=True):
            column[index] = getattr(values, field.name)
        return Point(*columns)


def start(cone: Product, y: Vectors, s: Vectors, bias: float = 1.0) -> Vectors:
    """Returns the v from which to polish a solver's point: y − s, but for inequalities the larger of the two alone.

    An interior point keeps both y and s of an inequality above zero. Which of them vanishes is judged by their sizes
    relative to the largest of their kind, for they have different units; unless these are no larger than what the
    interior point leaves, and so mean nothing. With a bias y counts for as many times its size.
    """
    v, rows = y - s, slice(cone.zero, cone.zero + cone.nonnegative)
    y, s = y[:, rows], s[:, rows]
    with np.errstate(over="ignore"):
        products = y * s
        if not some(products):
            return v
        sizes = [largest(part)[:, None] for part in (y, s, products)]
        known = sizes[0] * sizes[1] > _CLEAR * sizes[2]
        unit_y, unit_s = (np.where(known, size, 1.0) for size in sizes[:2])
        v[:, rows] = np.where((s <= 0) | (bias * y * unit_s > s * unit_y), y, -s)
    return v


def evaluate(
    program: ConeProgram,
    x: Vectors,
    v: Vectors,
    cone: Cone | None = None,
    near: Vectors | None = None,
    unit: float | None = None,
) -> Point:
    """Evaluates the residual map at (x, v).

    Args:
        program: the programs.
        x: where.
        v: where.
        cone: a smoothed cone, for the map that vanishes on the central path; the program's own by default.
        near: what s is likely to be near; the result does not depend on it.
        unit: where Px + q counts as one term, of what size b counts for q of size one, if that is more than its own.
    """
    structure = program.structure
    s = structure.cone.project(-v, near) if cone is None or cone is structure.cone else cone.project(-v)
    y = v + s
    slope, (q, b) = structure.P.matvec(program.P, x), program.sides
    if unit is not None:
        slope += program.q
        q, b = np.zeros(1), np.maximum(b, unit * q)
    dual = structure.A.rmatvec(program.A, y)
    primal = structure.A.matvec(program.A, x)
    dual += slope
    if unit is None:
        dual += program.q
    primal += s
    primal -= program.b
    # Where three terms cancel, the third is at most twice as large as the larger of two.
    scales = np.maximum(largest(slope), q), np.maximum(largest(s), b)
    point = Point(x, v, y, s, dual, primal, *scales, relative(dual, primal, *scales))
    return point if point.is_exact else _by_terms(program, point, None if unit is None else slope)


def _by_terms(program: ConeProgram, point: Point, slope: Vectors | None) -> Point:
    """Returns points with larger scales where the residual is not below every doubt: |P||x| + |A|ᵀ|y| and |A||x|.

    A sum may be small because its own terms cancel, as in Ax = 0: then their size is the measure. It costs as much as
    the residual. The slope of the costs stands for |P||x| where it counts as one term.
    """
    items = (~(point.merit <= EXACT)).nonzero()[0]
    part, x, y = program.item(items), np.abs(point.x[items]), np.abs(point.y[items])
    structure, A = program.structure, np.abs(part.A)
    costs = structure.P.matvec(np.abs(part.P), x) if slope is None else np.abs(slope[items])
    dual, primal = costs + structure.A.rmatvec(A, y), structure.A.matvec(A, x)
    scales = point.dual_scale.copy(), point.primal_scale.copy()
    for scale, term in zip(scales, (dual, primal), strict=True):
        scale[items] = np.maximum(scale[items], largest(term))
    merit = relative(point.dual, point.primal, *scales)
    return replace(point, dual_scale=scales[0], primal_scale=scales[1], merit=merit)


def relative(dual: Vectors, primal: Vectors, dual_scale: Sizes, primal_scale: Sizes) -> Sizes:
    """Returns max(‖dual‖∞ / dual_scale, ‖primal‖∞ / primal_scale), with 0 / 0 = 0 and infinity where not finite."""
    with np.errstate(invalid="ignore"):  # infinity over infinity, of invalid data
        worst = np.maximum(_ratio(largest(dual), dual_scale), _ratio(largest(primal), primal_scale))
    return np.fmin(worst, np.inf)  # infinite for NaN


def residuals(program: ConeProgram, point: Point) -> Residuals:
    """Returns the relative residuals of a point, the duality gap among them."""
    with np.errstate(invalid="ignore"):
        return Residuals(
            primal=_ratio(largest(point.primal), point.primal_scale),
            dual=_ratio(largest(point.dual), point.dual_scale),
            gap=gap(program, point),
        )


def gap(program: ConeProgram, point: Point) -> Sizes:
    """Returns the duality gap xᵀPx + qᵀx + bᵀy: what the residuals do to the optimal value, and multipliers amplify.

    It is relative to the optimal value, or where that vanishes to its natural size, |q| for x of size |b| / |A|.
    """
    quadratic = np.sum(point.x * program.structure.P.matvec(program.P, point.x), axis=1)
    linear, dual = np.sum(program.q * point.x, axis=1), np.sum(program.b * point.y, axis=1)
    _, q, A, b = program.sizes
    value = np.maximum(np.max(np.abs([quadratic, linear]), axis=0), q * natural(b, A))
    with np.errstate(invalid="ignore"):
        return _ratio(np.abs(quadratic + linear + dual), value)


def natural(size: Sizes, unit: Sizes) -> Sizes:
    """Returns size / unit, and one where either vanishes: there is no natural size then."""
    known = (size > 0) & (unit > 0)
    return np.where(known, size / np.where(known, unit, 1.0), 1.0)


def lopsided(program: ConeProgram, point: Point) -> Sizes:
    """Returns the largest residual of an equality, an inequality or a variable in its own units, per item.

    In badly chosen units a condition may be violated wholly, and by little beside the terms of the others. What is one
    in its units is told by its coefficients, for variables and multipliers as large as any.
    """
    structure, found = program.structure, evaluate(program, point.x, point.v)
    linear = structure.cone.zero + structure.cone.nonnegative
    P, A = np.abs(program.P), np.abs(program.A)
    every_x, every_y = np.ones((len(A), structure.n)), np.ones((len(A), structure.m))
    across, along = structure.A.matvec(A, every_x), structure.A.rmatvec(A, every_y)
    x = np.maximum(largest(found.x), _length(program.b, across))[:, None]
    y = np.maximum(largest(found.y), _length(program.q, along))[:, None]
    primal = np.abs(program.b) + across * x
    dual = np.abs(program.q) + structure.P.matvec(P, np.ones((len(P), structure.n))) * x + along * y
    return np.maximum(_share(found.primal[:, :linear], primal[:, :linear]), _share(found.dual, dual))


def _length(sides: Vectors, coefficients: Vectors) -> Sizes:
    """Returns the largest size of the unknowns that one condition alone would ask for; one where no side is given."""
    sizes = np.divide(
        np.abs(sides),
        coefficients,
        out=np.zeros(np.broadcast_shapes(sides.shape, coefficients.shape)),
        where=coefficients > 0,
    )
    return np.where(np.any(sides, axis=1), largest(sizes), 1.0)


def _share(residual: Vectors, terms: Vectors) -> Sizes:
    return largest(np.divide(residual, terms, out=np.zeros(residual.shape), where=terms > 0))


def _side_of_rounding(program: ConeProgram) -> Sizes:
    """Returns the size of Ax for x of its natural size |q| / |P|, where b is nothing but rounding of that, else 0."""
    P, q, A, b = program.sizes
    known = (P > 0) & (q > 0)
    length = np.where(known, q, 1.0) / np.where(known, P, 1.0)
    return np.where(b <= _ROUNDING * A * length, A * length, 0.0)


def _ratio(size: Sizes, scale: Sizes) -> Sizes:
    if every(scale > 0):
        return size / scale
    return np.divide(size, scale, out=np.where(size == 0, 0.0, np.inf), where=scale > 0)

"""The derivative of a solution with respect to P, q, A, b, forwards and backwards, by the implicit function theorem."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, final

import numpy as np
from jaxtyping import Bool, Float, Int

from cvxlayers.cones import (
    Derivative,
    Exponential,
    Power,
    Product,
    SecondOrder,
    Semidefinite,
    Smoothed,
    derivative_dual,
)
from cvxlayers.derivative.system import Factorisation, Factorise, Rank, Solve, System
from cvxlayers.derivative.terms import drowned, worst
from cvxlayers.program import ConeProgram, Values, Vectors
from cvxlayers.residual import Point

# A dual and a slack both below this, relative to the largest of their kind, count as both zero: weakly active.
_WEAKLY_ACTIVE = 1e-10
# Multipliers this small beside the terms of the costs may be rounding.
_FAINT = 1e-6
# So do both below the residual of the point times the condition number of the system, up to this.
_FARTHEST, _ROUNDING = 1e-6, 1e-16
# A system with this condition number amplifies the residual of a polished point to no more than the first of these.
_WELL = 1e3
# A derivative is doubtful where the residual of its point, amplified by the system, is larger than this.
_BLURRED = 1e-4
# Of points with a larger residual than the first, one condition's may be so many times as large as that of all.
_INEXACT, _UNLIKE = 1e-12, 1e4
# Of formulas no more than this, and of systems with a larger condition number, they leave the derivative to pivoting.
_CLEAR, _DOUBTFUL = 1e-3, 1e9
# A null vector's part that is below this does not reach the outputs.
_HIDDEN = 1e-6
# Across a kink of a curved cone's projection, its derivative of a random direction of size one jumps by more than this.
_JUMP = 1e-2
# So many directions are tried.
_PROBES = 4
# At so many times the distance of the probe from where the boundary bends, it is smooth.
_SMOOTH = 1e4
# Relative residuals and condition numbers up to which a derivative counts as reliable.
TRUSTED, CONDITIONED = 1e-6, 1e10


Sizes = tuple[Float[np.ndarray, "batch 1"], Float[np.ndarray, "batch 1"]]


class Data(NamedTuple):
    """A tangent or cotangent of the program's data, on the stored patterns.

    P and its tangents are symmetric, so that only the symmetric part of a cotangent of P means anything.
    """

    P: Values
    q: Vectors
    A: Values
    b: Vectors


class Needs(NamedTuple):
    """Which parts of the data's cotangent are asked for: those that parameters enter."""

    P: bool = True
    q: bool = True
    A: bool = True
    b: bool = True

    @property
    def dual(self) -> bool:
        """Whether the adjoint of the primal residual is."""
        return self.A or self.b

    def pull(self, program: ConeProgram, point: Point, lam: Vectors, mu: Vectors) -> Data:
        """Returns the cotangent of the data for the adjoints of both residuals; what is not needed has no entries."""
        P, A, nothing = program.structure.P, program.structure.A, np.zeros((len(lam), 0))
        A_bar = A.outer((-point.y, lam), (-mu, point.x)) if self.A else nothing
        return Data(P.outer((-lam, point.x)) if self.P else nothing, -lam, A_bar, mu)


_ALL = Needs()


@dataclass(frozen=True, eq=False)
class DerivativeInfo:
    """How far a derivative can be trusted, per item.

    Attributes:
        residual: relative residual ‖K u − rhs‖∞ / ‖rhs‖∞ of the linear solve; where K amplifies the residual of the
            solution itself to more than 1e-4, that; for a smoothed derivative also that of the point of the central
            path, for lpgd infinite where neither perturbed program has a solution.
        condition: estimate of the condition number of K: errors of the solution are amplified by no more than about it.
        not_unique: whether the layer's listed variables could take other values that are as good; the derivative is
            then the least-squares one of smallest norm. Variables that are not listed, and such as CVXPY introduced,
            do not count; dual variables do not either, of which `dependent` tells.
        dependent: whether active constraints depend on one another, so that their dual variables are not unique; the
            derivative is then again that of smallest norm.
        weakly_active: whether a constraint holds with equality and a zero multiplier, so that the solution map has a
            kink: the derivative is then the mean of the two sides, or for curved cones one of them.
    """

    residual: Float[np.ndarray, "*batch"]
    condition: Float[np.ndarray, "*batch"]
    not_unique: Bool[np.ndarray, "*batch"]
    dependent: Bool[np.ndarray, "*batch"]
    weakly_active: Bool[np.ndarray, "*batch"]

    @property
    def degenerate(self) -> Bool[np.ndarray, "*batch"]:
        """Whether the system was singular: the solution not unique, or active constraints dependent."""
        return np.asarray(self.not_unique | self.dependent)

    @property
    def reliable(self) -> Bool[np.ndarray, "*batch"]:
        """Whether nothing speaks against the derivative: solved well, regular, well-conditioned, and not at a kink."""
        sound = (self.residual <= TRUSTED) & (self.condition <= CONDITIONED)
        return np.asarray(sound & ~self.degenerate & ~self.weakly_active)


class Differential(ABC):
    """The solution map of a batch of programs, linearised at their solutions."""

    program: ConeProgram
    point: Point

    @abstractmethod
    def solve(self, first: Vectors, second: Vectors, dual: bool = True) -> tuple[Vectors, Vectors, DerivativeInfo]:
        """Solves P λ + Aᵀμ = f, D(A λ + μ − g) = μ: what tangents and cotangents of solutions have in common.

        Args:
            first: f, of the dual residual, or the cotangents of x.
            second: g, of the primal residual, or the cotangents of y.
            dual: whether μ is asked for.

        Returns:
            λ, μ, and how far to trust them.
        """


@final
@dataclass(frozen=True, eq=False)
class Linearisation(Differential):
    """The solution map of a batch of programs, its system factorised.

    `rank` is that of the systems as far as the outputs can see it. `offset` is how far the points are from the central
    path; where solutions themselves are differentiated, what their residual does to the derivative where that is much.
    """

    program: ConeProgram
    point: Point
    system: System
    factors: Factorisation
    rank: Rank
    weakly_active: Bool[np.ndarray, " batch"]
    offset: Float[np.ndarray, " batch"]

    def solve(self, first: Vectors, second: Vectors, dual: bool = True) -> tuple[Vectors, Vectors, DerivativeInfo]:
        """Solves by the factors."""
        system = self.system
        solve = self.factors.solve(first, system.to_eigen(second) if second.any() else second)
        return solve.first, system.from_eigen(solve.second) if dual else solve.second, self._trust(solve)

    def _trust(self, solve: Solve) -> DerivativeInfo:
        """Returns how far a derivative from one linear solve can be trusted."""
        rank, residual = self.rank, np.maximum(solve.residual, self.offset)
        return DerivativeInfo(residual, rank.condition, rank.not_unique, rank.dependent, self.weakly_active)


def linearise(
    program: ConeProgram,
    point: Point,
    factorise: Factorise,
    smoothed: Smoothed | None = None,
    outputs: Callable[[Vectors], Vectors] | None = None,
    redundant: Int[np.ndarray, " _count"] | None = None,
) -> Linearisation:
    """Factorises the Jacobian of the residual map at the solutions `point`, or at points of the central path.

    Args:
        program: the programs.
        point: their solutions; with `smoothed`, points of the central path.
        factorise: how the systems are factorised.
        smoothed: the smoothed cone whose central path it is.
        outputs: what of x is asked for, a linear map; all of it by default.
        redundant: rows that say nothing new, such as copies of others: they are no kinks where they are active.
    """
    telling = _telling(program, redundant)
    if smoothed is None:
        derivative, weakly_active = projection_derivative(program, point, telling)
    else:
        derivative, weakly_active = derivative_dual(smoothed, point.v), np.zeros(len(point.v), dtype=bool)
    system = System(program, derivative)
    factors = factorise(system)
    rank = _seen(factors.rank, outputs)
    if smoothed is not None:
        return Linearisation(program, point, system, factors, rank, weakly_active, point.merit)
    weakly_active |= _near_kinks(program.structure.cone, point, _sizes(program, point), telling, rank.condition)
    return Linearisation(program, point, system, factors, rank, weakly_active, _blurred(program, rank, point))


def _seen(rank: Rank, outputs: Callable[[Vectors], Vectors] | None) -> Rank:
    """Returns the rank without what is not unique but reaches no output, such as a bound that CVXPY introduced."""
    if outputs is None or not rank.not_unique.any():
        return rank
    items = np.flatnonzero(rank.not_unique)
    free = rank.free[items]
    hidden = items[~(_size(outputs(free)) > _HIDDEN * _size(free))[:, 0]]
    not_unique, condition = rank.not_unique.copy(), rank.condition.copy()
    not_unique[hidden] = False
    hidden = hidden[~rank.dependent[hidden]]
    condition[hidden] = rank.inverted[hidden]
    return replace(rank, not_unique=not_unique, condition=condition)


def _blurred(program: ConeProgram, rank: Rank, point: Point) -> Float[np.ndarray, " batch"]:
    """Returns the relative error that the residual of a point may cause in its derivative, where that is much.

    The system is known as well as the point is: singular values below the point's residual may as well be zero. And
    where a condition is violated far more than all of them together say, the point may be on another face.
    """
    blur = np.zeros(len(rank.inverted))
    with np.errstate(invalid="ignore"):
        clear = (rank.inverted * point.merit <= _BLURRED) & (point.merit <= _INEXACT)
        if clear.all():
            return blur
        items = np.flatnonzero(~clear)
        blur[items] = rank.inverted[items] * point.item(items).measured(program.item(items))
        blur = np.where(blur > _BLURRED, blur, 0.0)
        single = worst(program.item(items), point.item(items))
        hidden = single > np.maximum(TRUSTED, _UNLIKE * point.merit[items])
        blur[items] = np.maximum(blur[items], np.where(hidden, single, 0.0))
    return np.minimum(blur, 1.0)


def projection_derivative(
    program: ConeProgram, point: Point, telling: Bool[np.ndarray, " m"]
) -> tuple[Derivative, Bool[np.ndarray, " batch"]]:
    """Returns DΠ(v), with the rounding noise of weakly active inequality rows removed, and which items have such.

    Only those rows are asked that are `telling`.
    """
    cone = program.structure.cone
    derivative = cone.derivative(-point.v, point.s).complement()
    rows = _inequalities(cone)
    v, y, small = point.v[:, rows], point.y[:, rows], _WEAKLY_ACTIVE * point.sizes[0]
    weak = _weak(cone, point, _sizes(program, point))
    if not weak.any():
        return derivative, np.zeros(len(weak), dtype=bool)
    weak &= np.isfinite(v)
    # Where all multipliers are rounding, the largest of them says nothing.
    for item in np.flatnonzero(np.any(weak & (y > small), axis=1)).tolist():
        index = np.array([item])
        weak[item] &= (y[item] <= small[item]) | drowned(program.item(index), point.item(index))[rows]
    if not weak.any():
        return derivative, np.zeros(len(weak), dtype=bool)
    eigenvalues = derivative.eigenvalues.copy()
    eigenvalues[:, rows] = np.where(weak, 0.5, eigenvalues[:, rows])
    return replace(derivative, eigenvalues=eigenvalues), np.any(weak & telling[rows], axis=1)


def _inequalities(cone: Product) -> slice:
    return slice(cone.zero, cone.zero + cone.nonnegative)


def _sizes(program: ConeProgram, point: Point) -> Sizes:
    """Returns the sizes of y, and of s and b."""
    y, s = point.sizes
    return y, np.maximum(s, _size(program.b))


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
) -> Bool[np.ndarray, " batch"]:
    """Returns which points are exact, and clearly away from every kink, in programs that are not badly conditioned.

    Args:
        program: the programs.
        point: their solutions.
        condition: the condition numbers of their systems.
        redundant: rows that say nothing new: they are no kinks where they are active.
    """
    telling = _telling(program, redundant)
    with np.errstate(invalid="ignore"):
        clear = (condition <= _DOUBTFUL) & (point.merit <= _INEXACT) & (condition * point.merit <= _CLEAR)
    cone, sizes = program.structure.cone, _sizes(program, point)
    weak = _weak(cone, point, sizes) & telling[_inequalities(cone)]
    return clear & ~weak.any(axis=1) & ~_near_kinks(cone, point, sizes, telling, condition)


def _telling(program: ConeProgram, redundant: Int[np.ndarray, " _count"] | None) -> Bool[np.ndarray, " m"]:
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
        return (y <= self.near * self.sizes[0]) & (s <= self.near * self.sizes[1])

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


def _near_kinks(
    cone: Product,
    point: Point,
    sizes: Sizes,
    telling: Bool[np.ndarray, " m"],
    condition: Float[np.ndarray, " batch"],
) -> Bool[np.ndarray, " batch"]:
    """Returns which points have a kink of the projection so near that they may lie on either side of it."""
    found = np.zeros(len(point.v), dtype=bool)
    far = condition <= _WELL if cone.polyhedral else found
    if far.all():
        return found
    items = np.flatnonzero(~far)
    mine = point if len(items) == len(found) else point.item(items)
    y, s, v = mine.y, mine.s, mine.v
    close = reach(mine, condition[items], (sizes[0][items], sizes[1][items]))
    rows = _inequalities(cone)
    found[items] = np.any(close.both_zero(y[:, rows], s[:, rows]) & telling[rows], axis=1)
    if not cone.polyhedral:
        curved = _may_be_kinked(cone, mine, close)
        if curved.any():
            found[items[curved]] |= _kinked(cone, v[curved], close.distance[curved])
    return found


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


def jvp(at: Differential, tangent: Data) -> tuple[Vectors, Vectors, Vectors, DerivativeInfo]:
    """Returns (dx, dy, ds) for a tangent of the data."""
    program, point = at.program, at.point
    P, A = program.structure.P, program.structure.A
    r1 = -(P.matvec(tangent.P, point.x) + A.rmatvec(tangent.A, point.y) + tangent.q)
    r2 = tangent.b - A.matvec(tangent.A, point.x)
    dx, dy, info = at.solve(r1, r2)
    return dx, dy, r2 - A.matvec(program.A, dx), info


def vjp(
    at: Differential, x: Vectors, y: Vectors, s: Vectors | None = None, needs: Needs = _ALL
) -> tuple[Data, DerivativeInfo]:
    """Returns the cotangent of the data for cotangents of x, y and s, None being zero: the adjoint of `jvp`."""
    first = x if s is None else x - at.program.structure.A.rmatvec(at.program.A, s)
    lam, mu, info = at.solve(first, y, needs.dual)
    return needs.pull(at.program, at.point, lam, mu if s is None else s + mu), info


def _size(w: Vectors) -> Float[np.ndarray, "batch 1"]:
    return np.maximum.reduce(np.abs(w), axis=1, initial=0.0, keepdims=True)

"""The derivative of a solution with respect to P, q, A, b, forwards and backwards, by the implicit function theorem."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, final

import numpy as np
from jaxtyping import Bool, Float, Int

from cvxlayers.batches import Values, Vectors, every, is_moving, largest, some
from cvxlayers.cones import Smoothed, derivative_dual
from cvxlayers.derivative.kinks import INEXACT, near_kinks, projection_derivative, sizes_of, telling_rows
from cvxlayers.derivative.system import Factorisation, Factorise, Rank, Solve, System
from cvxlayers.derivative.terms import worst
from cvxlayers.program import ConeProgram
from cvxlayers.residual import Point, natural

# A derivative is doubtful where the residual of its point, amplified by the system, is larger than this.
_BLURRED = 1e-4
# Relative residuals are this large by rounding.
_FINE = 1e-16
# Of points that are not exact, one condition's residual may be so many times as large as that of all.
_UNLIKE = 1e4
# A null vector's part that is below this does not reach the outputs.
_HIDDEN = 1e-6
# Relative residuals and condition numbers up to which a derivative counts as reliable.
TRUSTED, CONDITIONED = 1e-6, 1e10


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
        return Data(P.outer((-lam, point.x)) if self.P else nothing, -lam if self.q else nothing, A_bar, mu)


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

    def doubted(self, lost: Bool[np.ndarray, " batch"]) -> DerivativeInfo:
        """Returns how far to trust derivatives of which some items have lost their digits to underflow."""
        return replace(self, residual=np.where(lost, np.maximum(self.residual, 1.0), self.residual))


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
        solve = self.factors.solve(first, system.to_eigen(second) if is_moving(second) else second)
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
    telling = telling_rows(program, redundant)
    if smoothed is None:
        derivative, weakly_active = projection_derivative(program, point, telling)
    else:
        derivative, weakly_active = derivative_dual(smoothed, point.v), np.zeros(len(point.v), dtype=bool)
    system = System(program, derivative)
    factors = factorise(system)
    rank = _seen(factors.rank, outputs)
    if smoothed is not None:
        return Linearisation(program, point, system, factors, rank, weakly_active, point.merit)
    weakly_active |= near_kinks(program.structure.cone, point, sizes_of(program, point), telling, rank.condition)
    offset = np.maximum(_blurred(program, rank, point), _adrift(system, factors, point, outputs))
    return Linearisation(program, point, system, factors, rank, weakly_active, offset)


def _seen(rank: Rank, outputs: Callable[[Vectors], Vectors] | None) -> Rank:
    """Returns the rank without what is not unique but reaches no output, such as a bound that CVXPY introduced."""
    if outputs is None or not some(rank.not_unique):
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
        clear = (rank.inverted * point.merit <= _BLURRED) & (point.merit <= INEXACT)
        if every(clear):
            return blur
        items = (~clear).nonzero()[0]
        blur[items] = rank.inverted[items] * point.item(items).measured(program.item(items))
        blur = np.where(blur > _BLURRED, blur, 0.0)
        single = worst(program.item(items), point.item(items))
        hidden = single > np.maximum(TRUSTED, _UNLIKE * point.merit[items])
        blur[items] = np.maximum(blur[items], np.where(hidden, single, 0.0))
    return np.minimum(blur, 1.0)


def _adrift(
    system: System, factors: Factorisation, point: Point, outputs: Callable[[Vectors], Vectors] | None
) -> Float[np.ndarray, " batch"]:
    """Returns how far rounding, or another Newton step, may lead outputs, relative to x, where that is much.

    A cost of exponentials that hardly feels a variable bends by as little along it: the point is then anywhere along
    it, perhaps beside another face. The condition number does not tell, as it is one of K in good units.
    """
    program = system.program
    if not program.structure.cone.exponential:
        return np.zeros(len(point.v))
    error = np.maximum(point.merit, _FINE) * point.dual_scale
    step, _ = factors.once(np.broadcast_to(error[:, None], point.x.shape), np.zeros(point.v.shape))
    step = step if outputs is None else outputs(step)
    drift = largest(step) / np.maximum(largest(point.x), natural(program.sizes.b, program.sizes.A))
    return np.where(drift <= _BLURRED, 0.0, np.fmin(drift, 1.0))


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

"""The derivative of a solution with respect to P, q, A, b, forwards and backwards, by the implicit function theorem."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from cvxlayers.cones import Derivative, derivative_dual
from cvxlayers.derivative.residual import Point
from cvxlayers.derivative.system import Factorisation, Factorise, System
from cvxlayers.program import ConeProgram, Values, Vectors

# A dual and a slack both below this, relative to the largest of their kind, count as both zero: weakly active.
_WEAKLY_ACTIVE = 1e-10


class Data(NamedTuple):
    """A tangent or cotangent of the program's data, on the stored patterns.

    P and its tangents are symmetric, so that only the symmetric part of a cotangent of P means anything.
    """

    P: Values
    q: Vectors
    A: Values
    b: Vectors


@dataclass(frozen=True, eq=False)
class DerivativeInfo:
    """How far a derivative can be trusted, per item.

    Attributes:
        residual: relative residual ‖K u − rhs‖∞ / ‖rhs‖∞ of the linear solve.
        degenerate: whether the system was singular (dependent active constraints, non-unique solution): the derivative
            is then the least-squares one of smallest norm.
        weakly_active: whether a constraint holds with equality and a zero multiplier, so that the solution map has a
            kink: the derivative is then the mean of the two sides.
    """

    residual: Float[np.ndarray, "*batch"]
    degenerate: Bool[np.ndarray, "*batch"]
    weakly_active: Bool[np.ndarray, "*batch"]


@dataclass(frozen=True, eq=False)
class Linearisation:
    """The solution map of a batch of programs, linearised and factorised at their solutions."""

    program: ConeProgram
    point: Point
    system: System
    factors: Factorisation
    weakly_active: Bool[np.ndarray, " batch"]


def linearise(program: ConeProgram, point: Point, factorise: Factorise) -> Linearisation:
    """Factorises the Jacobian of the residual map at the solutions `point`."""
    derivative, weakly_active = projection_derivative(program, point)
    system = System(program, derivative)
    return Linearisation(program, point, system, factorise(system), weakly_active)


def projection_derivative(program: ConeProgram, point: Point) -> tuple[Derivative, Bool[np.ndarray, " batch"]]:
    """Returns DΠ(v), with the rounding noise of weakly active inequality rows removed, and which items have such."""
    cone = program.structure.cone
    derivative = derivative_dual(cone, point.v)
    rows = slice(cone.zero, cone.zero + cone.nonnegative)
    v, y, s = point.v[:, rows], point.y[:, rows], point.s[:, rows]
    weak = (y <= _WEAKLY_ACTIVE * _size(point.y)) & (s <= _WEAKLY_ACTIVE * np.maximum(_size(point.s), _size(program.b)))
    weak &= np.isfinite(v)
    if weak.any():
        eigenvalues = derivative.eigenvalues.copy()
        eigenvalues[:, rows] = np.where(weak, 0.5, eigenvalues[:, rows])
        derivative = replace(derivative, eigenvalues=eigenvalues)
    return derivative, np.any(weak, axis=1)


def jvp(linearisation: Linearisation, tangent: Data) -> tuple[Vectors, Vectors, Vectors, DerivativeInfo]:
    """Returns (dx, dy, ds) for a tangent of the data."""
    program, point, system = linearisation.program, linearisation.point, linearisation.system
    P, A = program.structure.P, program.structure.A
    r1 = -(P.matvec(tangent.P, point.x) + A.rmatvec(tangent.A, point.y) + tangent.q)
    r2 = tangent.b - A.matvec(tangent.A, point.x)
    solve = linearisation.factors.solve(r1, system.to_eigen(r2))
    dx, dy = solve.first, system.from_eigen(solve.second)
    ds = r2 - A.matvec(program.A, dx)
    return dx, dy, ds, DerivativeInfo(solve.residual, solve.degenerate, linearisation.weakly_active)


def vjp(linearisation: Linearisation, x: Vectors, y: Vectors, s: Vectors) -> tuple[Data, DerivativeInfo]:
    """Returns the cotangent of the data for cotangents of x, y and s: the adjoint of `jvp`."""
    program, point, system = linearisation.program, linearisation.point, linearisation.system
    P, A = program.structure.P, program.structure.A
    solve = linearisation.factors.solve(x - A.rmatvec(program.A, s), system.to_eigen(y))
    lam, mu = solve.first, s + system.from_eigen(solve.second)
    A_bar = A.outer(-point.y, lam)
    A_bar -= A.outer(mu, point.x)
    return Data(P.outer(-lam, point.x), -lam, A_bar, mu), DerivativeInfo(
        solve.residual, solve.degenerate, linearisation.weakly_active
    )


def _size(w: Vectors) -> Float[np.ndarray, "batch 1"]:
    return np.max(np.abs(w), axis=1, initial=0.0, keepdims=True)

"""The second derivative of a solution with respect to P, q, A, b, from the factorisation of the first.

Let a prime denote the derivative along a direction of the data, and D' that of D = DΠ(v) along v'. The vjp solves
Pλ + Aᵀμ = x̄ and D(Aλ − ȳ) + (D − I)μ = 0, so that

    Pλ' + Aᵀμ' = x̄' − P'λ − A'ᵀμ,      D Aλ' + (D − I)μ' = D(ȳ' − A'λ) + e,      e = D'(ȳ − Aλ − μ),

and e = De + (D − I)(−e): again a vjp, with the cotangents (x̄' − P'λ − A'ᵀμ, ȳ' − A'λ + e, −e). The jvp along a first
direction, differentiated along a second one, is likewise again a jvp.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from cvxlayers.batches import Vectors
from cvxlayers.cones import second_derivative_dual
from cvxlayers.derivative.implicit import Data, DerivativeInfo, Differential, jvp


@dataclass(frozen=True, eq=False)
class Motion:
    """A tangent of the data, and the tangents of the solution along it."""

    data: Data
    x: Vectors
    y: Vectors
    s: Vectors
    info: DerivativeInfo


def move(at: Differential, data: Data) -> Motion:
    """Returns how the solutions move along a tangent of the data."""
    return Motion(data, *jvp(at, data))


def vjp_tangent(
    at: Differential,
    cotangents: tuple[Vectors, Vectors],
    motion: Motion,
    cotangents_tangent: tuple[Vectors, Vectors],
) -> tuple[Data, Data, DerivativeInfo]:
    """Returns the vjp and its tangent.

    Args:
        at: the solution maps.
        cotangents: those of x and y.
        motion: of the solutions.
        cotangents_tangent: how the cotangents of x and y move meanwhile.

    Returns:
        The cotangent of the data, the tangent of that cotangent, and how far to trust them.

    Raises:
        DerivativeError: if a cone of the program offers no second derivative.
    """
    program, point = at.program, at.point
    P, A = program.structure.P, program.structure.A
    (x_bar, y_bar), (dx_bar, dy_bar) = cotangents, cotangents_tangent
    lam, mu, first = at.solve(x_bar, y_bar)
    rest = y_bar - A.matvec(program.A, lam) - mu
    e = second_derivative_dual(program.structure.cone, point.v, motion.y - motion.s, rest)
    x2 = dx_bar - P.matvec(motion.data.P, lam) - A.rmatvec(motion.data.A, mu)
    y2 = dy_bar - A.matvec(motion.data.A, lam) + e
    dlam, dmu, second = at.solve(x2 + A.rmatvec(program.A, e), y2)
    dmu = dmu - e
    cotangent = Data(
        P=-0.5 * P.outer((lam, point.x), (point.x, lam)),
        q=-lam,
        A=-A.outer((point.y, lam), (mu, point.x)),
        b=mu,
    )
    tangent = Data(
        P=-0.5 * P.outer((dlam, point.x), (lam, motion.x), (point.x, dlam), (motion.x, lam)),
        q=-dlam,
        A=-A.outer((motion.y, lam), (point.y, dlam), (dmu, point.x), (mu, motion.x)),
        b=dmu,
    )
    return cotangent, tangent, worst_of([motion.info, first, second])


def second_jvp(
    at: Differential, first: Motion, second: Motion, curvature: Data
) -> tuple[Vectors, Vectors, DerivativeInfo]:
    """Returns the second derivative of x and y along two directions.

    Args:
        at: the solution maps.
        first: the motion along one direction.
        second: the motion along the other.
        curvature: the second derivative of the data along both.

    Raises:
        DerivativeError: if a cone of the program offers no second derivative.
    """
    program, point = at.program, at.point
    P, A = program.structure.P, program.structure.A
    e = second_derivative_dual(program.structure.cone, point.v, second.y - second.s, first.y - first.s)
    r1 = P.matvec(curvature.P, point.x) + A.rmatvec(curvature.A, point.y) + curvature.q + A.rmatvec(program.A, e)
    r2 = curvature.b - A.matvec(curvature.A, point.x) - e
    for one, other in ((first, second), (second, first)):
        r1 += P.matvec(one.data.P, other.x) + A.rmatvec(one.data.A, other.y)
        r2 -= A.matvec(one.data.A, other.x)
    x, y, info = at.solve(-r1, r2)
    return x, y + e, worst_of([first.info, second.info, info])


def worst_of(infos: list[DerivativeInfo]) -> DerivativeInfo:
    """Returns the least trust, item by item."""
    if len(infos) == 1:
        return infos[0]
    names = [field.name for field in fields(DerivativeInfo)]
    return DerivativeInfo(*(np.max([getattr(info, name) for info in infos], axis=0) for name in names))

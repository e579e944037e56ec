"""Programs in units of their own: solvers have absolute tolerances, and the user's data may come in any unit.

With powers of two α, ρ and σ for each item, so that nothing is rounded, and x = σx′, s = (σ/ρ)s′, y = (ρσ/α)y′, the
program of x is the program of x′ with P′ = αP, q′ = (α/σ)q, A′ = ρA, b′ = (ρ/σ)b.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from cvxlayers.program import ConeProgram, Solution, largest

Sizes = Float[np.ndarray, "#batch"]
Powers = Int[np.ndarray, "#batch"]

# Data within this many powers of two of one are left as they are.
_ORDINARY = 6
# A P that is smaller than q, in x′, by this many powers of two is small.
_SMALL = 10
# Powers are kept so small that products of three are finite.
_LARGEST = 300


@dataclass(frozen=True, eq=False)
class Scaling:
    """A batch of programs of ordinary size, and the way back.

    Attributes:
        program: the programs in x′.
        x: σ per item.
        y: ρσ/α per item.
        s: σ/ρ per item.
    """

    program: ConeProgram
    x: Float[np.ndarray, "leading 1"]
    y: Float[np.ndarray, "leading 1"]
    s: Float[np.ndarray, "leading 1"]

    def restore(self, solution: Solution) -> Solution:
        """Returns the solution of the programs as they were."""
        with np.errstate(over="ignore"):
            return replace(solution, x=solution.x * self.x, y=solution.y * self.y, s=solution.s * self.s)


def scale(program: ConeProgram) -> Scaling:
    """Scales A to entries up to one, x to its natural size, and P and q to entries up to one.

    Each item's scales depend on its own data alone. Where all are ordinary, the program is returned as it is.
    """
    P, q = program.sizes.P, program.sizes.q
    height = -_power(program.sizes.A)
    length = _natural_length(program, P, q, height)
    slope = np.where(q > 0, _power(q) - length, -np.inf)
    # Where both are there P counts, which items often share, unless it is small.
    cost = -np.where(P > 0, np.maximum(_power(P), slope - _SMALL), slope)
    height, length, cost = (_extraordinary(k) for k in np.broadcast_arrays(height, length, cost))
    if not (height.any() or length.any() or cost.any()):
        one = np.ones((1, 1))
        return Scaling(program, one, one, one)
    scaled = replace(
        program,
        P=_scaled(program.P, cost),
        q=_scaled(program.q, cost - length),
        A=_scaled(program.A, height),
        b=_scaled(program.b, height - length),
    )
    return Scaling(scaled, *(np.ldexp(1.0, k)[:, None] for k in (length, height + length - cost, length - height)))


def _natural_length(program: ConeProgram, P: Sizes, q: Sizes, height: Powers) -> Powers:
    """Returns the power of two next to the size of x.

    It is at least what the linear constraints that x = 0 violates ask for. Beyond that, it is the typical size of a
    right-hand side (single bounds may be far away), or, where constraints are linear and it is smaller, the size of the
    unconstrained minimiser.
    """
    cone = program.structure.cone
    zero, linear = cone.zero, cone.zero + cone.nonnegative
    equations, inequalities = largest(program.b[:, :zero]), -np.min(program.b[:, zero:linear], axis=1, initial=0.0)
    asked = np.maximum(equations, inequalities)
    with np.errstate(divide="ignore"):
        powers = np.where(program.b == 0, np.nan, np.frexp(program.b)[1])
    known = np.isfinite(powers)
    typical = np.sum(powers, axis=1, where=known, initial=0.0) / np.maximum(known.sum(axis=1), 1)
    bound = np.where(known.any(axis=1), typical, np.inf) + height
    minimiser = np.where(P > 0, np.where(q > 0, _power(q) - _power(P), -np.inf), np.inf)
    length = np.minimum(bound, minimiser) if cone.polyhedral else np.where(np.isfinite(bound), bound, minimiser)
    length = np.maximum(length, np.where(asked > 0, _power(asked) + height, -np.inf))
    return np.where(np.isfinite(length), np.round(length), 0.0).astype(np.int64)


def _power(size: Sizes) -> Powers:
    """Returns k with 2ᵏ⁻¹ ≤ size < 2ᵏ; 0 for 0."""
    return np.frexp(size)[1].astype(np.int64)


def _extraordinary(power: Powers | Sizes) -> Powers:
    """Returns the powers that are worth scaling by; an infinite one stands for data that are zero."""
    finite = np.where(np.isfinite(power), power, 0)
    return np.where(np.abs(finite) > _ORDINARY, np.clip(finite, -_LARGEST, _LARGEST), 0).astype(np.int64)


def _scaled(array: Float[np.ndarray, "_leading size"], power: Powers) -> Float[np.ndarray, "_scaled size"]:
    """Returns array · 2^power; an array that all items share, and scale alike, stays shared."""
    if len(array) == 1 and (power == power[0]).all():
        power = power[:1]
    with np.errstate(over="ignore"):
        return array * np.ldexp(1.0, power)[:, None] if power.any() else array

"""Programs in units of their own: solvers have absolute tolerances, and the user's data may come in any unit.

With powers of two α, ρ and σ for each item, so that nothing is rounded, and x = σx′, s = (σ/ρ)s′, y = (ρσ/α)y′, the
program of x is the program of x′ with P′ = αP, q′ = (α/σ)q, A′ = ρA, b′ = (ρ/σ)b.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from cvxlayers.batches import every, largest, some
from cvxlayers.program import ConeProgram, Solution

Sizes = Float[np.ndarray, "#batch"]
Powers = Int[np.ndarray, "#batch"]
Factors = Float[np.ndarray, "leading 1"]

# Data within this many powers of two of one are left as they are.
_ORDINARY = 6
# A P that is smaller than q, in x′, by this many powers of two is small.
_SMALL = 10
# By at most so many powers of two are right-hand sides smaller than the unconstrained minimiser, as units of x.
_RANGE = 40
# Powers are kept so small that products of three are finite.
_LARGEST = 300


@dataclass(frozen=True, eq=False)
class Scaling:
    """A batch of programs of ordinary size, and the way back.

    Attributes:
        program: the programs in x′.
        factors: σ, ρσ/α and σ/ρ per item; None where all are one.
    """

    program: ConeProgram
    factors: tuple[Factors, Factors, Factors] | None = None

    def restore(self, solution: Solution) -> Solution:
        """Returns the solution of the programs as they were."""
        if self.factors is None:
            return solution
        x, y, s = self.factors
        with np.errstate(over="ignore"):
            return Solution(solution.x * x, solution.y * y, solution.s * s, solution.status, solution.iterations)


def scale(program: ConeProgram) -> Scaling:
    """Scales A to entries up to one, x to its natural size, and P and q to entries up to one.

    Each item's scales depend on its own data alone. Where all are ordinary, the program is returned as it is.
    """
    P, q, height = _power(program.sizes.P), _power(program.sizes.q), -np.frexp(program.sizes.A)[1]
    length = _natural_length(program, P, q, height)
    slope = q - length
    # Where both are there P counts, which items often share, unless it is small.
    cost = -np.where(P > -np.inf, np.maximum(P, slope - _SMALL), slope)
    height, length, cost = _extraordinary(height), _extraordinary(length), _extraordinary(cost)
    if not (some(height) or some(length) or some(cost)):
        return Scaling(program)
    with np.errstate(over="ignore"):
        P, q = _scaled(program.P, cost), _scaled(program.q, cost - length)
        A, b = _scaled(program.A, height), _scaled(program.b, height - length)
    scaled = ConeProgram(program.structure, program.batch, P, q, A, b)
    scaled.__dict__["shares_matrices"] = program.shares_matrices
    x, y, s = (np.ldexp(1.0, k)[:, None] for k in (length, height + length - cost, length - height))
    return Scaling(scaled, (x, y, s))


def _natural_length(program: ConeProgram, P: Sizes, q: Sizes, height: Powers) -> Sizes:
    """Returns the power of two next to the size of x.

    It is at least what the linear constraints that x = 0 violates ask for. Beyond that, it is the typical size of a
    right-hand side (single bounds may be far away), unless that is next to nothing beside the unconstrained minimiser,
    or, where constraints are linear and it is smaller, the size of that.
    """
    cone, b = program.structure.cone, program.b
    zero, linear = cone.zero, cone.zero + cone.nonnegative
    asked = np.maximum(largest(b[:, :zero]), -np.minimum.reduce(b[:, zero:linear], axis=1, initial=0.0))
    # The power of a zero is zero, and adds nothing.
    total, count = np.add.reduce(np.frexp(b)[1], axis=1), np.add.reduce(b != 0, axis=1)
    bound = np.where(count > 0, total / np.maximum(count, 1), np.inf) + height
    minimiser = np.where(P > -np.inf, q, np.inf) - P
    bound = np.where(minimiser < np.inf, np.maximum(bound, minimiser - _RANGE), bound)
    length = np.minimum(bound, minimiser) if cone.polyhedral else np.where(np.isfinite(bound), bound, minimiser)
    length = np.maximum(length, _power(asked) + height)
    return np.where(np.isfinite(length), np.rint(length), 0.0)


def _power(size: Sizes) -> Sizes:
    """Returns k with 2ᵏ⁻¹ ≤ size < 2ᵏ; −∞ for 0."""
    return np.where(size > 0, np.frexp(size)[1], -np.inf)


def _extraordinary(power: Powers | Sizes) -> Powers:
    """Returns the powers that are worth scaling by; an infinite one stands for data that are zero."""
    size = np.abs(power)
    found = (size > _ORDINARY) & (size < np.inf)
    if not some(found):
        return np.zeros(len(power), dtype=np.int64)
    return np.where(found, np.minimum(np.maximum(power, -_LARGEST), _LARGEST), 0).astype(np.int64)


def _scaled(array: Float[np.ndarray, "_leading size"], power: Powers) -> Float[np.ndarray, "_scaled size"]:
    """Returns array · 2^power; an array that all items share, and scale alike, stays shared."""
    if not some(power):
        return array
    if len(array) == 1 and every(power == power[:1]):
        power = power[:1]
    return array * np.ldexp(1.0, power)[:, None]

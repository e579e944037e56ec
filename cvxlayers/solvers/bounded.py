"""Separable quadratic programs: projections onto a box, a simplex, and whatever one row cuts out of a box.

    minimise ½ Σ pᵢ xᵢ² + qᵢ xᵢ   subject to   l ≤ x ≤ u,  aᵀx = b or aᵀx ≤ b,    p > 0.

For a multiplier ν of the row, xᵢ(ν) = clip(−(qᵢ + aᵢν)/pᵢ, lᵢ, uᵢ), and aᵀx(ν) falls: one root for each item.

References: Held, Wolfe, Crowder, "Validation of subgradient optimization" (1974); Brucker (1984).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import numpy as np
from jaxtyping import Bool, Float, Int

from cvxlayers.batches import Vectors
from cvxlayers.idioms.separable import Separable, require, separate
from cvxlayers.program import ConeProgram, Solution, Status, Structure
from cvxlayers.solvers.items import unsolved
from cvxlayers.solvers.root import Items, Scalars, find_root
from cvxlayers.solvers.solver import Options, Solver

_ROUNDING = 4 * np.finfo(float).eps


@final
class Bounded(Solver):
    """Diagonal quadratic objectives over bounds and at most one other row, all items at once. Has no options."""

    @property
    def name(self) -> str:
        """The name by which users choose it."""
        return "BOUNDED"

    def refusal(self, structure: Structure) -> str | None:
        """It takes diagonal P, bounds, and one row."""
        parts = separate(structure)
        if not structure.cone.polyhedral or parts is None or not structure.has_full_diagonal:
            return "it takes a diagonal quadratic objective, bounds on variables, and one linear constraint"
        return None if len(parts.coupling) <= 1 else "it takes one linear constraint beside bounds"

    def native_options(self) -> Mapping[str, type]:
        """It has none."""
        return {}

    @property
    def is_formula(self) -> bool:
        """It is one."""
        return True

    def proves_convexity(self, options: Options) -> bool:
        """It leaves every item with an entry of P that is not positive to others."""
        return True

    def solve(self, program: ConeProgram, options: Options) -> Solution:
        """Solves all items at once; what is infeasible, or not strictly convex, it leaves unsolved."""
        return _solve(program, require(program.structure))


def _solve(program: ConeProgram, parts: Separable) -> Solution:
    solution, batch = unsolved(program.structure, program.batch), program.batch
    p, q = parts.diagonal(program.P), program.q
    lower, upper = _limits(program, parts)
    fine = (p > 0).all(axis=1) & (lower <= upper).all(axis=1)
    with np.errstate(all="ignore"):
        if len(parts.coupling):
            a = parts.coupling_matrix(program.A)[:, 0]
            equality = int(parts.coupling[0]) < program.structure.cone.zero
            nu, count = _multiplier(p, q, a, program.b[:, parts.coupling[0]], (lower, upper), equality, batch)
            solution.iterations[:] = count
            gradient = q + a * nu[:, None]
            solution.y[:, parts.coupling[0]] = nu
        else:
            gradient = np.broadcast_to(q, (batch, q.shape[1]))
        x = np.clip(-gradient / p, lower, upper)
        gradient = gradient + p * x
    solution.x[:] = x
    slack = program.b - program.structure.A.matvec(program.A, x)
    solution.s[:] = np.maximum(slack, 0.0)
    solution.s[:, : program.structure.cone.zero] = 0.0
    _settle(solution, gradient, program, parts)
    solution.status[np.broadcast_to(fine, (batch,)) & np.isfinite(x).all(axis=1)] = Status.SOLVED
    return solution


def _limits(
    program: ConeProgram, parts: Separable
) -> tuple[Float[np.ndarray, "leading n"], Float[np.ndarray, "leading n"]]:
    """Returns the tightest lower and upper bounds."""
    leading = max(len(program.A), len(program.b))
    lower = np.full((leading, program.structure.n), -np.inf)
    upper = np.full((leading, program.structure.n), np.inf)
    for group in parts.bounds:
        coefficient = program.A[:, group.entries]
        with np.errstate(all="ignore"):
            bound = program.b[:, group.rows] / coefficient
        # A row 0·x ≤ b bounds nothing, or, where b is negative, everything: NaN is no bound that holds.
        empty = np.where(program.b[:, group.rows] >= 0, np.inf, np.nan)
        above = np.where(coefficient > 0, bound, np.where(coefficient == 0, empty, np.inf))
        below = np.where(coefficient < 0, bound, -np.inf)
        upper[:, group.columns] = np.minimum(upper[:, group.columns], above)
        lower[:, group.columns] = np.maximum(lower[:, group.columns], below)
    return lower, upper


def _multiplier(
    p: Vectors,
    q: Vectors,
    a: Vectors,
    b: Float[np.ndarray, " _leading"],
    limits: tuple[Float[np.ndarray, "leading n"], Float[np.ndarray, "leading n"]],
    equality: bool,
    batch: int,
) -> tuple[Float[np.ndarray, " batch"], Int[np.ndarray, " batch"]]:
    """Returns ν, and the number of evaluations."""
    p, q, a, lower, upper = (np.broadcast_to(array, (batch, q.shape[1])) for array in (p, q, a, *limits))
    b = np.broadcast_to(b, (batch,))
    ratio, centre = a / p, -q / p
    weight = a * ratio

    def excess(nu: Scalars, items: Items) -> tuple[Scalars, Scalars, Scalars]:
        inside = slice(None) if len(items) == batch else items
        free = centre[inside] - ratio[inside] * nu[:, None]
        low, high, row = lower[inside], upper[inside], a[inside]
        terms = row * np.minimum(np.maximum(free, low), high)
        slope = np.einsum("bn,bn->b", weight[inside], _between(free, low, high))
        value = b[inside] - terms.sum(axis=1)
        return value, slope, _ROUNDING * (np.abs(b[inside]) + np.abs(terms).sum(axis=1))

    everything = np.arange(batch)
    total = weight.sum(axis=1)
    start = (np.einsum("bn,bn->b", a, centre) - b) / np.where(total > 0, total, 1.0)
    step = (1.0 + np.abs(start)) * 0.1
    if equality:
        return find_root(excess, start, step)
    slack, count = excess(np.zeros(batch), everything)[0], np.ones(batch, dtype=np.int64)
    nu, tight = np.zeros(batch), np.flatnonzero(slack < 0)
    if len(tight):
        found, more = find_root(lambda nu, k: excess(nu, tight[k]), np.maximum(start[tight], 0.0), step[tight])
        nu[tight], count[tight] = np.maximum(found, 0.0), 1 + more
    return nu, count


def _between(free: Vectors, low: Vectors, high: Vectors) -> Float[np.ndarray, "batch n"]:
    return ((free > low) & (free < high)).astype(float)


def _settle(solution: Solution, gradient: Vectors, program: ConeProgram, parts: Separable) -> None:
    """Gives the gradient of each variable that stands at a bound to the first row that holds it there."""
    left = gradient.copy()
    for group in parts.bounds:
        x, coefficient = solution.x[:, group.columns], program.A[:, group.entries]
        with np.errstate(all="ignore"):
            price = np.maximum(-left[:, group.columns] / coefficient, 0.0)
            held = _at(x, program.b[:, group.rows] / coefficient) & (price > 0)
        solution.y[:, group.rows] = np.where(held, price, 0.0)
        left[:, group.columns] = np.where(held, 0.0, left[:, group.columns])
        solution.s[:, group.rows] = np.where(held, 0.0, solution.s[:, group.rows])


def _at(x: Vectors, bound: Vectors) -> Bool[np.ndarray, "batch _count"]:
    return x == bound

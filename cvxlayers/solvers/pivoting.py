"""Block principal pivoting: strictly convex quadratic programs with a diagonal P, through their duals.

With P diagonal, x = −P⁻¹(q + Aᵀy), and what is left is a linear complementarity problem in y, of the order of the rows:

    s = My + r,  s ∘ y = 0,   M = A P⁻¹ Aᵀ,  r = b + A P⁻¹ q,    with s, y ≥ 0 on inequalities, s = 0 on equalities.

Given the active rows, y solves a positive definite system. All rows with a wrong sign change sides at once, which ends
after a handful of systems, however many rows are active. Where their number has stopped falling, only the last of them
changes sides, until it falls again: then the method is finite.

Which rows are active first is where projected gradients lead, with the rows of A scaled so that M has a unit diagonal:
as a rule a dozen products with a sparse matrix leave one or two systems.

References: Júdice, Pires, "A block principal pivoting algorithm for large-scale strictly monotone linear
complementarity problems" (1994); Murty (1974) on the single exchanges; Birgin, Martínez, Raydan, "Nonmonotone spectral
projected gradient methods on convex sets" (2000).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import NamedTuple, final

import numpy as np
from jaxtyping import Bool, Float

from cvxlayers.batches import Values, Vectors, every, spread_rows
from cvxlayers.complement import Complement, unit_scale
from cvxlayers.patterns import Pattern
from cvxlayers.program import ConeProgram, Solution, Status, Structure
from cvxlayers.solvers.items import unsolved
from cvxlayers.solvers.solver import Options, Solver

# Rows of M are dense.
_LARGEST = 2000
# Wrong signs of all rows are corrected so often without progress before single ones are; systems before giving up.
_PATIENCE, _LIMIT = 3, 100
# Signs are wrong beyond this share of the accuracy that is asked for.
_SHARE = 0.01
# Steps along projected gradients, at most, and the length of the first: M of unit diagonal has eigenvalues about one.
_STEPS, _FIRST = 30, 0.5
# Steps without a change after which the active rows are believed to be found.
_STILL = 3
# A pivot is rounding up to this share of its diagonal entry, for each row: whether it is positive says nothing then.
_SINGULAR = 1e-15

Vector = Float[np.ndarray, " _count"]
Mask = Bool[np.ndarray, " m"]


@final
class Pivoting(Solver):
    """Diagonal positive definite P over linear constraints, not too many of them. It gives no certificates."""

    @property
    def name(self) -> str:
        """The name by which users choose it."""
        return "PIVOTING"

    def refusal(self, structure: Structure) -> str | None:
        """Refuses curved cones, objectives that are not separable and strictly convex, and too many rows."""
        if not structure.cone.polyhedral:
            return "it takes linear constraints only"
        if not structure.is_diagonal:
            return "it needs an objective with the square of every variable, and no products of two"
        if structure.m > _LARGEST:
            return f"it works on a dense matrix of the order of the rows, of which it takes at most {_LARGEST}"
        return None

    def native_options(self) -> Mapping[str, type]:
        """It has none."""
        return {}

    def proves_convexity(self, options: Options) -> bool:
        """It leaves every item with an entry of P that is not positive to others."""
        return True

    def free_microseconds(self, structure: Structure) -> float:
        """One or two Cholesky factorisations, of half of the rows."""
        return 1.5 * (structure.m / 2) ** 3 / 3e4

    def prepare(self, program: ConeProgram, threads: int) -> None:
        """Makes room for the factors of the last systems, and computes once what all items share."""
        program.keep_complements()
        _ = program.whole

    def solve(self, program: ConeProgram, options: Options) -> Solution:
        """Looks for the active rows of all items at once, and then solves item by item."""
        solution, structure = unsolved(program.structure, program.batch), program.structure
        equation, dual = np.arange(structure.m) < structure.cone.zero, _dual(program)
        first, active = _first(program, dual, equation), np.zeros(solution.y.shape, dtype=bool)
        definite = np.broadcast_to((program.P > 0).all(axis=1), (program.batch,))
        for item in np.flatnonzero(definite).tolist():
            end = _pivot(dual.item(item), partial(program.complement, item), first[item], equation, options)
            solution.status[item], solution.iterations[item] = int(end.status), end.systems
            if end.y is not None:
                solution.y[item], active[item] = end.y, end.active
        solution.x[:] = -program.weights * (program.q + structure.A.rmatvec(program.A, solution.y))
        slack = program.b - structure.A.matvec(program.A, solution.x)
        solution.s[:] = np.where(active, 0.0, np.maximum(slack, 0.0))
        return solution


@dataclass(frozen=True, eq=False)
class _Dual:
    """The dual programs of a batch: P⁻¹ as `weights`, and the pattern and the entries of A, in place of M."""

    A: Pattern
    values: Values
    weights: Vectors
    r: Vectors

    def item(self, item: int) -> _Dual:
        """Returns that of one item."""
        parts = (self.values, self.weights, self.r)
        return _Dual(self.A, *(part[item % len(part), None] for part in parts))

    def slack(self, y: Vectors) -> Vectors:
        """Returns s = My + r."""
        return self.r + self.A.matvec(self.values, self.weights * self.A.rmatvec(self.values, y))


def _dual(program: ConeProgram) -> _Dual:
    A, weights = program.structure.A, program.weights
    return _Dual(A, program.A, weights, program.b + A.matvec(program.A, weights * program.q))


def _first(program: ConeProgram, dual: _Dual, equation: Mask) -> Bool[np.ndarray, "batch m"]:
    """Returns the rows that are active where projected gradients of ½yᵀMy + rᵀy lead, once they stay the same."""
    scale = unit_scale(dual.A, dual.values, dual.weights, np.ones((1, len(equation))))
    dual = replace(dual, values=dual.values * scale.take(dual.A.rows, axis=1), r=dual.r * scale)
    y = _projected(-spread_rows(dual.r, program.batch), equation)
    slack, step = dual.slack(y), np.full((len(y), 1), _FIRST)
    active, still = equation | (y > slack), np.zeros(len(y), dtype=np.int64)
    for _ in range(_STEPS):
        further = _projected(y - step * slack, equation)
        there = dual.slack(further)
        dy, bend = further - y, np.einsum("bm,bm->b", further - y, there - slack)[:, None]
        step = np.divide(np.einsum("bm,bm->b", dy, dy)[:, None], bend, out=np.full(bend.shape, _FIRST), where=bend > 0)
        y, slack, settled = further, there, still >= _STILL
        now = np.where(settled[:, None], active, equation | (y > slack))
        active, still = now, np.where((now == active).all(axis=1), still + 1, 0)
        if every(settled):
            break
    return active


def _projected(y: Vectors, equation: Mask) -> Vectors:
    return np.where(equation, y, np.maximum(y, 0.0))


class _End(NamedTuple):
    """Where pivoting ends: y, which rows are active, how, and after how many systems."""

    y: Vector | None
    active: Mask
    status: Status
    systems: int


def _pivot(
    dual: _Dual, complement: Callable[[Vector], Complement], active: Mask, equation: Mask, options: Options
) -> _End:
    """Solves the dual of one item.

    Args:
        dual: the dual.
        complement: returns the factors of M over rows.
        active: the rows to begin with.
        equation: which rows are equalities.
        options: what is asked for.
    """
    fewest, patience = len(active) + 1, _PATIENCE
    tolerance, started = _SHARE * min(options.eps, 1e-6), perf_counter()
    y: Vector | None = None
    limit = _LIMIT if options.max_iters is None else options.max_iters
    for count in range(1, limit + 1):
        y = _multipliers(complement(active.astype(float)), dual.r[0])
        if y is None:
            return _End(None, active, Status.NUMERICAL_ERROR, count)
        wrong = _wrong(dual, y, active, tolerance) & ~equation
        number, right = int(np.count_nonzero(wrong)), np.where(equation, y, np.maximum(y, 0.0))
        if not number:
            return _End(right, active, Status.SOLVED, count)
        if options.time_limit is not None and perf_counter() - started > options.time_limit:
            return _End(right, active, Status.TIME_LIMIT, count)
        if number < fewest:
            fewest, patience = number, _PATIENCE
        elif patience:
            patience -= 1
        else:
            wrong[: np.flatnonzero(wrong)[-1]] = False
        active = active ^ wrong
    failed = Status.NUMERICAL_ERROR if options.max_iters is None else Status.ITERATION_LIMIT
    return _End(y, active, failed, limit)


def _multipliers(left: Complement, r: Vector) -> Vector | None:
    """Returns y with My + r = 0 in the active rows, zero in the others; None where that is singular."""
    if left.norm == np.inf or (np.square(left.upper.diagonal()) <= _SINGULAR * len(left.rows)).any():
        return None
    y = np.zeros(len(r))
    y[left.rows] = left.solve(-r[left.rows])
    return y


def _wrong(dual: _Dual, y: Vector, active: Mask, tolerance: float) -> Mask:
    """Returns which active rows pull, and which others are violated."""
    slack, r = dual.slack(y[None])[0], dual.r[0]
    size = tolerance * max(float(np.max(np.abs(r), initial=0.0)), float(np.max(np.abs(slack), initial=0.0)))
    return np.where(active, y < -tolerance * np.max(np.abs(y), initial=0.0), slack < -size)

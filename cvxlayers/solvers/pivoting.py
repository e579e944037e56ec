"""Block principal pivoting: strictly convex quadratic programs with a diagonal P, through their duals.

With P diagonal, x = −P⁻¹(q + Aᵀy), and what is left is a linear complementarity problem in y, of the order of the rows:

    s = My + r,  s ∘ y = 0,   M = A P⁻¹ Aᵀ,  r = b + A P⁻¹ q,    with s, y ≥ 0 on inequalities, s = 0 on equalities.

Given the active rows, y solves a positive definite system. All rows with a wrong sign change sides at once, which ends
after a handful of systems, however many rows are active. Where their number has stopped falling, only the last of them
changes sides, until it falls again: then the method is finite.

References: Júdice, Pires, "A block principal pivoting algorithm for large-scale strictly monotone linear
complementarity problems" (1994); Murty (1974) on the single exchanges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import final

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float
from scipy.linalg import lapack

from cvxlayers.program import ConeProgram, Solution, Status, Structure
from cvxlayers.solvers.items import each, unsolved
from cvxlayers.solvers.solver import Options, Solver

# M is dense.
_LARGEST = 2000
# Wrong signs of all rows are corrected so often without progress before single ones are; systems before giving up.
_PATIENCE, _LIMIT = 3, 100
# Signs are wrong beyond this share of the accuracy that is asked for.
_SHARE = 0.01

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
        """Half a dozen Cholesky factorisations, of half of the rows."""
        return 6 * (structure.m / 2) ** 3 / 3e4

    def solve(self, program: ConeProgram, options: Options) -> Solution:
        """Solves item by item."""
        solution, batch = unsolved(program.structure, program.batch), program.batch
        equation = np.arange(program.structure.m) < program.structure.cone.zero
        # M is computed once where all items share it.
        shared = len(program.P) == len(program.A) == 1
        duals = (
            _dual(program.structure, P, A) for P, A in zip(each(program.P, batch), each(program.A, batch), strict=False)
        )
        dual = next(duals) if shared else None
        for item, (q, b) in enumerate(zip(each(program.q, batch), each(program.b, batch), strict=False)):
            _solve_item(solution, item, next(duals) if dual is None else dual, (q, b), equation, options)
        return solution


@dataclass(frozen=True, eq=False)
class _Dual:
    """What of the dual depends on P and A alone; no M where P is not positive definite."""

    A: sp.csc_array
    weights: Float[np.ndarray, " n"]
    M: Float[np.ndarray, "m m"] | None


def _dual(structure: Structure, P: Float[np.ndarray, " n"], A: Float[np.ndarray, " nnz"]) -> _Dual:
    matrix = structure.A.matrix(A)
    if not (P > 0).all():
        return _Dual(matrix, P, None)
    weights = 1.0 / P
    return _Dual(matrix, weights, structure.A.gram(A, weights))


def _solve_item(
    solution: Solution, item: int, dual: _Dual, data: tuple[Vector, Vector], equation: Mask, options: Options
) -> None:
    if dual.M is None:
        return
    q, b = data
    r = b + dual.A @ (q * dual.weights)
    y, active, status, count = _pivot(dual.M, r, equation, options)
    solution.status[item], solution.iterations[item] = int(status), count
    if y is None:
        return
    x = -(q + dual.A.T @ y) * dual.weights
    solution.x[item], solution.y[item] = x, y
    solution.s[item] = np.where(active, 0.0, np.maximum(b - dual.A @ x, 0.0))


def _pivot(
    M: Float[np.ndarray, "m m"], r: Vector, equation: Mask, options: Options
) -> tuple[Vector | None, Mask, Status, int]:
    """Returns y, which rows are active, how it ended, and the number of systems solved."""
    active, fewest, patience = equation.copy(), len(r) + 1, _PATIENCE
    tolerance, started = _SHARE * min(options.eps, 1e-6), perf_counter()
    y: Vector | None = None
    limit = _LIMIT if options.max_iters is None else options.max_iters
    for count in range(1, limit + 1):
        y = _multipliers(M, r, active)
        if y is None:
            return None, active, Status.NUMERICAL_ERROR, count
        wrong = _wrong(M, r, y, active, tolerance) & ~equation
        number = int(np.count_nonzero(wrong))
        if not number:
            return np.where(equation, y, np.maximum(y, 0.0)), active, Status.SOLVED, count
        if options.time_limit is not None and perf_counter() - started > options.time_limit:
            return np.where(equation, y, np.maximum(y, 0.0)), active, Status.TIME_LIMIT, count
        if number < fewest:
            fewest, patience = number, _PATIENCE
        elif patience:
            patience -= 1
        else:
            wrong[: np.flatnonzero(wrong)[-1]] = False
        active = active ^ wrong
    failed = Status.NUMERICAL_ERROR if options.max_iters is None else Status.ITERATION_LIMIT
    return y, active, failed, limit


def _multipliers(M: Float[np.ndarray, "m m"], r: Vector, active: Mask) -> Vector | None:
    """Returns y with My + r = 0 in the active rows, zero in the others; None where that is singular."""
    rows, y = np.flatnonzero(active), np.zeros(len(r))
    if not len(rows):
        return y
    try:
        # numpy's lets other threads run meanwhile; two `take` are faster than one index of both axes.
        factor = np.linalg.cholesky(M.take(rows, axis=0).take(rows, axis=1))
    except np.linalg.LinAlgError:
        return None
    pivots = np.square(factor.diagonal())
    if (pivots <= _SINGULAR * len(rows) * M.diagonal()[rows]).any():
        return None
    y[rows] = lapack.dpotrs(factor.T, -r[rows], lower=0)[0]
    return y


def _wrong(M: Float[np.ndarray, "m m"], r: Vector, y: Vector, active: Mask, tolerance: float) -> Mask:
    """Returns which active rows pull, and which others are violated."""
    slack = M @ y + r
    size = tolerance * max(float(np.max(np.abs(r), initial=0.0)), float(np.max(np.abs(slack), initial=0.0)))
    return np.where(active, y < -tolerance * np.max(np.abs(y), initial=0.0), slack < -size)

"""Least distance: dense, strictly convex quadratic programs, all of a batch transformed at once, and then by DAQP.

In u = Lᵀx the program asks for the point of a polyhedron that is nearest to the unconstrained minimiser. Without the
equalities, in the notation of `cvxlayers.elimination`, that is

    minimise ½|p|²  subject to  Wp ≤ t,   t = r₁ − X R₀⁻¹ r₀  of the slacks r = b + AP⁻¹q of the minimiser,

of the order of the inequalities: a few operations of an active-set method on small vectors. What costs most, and what
P and A alone decide, is left to LAPACK, and serves the derivatives as well. Given which rows are active, x and y follow
by substitution.

References: Lawson, Hanson, "Solving least squares problems" (1974), chapter 23.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import final

import numpy as np
from jaxtyping import Float
from scipy.linalg import lapack

from cvxlayers.batches import Vectors, spread_rows
from cvxlayers.elimination import Elimination
from cvxlayers.parallel import chunks
from cvxlayers.program import ConeProgram, Solution, Status, Structure
from cvxlayers.solvers.daqp import nearest
from cvxlayers.solvers.items import each
from cvxlayers.solvers.solver import Options, Solver

_LARGEST = 150
# Bytes of matrices to work on at once.
_CACHE = 2**22


@final
class LeastDistance(Solver):
    """Dense quadratic programs with positive definite P, and no more rows than variables. It gives no certificates."""

    @property
    def name(self) -> str:
        """The name by which users choose it."""
        return "LEAST_DISTANCE"

    def refusal(self, structure: Structure) -> str | None:
        """Refuses curved cones, objectives that cannot be strictly convex, and rows that must depend on one another."""
        if not structure.cone.polyhedral:
            return "it takes linear constraints only"
        if not structure.has_full_diagonal:
            return "it needs a strictly convex objective, and some variables have no quadratic term"
        if not structure.cone.nonnegative or structure.m > structure.n:
            return "it takes inequalities, and no more rows than variables"
        if structure.n > _LARGEST:
            return f"it works on dense matrices, of at most {_LARGEST} variables"
        return None

    @property
    def is_unit_free(self) -> bool:
        """Each row is scaled by itself, and Cholesky factors scale with their matrices."""
        return True

    def dense_bytes(self, structure: Structure) -> int:
        """The matrices of `Elimination`, and as much for what they are computed from."""
        n, m = structure.n, structure.m
        return 16 * (n * n + n * m + m * m)

    def proves_convexity(self, options: Options) -> bool:
        """It factorises P, and fails where that fails."""
        return True

    def native_options(self) -> Mapping[str, type]:
        """It has none."""
        return {}

    def prepare(self, program: ConeProgram, threads: int) -> None:
        """Eliminates the variables, which are eliminated for the derivatives then."""
        program.eliminated(threads)

    def solve(self, program: ConeProgram, options: Options) -> Solution:
        """Finds the active rows of each item, and the points of all, as many at once as fit the processor's cache."""
        count = program.batch * self.dense_bytes(program.structure) // _CACHE
        with np.errstate(all="ignore"):
            parts = [_solve(program.item(piece), options) for piece in chunks(program.batch, count)]
        if len(parts) == 1:
            return parts[0]
        columns = ([getattr(part, field.name) for part in parts] for field in fields(Solution))
        return Solution(*(np.concatenate(column) for column in columns))


def _solve(program: ConeProgram, options: Options) -> Solution:
    structure, zero, eliminated = program.structure, program.structure.cone.zero, program.eliminated()
    q, b = (spread_rows(part, program.batch) for part in (program.q, program.b))
    found = nearest(*_least_distance(eliminated, q, b, zero), options)
    d = np.concatenate([np.ones((program.batch, zero)), found.active], axis=1)
    active = program.active(d)
    x, z = active.solve(-q, b)  # rows that do not count have multipliers of their own
    y = d * z
    s = np.maximum(b - structure.A.matvec(program.A, x), 0.0) * (1.0 - d)
    solved = found.solved & active.regular[active.place] & np.isfinite(x).all(axis=1) & np.isfinite(y).all(axis=1)
    status = np.where(solved, int(Status.SOLVED), int(Status.NUMERICAL_ERROR))
    if not solved.all():
        x, y, s = (np.where(solved[:, None], part, np.nan) for part in (x, y, s))
    return Solution(x, y, s, status, found.iterations)


def _least_distance(
    eliminated: Elimination, q: Vectors, b: Vectors, zero: int
) -> tuple[Float[np.ndarray, "leading k k"], Float[np.ndarray, "batch k"]]:
    """Returns W and t of each item, rows of W of size one and t up to one."""
    w = np.matmul(eliminated.inverse, q[:, :, None])
    slack = b + np.matmul(eliminated.rows, w)[:, :, 0]
    R, t = eliminated.lower, slack[:, zero:]
    if zero:
        first = slack[:, :zero].copy()
        factors = np.ascontiguousarray(R[:, :zero, :zero])
        for row, factor in zip(first, each(factors, len(first)), strict=True):
            lapack.dtrtrs(factor.T, row, lower=0, trans=1, overwrite_b=1)
        t = t - np.matmul(R[:, zero:, :zero], first[:, :, None])[:, :, 0]
    W = R[:, zero:, zero:]
    size = np.sqrt(np.einsum("bij,bij->bi", W, W))
    t = t / size
    reach = np.max(np.abs(t), axis=1, keepdims=True)
    return W / size[:, :, None], t / np.where(reach > 0, reach, 1.0)

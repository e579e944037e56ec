"""The direct solver for programs without inequalities: one linear system, no iterations.

    [P  Aᵀ] [x]   [−q]
    [A  0 ] [y] = [ b]            written K z = r, K symmetric.

Where K is singular and r in its range, it returns the solution of least norm, after K is scaled to rows of one size.
Where r is not in its range, the rest ρ = r − Kz of the least-squares solution lies in the kernel of K, so Pρₓ = 0,
Aρₓ = 0, Aᵀρ_y = 0 (since ρₓᵀPρₓ = 0 and P ⪰ 0), and ρᵀr = |ρ|² splits into −qᵀρₓ = |ρₓ|² and bᵀρ_y = |ρ_y|²: ρₓ is a
ray of descent, and −ρ_y proves infeasibility.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import final

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float
from scipy.linalg import lapack
from scipy.sparse.linalg import splu

from cvxlayers.program import ConeProgram, Solution, Status, Structure
from cvxlayers.solvers.items import each, unsolved
from cvxlayers.solvers.solver import Options, Solver

Entries = Float[np.ndarray, "..."]
Vector = Float[np.ndarray, " size"]
Matrix = Float[np.ndarray, "size size"]
Solve = Callable[[Vector], tuple[Vector, Vector]]

# From this size on, and up to this share of entries, sparse factorisations are faster.
_LARGE, _SPARSE = 150, 0.1
# A solve that leaves more than the first share of its right-hand side met a singular matrix; a least-squares solve that
# leaves more than the second met an inconsistent one.
_REGULAR, _CONSISTENT = 1e-11, 1e-9
# The share of the largest eigenvalue below which one is zero, and of a right-hand side below which the rest is.
_RANK, _ROUNDING = 1e-14, 1e-12
_REGULARISATION, _PROXIMAL_STEPS = 1e-7, 50


@final
class Direct(Solver):
    """One factorisation of the KKT matrix, shared by all items where P and A are. No option changes what it does."""

    @property
    def name(self) -> str:
        """The name by which users choose it."""
        return "DIRECT"

    def refusal(self, structure: Structure) -> str | None:
        """It takes equalities only."""
        return None if structure.m == structure.cone.zero else "it takes equality constraints only"

    def native_options(self) -> Mapping[str, type]:
        """It has none."""
        return {}

    def solve(self, program: ConeProgram, options: Options) -> Solution:
        """Solves every item."""
        structure, batch, n = program.structure, program.batch, program.structure.n
        solution = unsolved(structure, batch)
        solution.iterations[:], solution.s[:] = 1, 0.0
        r = np.empty((batch, n + structure.m))
        r[:, :n], r[:, n:] = -program.q, program.b
        for item, solve in enumerate(_solves(program)):
            z, rest = solve(r[item])
            solution.x[item], solution.y[item], solution.status[item] = z[:n], z[n:], Status.SOLVED
            if rest[:n].any():
                solution.x[item], solution.status[item] = rest[:n], Status.UNBOUNDED
            if rest[n:].any():
                solution.y[item], solution.status[item] = -rest[n:], Status.INFEASIBLE
        return solution


def _solves(program: ConeProgram) -> Iterator[Solve]:
    """Yields, for each item, the function that takes r to z and ρ, which is zero unless K z = r has no solution."""
    structure, batch = program.structure, program.batch
    size = structure.n + structure.m
    entries = structure.P.nnz + 2 * structure.A.nnz
    factorise = _factorise_sparse if size >= _LARGE and entries <= _SPARSE * size**2 else _factorise_dense
    if not size:
        # LAPACK takes no empty matrices.
        yield from ((lambda r: (r, r)) for _ in range(batch))
    elif len(program.P) == len(program.A) == 1:
        solve = factorise(program, program.P[0], program.A[0])
        yield from (solve for _ in range(batch))
    else:
        for P, A in zip(each(program.P, batch), each(program.A, batch), strict=True):
            yield factorise(program, P, A)


def _factorise_dense(program: ConeProgram, P: Entries, A: Entries) -> Solve:
    structure, n = program.structure, program.structure.n
    K = np.zeros((n + structure.m, n + structure.m))
    K[structure.P.rows, structure.P.cols] = P
    K[n + structure.A.rows, structure.A.cols] = A
    K[structure.A.cols, n + structure.A.rows] = A
    factors, pivots, failure = lapack.dgetrf(K)

    def solve(r: Vector) -> tuple[Vector, Vector]:
        if failure == 0:
            z, _ = lapack.dgetrs(factors, pivots, r)
            if _size(r - K @ z) <= _REGULAR * _size(r):
                return z, np.zeros(len(r))
        return _least_squares(K, r, n)

    return solve


def _least_squares(K: Matrix, r: Vector, n: int) -> tuple[Vector, Vector]:
    """Solves by eigenvectors, after scaling by powers of two that give the rows of P and of A one size."""
    with np.errstate(divide="ignore"):
        scale = 2.0 ** -np.round(0.5 * np.log2(np.where(K.any(axis=1), np.max(np.abs(K), axis=1), 1.0)))
    eigenvalues, vectors = np.linalg.eigh(K * scale[:, None] * scale)
    kept = np.abs(eigenvalues) > _RANK * len(K) * np.max(np.abs(eigenvalues))
    coordinates = vectors.T @ (scale * r)
    z = scale * (vectors[:, kept] @ (coordinates[kept] / eigenvalues[kept]))
    kernel = vectors[:, ~kept] @ coordinates[~kept]
    return z, scale * _significant(kernel, scale * r, n)


def _significant(rest: Vector, r: Vector, n: int) -> Vector:
    """Returns the rest with each of its two parts zero where it is rounding."""
    parts, rounding = (slice(0, n), slice(n, None)), _ROUNDING * _size(r)
    return np.concatenate([rest[k] * (_size(rest[k]) > _CONSISTENT * _size(r[k]) + rounding) for k in parts])


def _factorise_sparse(program: ConeProgram, P: Entries, A: Entries) -> Solve:
    structure, n = program.structure, program.structure.n
    top, side = structure.P.matrix(P), structure.A.matrix(A)
    K = sp.csc_array(sp.block_array([[top, side.T], [side, None]]) if structure.m else top)
    try:
        factors = splu(K)
    except RuntimeError:
        factors = None

    def solve(r: Vector) -> tuple[Vector, Vector]:
        if factors is not None:
            z = factors.solve(r)
            if _size(r - K @ z) <= _REGULAR * _size(r):
                return z, np.zeros(len(r))
        return _proximal(K, r, n)

    return solve


def _proximal(K: sp.csc_array, r: Vector, n: int) -> tuple[Vector, Vector]:
    """Solves by proximal steps z ← z + (K + δJ)⁻¹(r − Kz), J = diag(I, −I): r − Kz tends to its part in the kernel."""
    delta = _REGULARISATION * np.max(np.abs(K.data), initial=1.0)
    signs = np.where(np.arange(len(r)) < n, delta, -delta)
    factors = splu(sp.csc_array(K + sp.diags_array(signs)))
    z = np.zeros(len(r))
    for _ in range(_PROXIMAL_STEPS):
        rest = r - K @ z
        if _size(rest) <= _REGULAR * _size(r):
            break
        z = z + factors.solve(rest)
    return z, _significant(r - K @ z, r, n)


def _size(vector: Vector) -> float:
    return float(np.max(np.abs(vector), initial=0.0))

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
from functools import partial
from typing import final

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int
from scipy.linalg import lapack
from scipy.sparse.csgraph import structural_rank
from scipy.sparse.linalg import splu

from cvxlayers.batches import Vectors
from cvxlayers.kkt.band import factorise_band, narrow_band
from cvxlayers.kkt.columns import columns_of
from cvxlayers.kkt.effort import dense_microseconds
from cvxlayers.program import ConeProgram, Solution, Status, Structure
from cvxlayers.solvers.items import unsolved
from cvxlayers.solvers.solver import Options, Solver

Vector = Float[np.ndarray, " size"]
Matrix = Float[np.ndarray, "size size"]
Solve = Callable[[Vector], Vector]

# From this size on, and up to this share of entries, sparse factorisations are faster.
_LARGE, _SPARSE = 150, 0.1
_AT_ONCE = 16
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

    def free_microseconds(self, structure: Structure) -> float:
        """LAPACK's banded factorisation keeps the interpreter to itself, the others do not."""
        return 0.0 if narrow_band(structure) is not None else dense_microseconds(structure.n + structure.m)

    def native_options(self) -> Mapping[str, type]:
        """It has none."""
        return {}

    def solve(self, program: ConeProgram, options: Options) -> Solution:
        """Solves every item."""
        structure, n = program.structure, program.structure.n
        solution = unsolved(structure, program.batch)
        solution.iterations[:], solution.s[:], solution.status[:] = 1, 0.0, Status.SOLVED
        r = np.empty((program.batch, n + structure.m))
        r[:, :n], r[:, n:] = -program.q, program.b
        z = _solve(program, r)
        solution.x[:], solution.y[:] = z[:, :n], z[:, n:]
        gap = _largest(r - _product(program, z))
        for item in np.flatnonzero(~(gap <= _REGULAR * _largest(r))).tolist():
            z_item, rest = _least_norm(program.item(slice(item, item + 1)), r[item])
            solution.x[item], solution.y[item] = z_item[:n], z_item[n:]
            if rest[:n].any():
                solution.x[item], solution.status[item] = rest[:n], Status.UNBOUNDED
            if rest[n:].any():
                solution.y[item], solution.status[item] = -rest[n:], Status.INFEASIBLE
        return solution


def _solve(program: ConeProgram, r: Vectors) -> Vectors:
    """Solves K z = r by a factorisation of each K, or of the one that all items share; NaN where it is singular."""
    z = np.full(r.shape, np.nan)
    if not r.shape[1]:  # LAPACK takes no empty matrices
        return z
    with np.errstate(all="ignore"):
        for item, solve in enumerate(_factorised(program)):
            if solve is not None:
                z[item] = solve(r[item])
    return z


def _product(program: ConeProgram, z: Vectors) -> Vectors:
    """Returns K z for each item."""
    P, A, n = program.structure.P, program.structure.A, program.structure.n
    x, y = z[:, :n], z[:, n:]
    return np.concatenate([P.matvec(program.P, x) + A.rmatvec(program.A, y), A.matvec(program.A, x)], axis=1)


def _factorised(program: ConeProgram) -> Iterator[Solve | None]:
    """Yields for each item the function that takes r to z; None where a pivot is zero."""
    shared = len(program.P) == len(program.A) == 1
    count, structure = 1 if shared else program.batch, program.structure
    zeros = np.zeros((1, structure.m))
    band, factorise = narrow_band(structure), _factorise_sparse if _is_sparse(structure) else _factorise_dense
    for start in range(0, count, _AT_ONCE):
        part = program if shared else program.item(slice(start, min(start + _AT_ONCE, count)))
        if band is not None:
            factors = factorise_band(band, band.assemble(part.P, part.A, zeros))
            found = [None if item.singular else item.solve for item in factors]
        else:
            found = list(factorise(part))
        yield from program.batch * found if shared else found


def _is_sparse(structure: Structure) -> bool:
    size = structure.n + structure.m
    return size >= _LARGE and structure.P.nnz + 2 * structure.A.nnz <= _SPARSE * size**2


def _factorise_dense(program: ConeProgram) -> Iterator[Solve | None]:
    for K in _dense(program):
        factors, pivots, failure = lapack.dgetrf(K.T)
        yield None if failure else partial(_substitute, factors, pivots)


def _substitute(factors: Matrix, pivots: Int[np.ndarray, " size"], r: Vector) -> Vector:
    return lapack.dgetrs(factors, pivots, r)[0]


def _factorise_sparse(program: ConeProgram) -> Iterator[Solve | None]:
    for matrix in _sparse(program):
        K = matrix.copy()  # its pattern is everybody's
        K.eliminate_zeros()
        if structural_rank(K) < K.shape[0]:  # SuperLU may end the process on such a matrix
            yield None
            continue
        try:
            yield splu(K).solve
        except RuntimeError:  # exactly singular
            yield None


def _dense(program: ConeProgram) -> Float[np.ndarray, "batch size size"]:
    structure, n = program.structure, program.structure.n
    P, A = structure.P.dense(program.P), structure.A.dense(program.A)
    K = np.zeros((max(len(P), len(A)), n + structure.m, n + structure.m))
    K[:, :n, :n], K[:, n:, :n], K[:, :n, n:] = P, A, A.transpose(0, 2, 1)
    return K


def _sparse(program: ConeProgram) -> Iterator[sp.csc_array]:
    columns = columns_of(program.structure)
    for entries in columns.assemble(program.P, program.A, np.zeros((1, program.structure.m))):
        yield columns.pattern.matrix(entries)


def _least_norm(program: ConeProgram, r: Vector) -> tuple[Vector, Vector]:
    """Solves where K is singular, or nearly so; returns z and ρ, which is zero unless K z = r has no solution."""
    if _is_sparse(program.structure):
        return _proximal(next(_sparse(program)), r, program.structure.n)
    return _least_squares(_dense(program)[0], r, program.structure.n)


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


def _largest(vectors: Vectors) -> Float[np.ndarray, " batch"]:
    return np.max(np.abs(vectors), axis=1, initial=0.0)

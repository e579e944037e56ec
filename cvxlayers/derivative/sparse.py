"""Sparse factorisations of a batch of reduced systems: regularised LDLᵀ, refined on the true matrix.

K is symmetric and quasi-definite only after a small shift: K + δ diag(I, −I) has an LDLᵀ factorisation for every
ordering, and iterative refinement on K removes the shift. Where that does not converge, a pivoted LU of K itself is
tried, and then the least-squares solution of smallest norm (LSMR). These norms are those of the balanced system.

References: Vanderbei, "Symmetric quasi-definite matrices" (1995).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import qdldl
import scipy.sparse as sp
import scipy.sparse.linalg as spl
from jaxtyping import Float
from scipy.sparse.csgraph import structural_rank

from cvxlayers.batches import Values, Vectors
from cvxlayers.cones import IdentityBasis
from cvxlayers.derivative.system import Factorisation, Rank, Solve, System, relative_residual
from cvxlayers.kkt.columns import Columns, columns_of
from cvxlayers.kkt.turn import turn_of
from cvxlayers.parallel import chunks, map_chunks

_SHIFT = 1e-9
# Where a pivot vanishes with that shift, it takes another, of which the last outweighs a balanced matrix.
_SHIFTS = (_SHIFT, 3.1e-9, 1.7e-8, 1.3e-6, 1.1e-3, 2.0)
_ACCURATE, _REFINEMENTS = 1e-12, 12
_AT_ONCE = 8
# From this condition number on a balanced K is singular; entries of its null vector above the second are not rounding.
_SINGULAR, _PART = 0.01 / _SHIFT, 1e-4
# From this one on it may be.
_SUSPECT = 1e2


@dataclass(frozen=True, eq=False)
class SparseItem:
    """One matrix K, balanced to S K S with rows of unit size, S = diag(scale), and its shifted factors.

    `weakest` is a direction along which the shifted matrix is weakest, of unit size, and `condition` estimates by it.
    """

    balanced: sp.csc_array
    scale: Float[np.ndarray, " size"]
    factors: qdldl.Solver
    condition: float
    weakest: Float[np.ndarray, " size"]

    def solve(self, rhs: Float[np.ndarray, " size"]) -> tuple[Float[np.ndarray, " size"], float]:
        """Returns the solution and its relative residual."""
        size = np.max(np.abs(rhs), initial=0.0)
        if size == 0 or not np.isfinite(size):
            return np.where(size == 0, 0.0, np.nan) * np.ones_like(rhs), float(np.where(size == 0, 0.0, np.inf))
        target = self.scale * (rhs / size)
        u, residual = self._refine(target, self.factors.solve)
        if residual > _ACCURATE:
            u, residual = self._pivoted(target, u, residual)
        if residual > np.sqrt(_ACCURATE):
            u = spl.lsmr(self.balanced, target, atol=1e-14, btol=1e-14, maxiter=20 * len(target))[0]
            residual = _relative(target - self.balanced @ u, target)
        return self.scale * u * size, residual

    def _refine(self, target, approximate) -> tuple[Float[np.ndarray, " size"], float]:
        u = approximate(target)
        gap = target - self.balanced @ u
        residual = _relative(gap, target)
        for _ in range(_REFINEMENTS):
            if not residual > _ACCURATE / 10:
                break
            refined = u + approximate(gap)
            refined_gap = target - self.balanced @ refined
            refined_residual = _relative(refined_gap, target)
            if not refined_residual < residual:
                break
            u, gap, residual = refined, refined_gap, refined_residual
        return u, residual

    def _pivoted(self, target, u, residual) -> tuple[Float[np.ndarray, " size"], float]:
        """Tries a pivoted LU of the unshifted matrix; keeps the given solution where that is no better."""
        matrix = self.balanced.copy()
        matrix.eliminate_zeros()
        if structural_rank(matrix) < len(target):  # SuperLU may end the process on such a matrix
            return u, residual
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", spl.MatrixRankWarning)
                lu = spl.splu(matrix)
        except RuntimeError:  # exactly singular
            return u, residual
        candidate, candidate_residual = self._refine(target, lu.solve)
        # The nearly singular LU of a consistent system has a tiny residual and an arbitrary part in the null space.
        huge = np.max(np.abs(candidate)) > 1e6 * (np.max(np.abs(u)) + np.max(np.abs(target)))
        return (candidate, candidate_residual) if candidate_residual < residual and not huge else (u, residual)


@dataclass(frozen=True, eq=False)
class SparseFactorisation(Factorisation):
    """The factorised items of a batch."""

    n: int
    items: Sequence[SparseItem]
    threads: int

    @property
    def rank(self) -> Rank:
        """How regular the balanced matrices are."""
        return rank_of(self.items, self.n)

    def solve(self, first: Vectors, second: Vectors) -> Solve:
        """Solves K u = [first; second] for each item."""
        rhs = np.concatenate([first, second], axis=1)

        def solve_piece(piece: slice) -> list[tuple[Float[np.ndarray, " size"], float]]:
            return [item.solve(row) for item, row in zip(self.items[piece], rhs[piece], strict=True)]

        pieces = chunks(len(rhs), self.threads)
        solved = [result for part in map_chunks(solve_piece, pieces, self.threads) for result in part]
        u = np.array([result[0] for result in solved]).reshape(rhs.shape)
        residual = np.array([result[1] for result in solved], dtype=float)
        return Solve(u[:, : self.n], u[:, self.n :], residual)


def rank_of(items: Sequence[SparseItem], n: int) -> Rank:
    """Returns how regular the matrices of some items are, of which the first n unknowns are those of x."""
    condition = np.array([item.condition for item in items], dtype=float)
    null = np.array([item.weakest for item in items]).reshape((len(items), -1))
    singular = ~(condition < _SINGULAR)
    parts = [singular & (np.max(np.abs(part), axis=1, initial=0.0) > _PART) for part in np.split(null, [n], 1)]
    scale = np.array([item.scale for item in items]).reshape(null.shape)
    free = np.where(parts[0][:, None], (scale * null)[:, :n], 0.0)
    # What else is singular nearly is not known where something is singular.
    return Rank(condition, parts[0], parts[1], np.minimum(condition, _SINGULAR), free / _largest(free))


def factorise_sparse(system: System, threads: int) -> SparseFactorisation:
    """Factorises the sparse matrices K of a batch of systems, one by one."""
    first, place = system.distinct
    system, n = system if len(first) == len(place) else system.item(first), system.program.structure.n

    def factorise_piece(piece: slice) -> list[SparseItem]:
        columns, values = _assemble(system.item(piece))
        return [_factorise(columns, entries, n) for entries in values]

    # A few items at a time: entries are computed for all of them at once.
    parts = map_chunks(factorise_piece, chunks(len(first), max(threads, len(first) // _AT_ONCE)), threads)
    items = [item for part in parts for item in part]
    return SparseFactorisation(n, [items[k] for k in place.tolist()], threads)


def factorise_item(system: System, item: int) -> SparseItem:
    """Factorises the matrix of one item."""
    columns, values = _assemble(system.item(slice(item, item + 1)))
    return _factorise(columns, values[0], system.program.structure.n)


def _factorise(columns: Columns, entries: Float[np.ndarray, " nnz"], n: int) -> SparseItem:
    pattern = columns.pattern
    size = pattern.shape[0]
    sizes, scale = np.abs(entries), np.ones(size)
    # Rows of unit size do not fix the weight of P against A: a small P alone would leave K nearly singular.
    curvature = np.max(sizes[columns.in_P], initial=0.0)
    slope = np.max(sizes[columns.in_A], initial=0.0)
    if curvature > 0 and slope > 0:
        scale[:n], scale[n:] = 1.0 / np.sqrt(curvature), np.sqrt(curvature) / slope
    starts = pattern.indptr[:-1]
    for _ in range(3):
        largest = np.maximum.reduceat(sizes * scale[pattern.rows], starts) * scale
        scale = scale / np.sqrt(np.where(largest > 0, largest, 1.0))
    balanced = entries * scale[pattern.rows] * scale[pattern.cols]
    factors, shift = _shifted_factors(columns, balanced, n)
    # Inverse iteration: along a null vector of K, the shifted matrix has the eigenvalue ±δ.
    amplified = factors.solve(np.random.default_rng(0).normal(size=size))
    growth = float(np.max(np.abs(amplified), initial=0.0))
    if _SUSPECT < growth * shift / _SHIFT < _SINGULAR:  # the first vector may have little of the null vector
        amplified = factors.solve(amplified / growth)
        growth = max(growth, float(np.max(np.abs(amplified))))
    weakest = amplified / np.max(np.abs(amplified)) if growth > 0 else amplified
    return SparseItem(pattern.matrix(balanced), scale, factors, growth * shift / _SHIFT, weakest)


def _shifted_factors(columns: Columns, balanced: Float[np.ndarray, " nnz"], n: int) -> tuple[qdldl.Solver, float]:
    """Returns the factors of K + δ J, and δ: the first that leaves no pivot at zero."""
    for shift in _SHIFTS[:-1]:
        try:
            return _shifted(columns, balanced, n, shift), shift
        except RuntimeError:  # an entry of the diagonal cancels the shift
            continue
    return _shifted(columns, balanced, n, _SHIFTS[-1]), _SHIFTS[-1]


def _shifted(columns: Columns, balanced: Float[np.ndarray, " nnz"], n: int, shift: float) -> qdldl.Solver:
    shifted, triangle = balanced[columns.upper], columns.triangle
    shifted[columns.diagonal[:n]] += shift
    shifted[columns.diagonal[n:]] -= shift
    return qdldl.Solver(sp.csc_matrix((shifted, triangle.indices, triangle.indptr), shape=triangle.shape), upper=True)


def _assemble(system: System) -> tuple[Columns, Values]:
    """Returns the stored entries of the matrices K, and where they lie."""
    program, derivative, structure = system.program, system.derivative, system.program.structure
    if isinstance(derivative.basis, IdentityBasis):
        columns, pattern, A = columns_of(structure), structure.A, program.A
    else:
        rows, cols, U = derivative.basis.triplets()
        turn = turn_of(structure, rows, cols)
        columns, pattern, A = turn.columns, turn.pattern, turn.apply(U, program.A)
    scaled = A * np.take(system.root, pattern.rows, axis=1)
    return columns, columns.assemble(program.P, scaled, derivative.eigenvalues - 1.0)


def _largest(vectors: Vectors) -> Float[np.ndarray, "batch 1"]:
    size = np.max(np.abs(vectors), axis=1, initial=0.0, keepdims=True)
    return np.where(size > 0, size, 1.0)


def _relative(residual: Float[np.ndarray, " size"], rhs: Float[np.ndarray, " size"]) -> float:
    return float(relative_residual(residual[None], rhs[None])[0])

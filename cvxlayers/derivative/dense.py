"""Dense factorisations of a batch of reduced systems: LU, refined, and minimum-norm least squares where singular."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import lapack

from cvxlayers.batches import Vectors, every, some
from cvxlayers.cones import IdentityBasis
from cvxlayers.derivative.kept import Kept
from cvxlayers.derivative.system import Factorisation, Rank, Solve, System, refine, relative_residual
from cvxlayers.kkt.effort import dense_microseconds
from cvxlayers.parallel import map_chunks, worthwhile_chunks

Matrices = Float[np.ndarray, "batch k k"]
Factors = tuple[Float[np.ndarray, "_k _k"], Int[np.ndarray, " _k"]]

# A condition number of one over this makes an item suspect; an eigenvalue ratio below the second makes it singular.
_SUSPECT, _SINGULAR = 1e-9, 1e-12
# A ratio of LU pivots above this may be far below the condition number.
_ROUGH = 1e3
_REFINEMENTS = 3
# A residual above the first is worth another method; the shift of the regularised one; a null vector's parts above
# the last are not rounding.
_ESCALATE, _SHIFT, _PART = 1e-8, 1e-9, 1e-6
# Microseconds from which calls of LAPACK, with nothing between them, are shared among threads. Below, at order 56, two
# threads save a tenth of a whole step at best, and more often lose a few hundredths of it to waking up.
_FREE = 30.0
# Up to this order of K all rows are kept.
_SMALL = 40


@dataclass(frozen=True, eq=False)
class DenseFactorisation(Factorisation):
    """LU factors of the matrices K of a batch, without the rows that decouple, and inverses of the singular ones.

    Items may share a matrix: `place` says for each which of the factors and inverses are its own.

    Attributes:
        system: the systems.
        kept: the rows of each; None where all are kept.
        place: the position of each item's factors.
        factors: LU factors and pivots.
        pseudo_inverses: by position, the inverses of the singular K.
        ranks: how regular the systems are.
    """

    system: System
    kept: Kept | None
    place: Int[np.ndarray, " batch"]
    factors: Sequence[Factors]
    pseudo_inverses: Mapping[int, Float[np.ndarray, "_k _k"]]
    ranks: Rank

    @property
    def rank(self) -> Rank:
        """How regular the systems are."""
        return self.ranks

    def solve(self, first: Vectors, second: Vectors) -> Solve:
        """Solves K u = [first; second] for each item."""
        n, rhs = first.shape[1], np.concatenate([first, second], axis=1)
        degenerate = np.zeros(len(self.place), dtype=bool)
        if self.pseudo_inverses:
            degenerate = np.isin(self.place, list(self.pseudo_inverses))
        solution, residual = refine(self.system, rhs, self._back_substitute, ~degenerate)
        if some(residual > _ESCALATE):
            for item in np.flatnonzero((residual > _ESCALATE) & np.isfinite(residual) & ~degenerate).tolist():
                solution[item], residual[item] = self._escalate(item, rhs[item], solution[item], residual[item])
        return Solve(solution[:, :n], solution[:, n:], residual)

    def once(self, first: Vectors, second: Vectors) -> tuple[Vectors, Vectors]:
        """Solves K u = [first; second] for each item, once."""
        n, rhs = first.shape[1], np.concatenate([first, second], axis=1)
        solution = self._back_substitute(rhs, np.arange(len(rhs)))
        return solution[:, :n], solution[:, n:]

    def _escalate(
        self, item: int, rhs: Float[np.ndarray, " size"], u: Float[np.ndarray, " size"], residual: float
    ) -> tuple[Float[np.ndarray, " size"], float]:
        """Solves again where refinement has failed: balanced and regularised, then by least squares; keeps the best."""
        n, mine = self.system.program.structure.n, self.system.item(np.array([item]))
        rows = _rows(mine, self.kept, item)
        columns = np.concatenate([np.arange(n), n + rows])
        for solver in _balanced_solvers(assemble(mine, rows[None])[0], n):
            trial = np.zeros_like(u)
            for _ in range(1 + _REFINEMENTS):
                product = np.concatenate(mine.matvec(trial[None, :n], trial[None, n:]), axis=1)[0]
                trial = trial.copy()
                trial[columns] += solver((rhs - product)[columns])
                gap = rhs - np.concatenate(mine.matvec(trial[None, :n], trial[None, n:]), axis=1)[0]
                found = float(relative_residual(gap[None], rhs[None])[0])
                if found < residual:
                    u, residual = trial, found
            if residual <= _ESCALATE:
                break
        return u, residual

    def _back_substitute(self, rhs: Vectors, items: Int[np.ndarray, " count"]) -> Vectors:
        """Applies the factors; the rows left out read −z = 0."""
        if self.kept is None:
            return self._apply(rhs.copy(), items)
        n, kept = self.system.program.structure.n, self.kept.item(items)
        solution = self._apply(np.concatenate([rhs[:, :n], kept.take(rhs[:, n:])], axis=1), items)
        full = np.zeros(rhs.shape)
        full[:, :n] = solution[:, :n]
        kept.put(full[:, n:], solution[:, n:])
        return full

    def _apply(self, rhs: Vectors, items: Int[np.ndarray, " count"]) -> Vectors:
        """Replaces right-hand sides, of the rows that are kept and padded, by solutions."""
        if not rhs.shape[1]:  # LAPACK takes no empty matrices
            return rhs
        for padded, place in zip(rhs, self.place[items].tolist(), strict=True):
            factors, pivots = self.factors[place]
            own = padded[: len(pivots)]
            if place in self.pseudo_inverses:
                own[:] = self.pseudo_inverses[place] @ own
            else:
                lapack.dgetrs(factors, pivots, own, overwrite_b=1)
        return rhs


def factorise_dense(system: System, threads: int) -> DenseFactorisation:
    """Factorises the dense matrices K of a batch of systems."""
    first, place = system.distinct
    some = system if len(first) == len(place) else system.item(first)
    structure, batch = some.program.structure, len(first)
    # Where few rows are, sorting them out costs more than factorising them: a row with d = 0 is −1 on the diagonal.
    every = structure.n + structure.m <= _SMALL or not structure.n
    kept = None if every else Kept.of(some.derivative.eigenvalues > 0)
    rows = np.broadcast_to(np.arange(structure.m), (batch, structure.m)) if kept is None else kept.order
    matrices = assemble(some, rows)
    parts = list(matrices)
    if kept is not None:
        parts = [K[:order, :order] for K, order in zip(matrices, (structure.n + kept.count).tolist(), strict=True)]

    def factorise(piece: slice) -> list[Factors]:
        if not matrices.shape[1]:
            return [(part, np.zeros(0, dtype=np.int32)) for part in parts[piece]]
        # K is symmetric, so the transpose of a row-major item is K itself, in the order that LAPACK overwrites.
        return [lapack.dgetrf(part.T, overwrite_a=1)[:2] for part in parts[piece]]

    pieces = worthwhile_chunks(batch, threads, dense_microseconds(matrices.shape[1]), _FREE)
    factors = [pair for found in map_chunks(factorise, pieces, threads) for pair in found]
    inverses, rank = _rank(some, kept, matrices, factors)
    if some is not system:
        kept, rank = None if kept is None else kept.item(place), rank.item(place)
    return DenseFactorisation(system, kept, place, factors, inverses, rank)


def _rows(system: System, kept: Kept | None, item: int) -> Int[np.ndarray, " kept"]:
    """Returns the rows that an item keeps."""
    return np.arange(system.program.structure.m) if kept is None else kept.order[item, : kept.count[item]]


def assemble(system: System, kept: Int[np.ndarray, "batch kept"]) -> Matrices:
    """Returns the matrices K of a batch of systems, with the rows `kept` of each."""
    program, n = system.program, system.program.structure.n
    batch, size = kept.shape
    A = program.structure.A.dense(program.A)
    if not isinstance(system.derivative.basis, IdentityBasis):
        A = system.derivative.basis.rotate(np.broadcast_to(A, (batch, *A.shape[1:])))
    root, eigenvalues = system.root, system.derivative.eigenvalues
    if size < root.shape[1] or some(kept != np.arange(size)):
        # Several times faster than `take_along_axis`.
        items = np.arange(batch)[:, None]
        A = A[0][kept] if len(A) == 1 else A[items, kept]
        root, eigenvalues = root[items, kept], eigenvalues[items, kept]
    coupling = A * root[:, :, None]
    K = np.empty((batch, n + size, n + size))
    # P is symmetric: of it and its transpose, this is the one that lies in memory as K does.
    K[:, :n, :n] = program.structure.P.dense(program.P).transpose(0, 2, 1)
    K[:, n:, :n], K[:, :n, n:] = coupling, coupling.transpose(0, 2, 1)
    K[:, n:, n:] = 0.0
    diagonal = np.arange(n, n + size)
    K[:, diagonal, diagonal] = eigenvalues - 1.0
    return K


def _rank(
    system: System, kept: Kept | None, matrices: Matrices, factors: Sequence[Factors]
) -> tuple[dict[int, Float[np.ndarray, "_k _k"]], Rank]:
    """Returns the pseudo-inverse of every item that is singular to working precision, and how regular all are."""
    batch, n = len(factors), system.program.structure.n
    if not matrices.shape[1]:
        return {}, Rank.regular(np.ones(batch), n)
    smallest, largest = _pivots(kept, matrices, factors)
    if every(largest < _ROUGH * smallest):
        return {}, Rank.regular(largest / smallest, n)
    rank = Rank.regular(np.divide(largest, smallest, out=np.full(batch, np.inf), where=smallest > 0), n)
    for item in ((rank.condition > _ROUGH) & (smallest > _SUSPECT * largest)).nonzero()[0].tolist():
        reciprocal = float(lapack.dgecon(factors[item][0], 1.0)[0])
        rank.condition[item] = max(rank.condition[item], largest[item] / reciprocal if reciprocal > 0 else np.inf)
    rank.inverted[:] = rank.condition
    found: dict[int, Float[np.ndarray, "_k _k"]] = {}
    for item in (~(rank.condition * _SUSPECT < 1.0)).nonzero()[0].tolist():
        K = assemble(system.item(np.array([item])), _rows(system, kept, item)[None])[0]
        if not np.isfinite(K).all():
            continue
        rank.condition[item], rank.inverted[item] = _balanced_conditions(K)
        if rank.condition[item] * _SINGULAR >= 1.0:
            found[item], null = _pseudo_inverse(K)
            weight = np.abs(null).max(axis=1)
            rank.not_unique[item] = weight[:n].max(initial=0.0) > _PART
            rank.dependent[item] = weight[n:].max(initial=0.0) > _PART
            if rank.not_unique[item]:
                rank.free[item] = null[:n] @ np.random.default_rng(0).normal(size=null.shape[1])
    return found, rank


def _pivots(
    kept: Kept | None, matrices: Matrices, factors: Sequence[Factors]
) -> tuple[Float[np.ndarray, " batch"], Float[np.ndarray, " batch"]]:
    """Returns the sizes of the smallest and the largest pivot; where all rows are kept, factors are in place."""
    if kept is None:
        pivots = np.abs(np.diagonal(matrices, axis1=1, axis2=2))
        return pivots.min(axis=1), pivots.max(axis=1)
    pivots = np.abs(np.concatenate([matrix.diagonal() for matrix, _ in factors]))
    orders = matrices.shape[1] - kept.order.shape[1] + kept.count
    begins = np.cumsum(orders) - orders
    return np.minimum.reduceat(pivots, begins), np.maximum.reduceat(pivots, begins)


def _balance(K: Float[np.ndarray, "k k"]) -> Float[np.ndarray, " k"]:
    """Returns the scale S for which S K S has rows of about unit size."""
    row_sizes = np.abs(K).max(axis=1)
    return 1.0 / np.sqrt(np.where(row_sizes > 0, row_sizes, 1.0))


def _balanced_conditions(K: Float[np.ndarray, "k k"]) -> tuple[float, float]:
    """Returns the condition number of K, once its rows and columns have comparable size, and without its null space."""
    scale = _balance(K)
    sizes = np.abs(np.linalg.eigvalsh(K * np.outer(scale, scale)))
    largest, smallest = float(sizes.max()), float(sizes.min())
    regular = sizes[sizes > _SINGULAR * largest]
    inverted = largest / float(regular.min()) if len(regular) else 1.0
    return largest / smallest if smallest > 0 else np.inf, inverted


def _pseudo_inverse(K: Float[np.ndarray, "k k"]) -> tuple[Float[np.ndarray, "k k"], Float[np.ndarray, "k null"]]:
    """Returns K⁺ and an orthonormal basis of K's null space."""
    eigenvalues, vectors = np.linalg.eigh(K)
    regular = np.abs(eigenvalues) > 10 * _SINGULAR * np.abs(eigenvalues).max()
    inverse = np.divide(1.0, eigenvalues, out=np.zeros_like(eigenvalues), where=regular)
    return (vectors * inverse) @ vectors.T, vectors[:, ~regular]


def _balanced_solvers(K: Float[np.ndarray, "k k"], n: int) -> Iterator[Callable[[Any], Any]]:
    """Yields approximate inverses of a matrix that LU does not solve: regularised as quasi-definite, least squares."""
    scale = _balance(K)
    balanced = K * np.outer(scale, scale)
    sign = np.where(np.arange(len(K)) < n, 1.0, -1.0)
    with np.errstate(all="ignore"):
        factors = lapack.dgetrf(balanced + _SHIFT * np.diag(sign))[:2]
        yield lambda rhs: scale * lapack.dgetrs(*factors, scale * rhs)[0]
    eigenvalues, vectors = np.linalg.eigh(balanced)
    regular = np.abs(eigenvalues) > 10 * _SINGULAR * np.abs(eigenvalues).max()
    inverse = np.divide(1.0, eigenvalues, out=np.zeros_like(eigenvalues), where=regular)
    yield lambda rhs: scale * (vectors @ (inverse * (vectors.T @ (scale * rhs))))

"""Dense factorisations of a batch of reduced systems: LU, refined, and minimum-norm least squares where singular."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import lapack

from cvxlayers.cones import IdentityBasis
from cvxlayers.derivative.system import Factorisation, Rank, Solve, System, refine, relative_residual
from cvxlayers.kkt import dense_microseconds
from cvxlayers.parallel import map_chunks, worthwhile_chunks
from cvxlayers.program import Vectors

Matrices = Float[np.ndarray, "batch k k"]

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
_SMALL = 80


@dataclass(frozen=True, eq=False)
class Group:
    """The items that keep equally many rows: their systems, which rows, K's LU factors, the singular K's inverses.

    Items may share a matrix: `place` says for each which of the factors, pivots and inverses are its own.

    Items are grouped, and not padded to one size, so that no item's rounding depends on its neighbours.
    """

    system: System
    items: Int[np.ndarray, " batch"]
    kept: Int[np.ndarray, "batch kept"]
    place: Int[np.ndarray, " batch"]
    factors: Float[np.ndarray, "distinct k k"]
    pivots: list[Int[np.ndarray, " k"]]
    pseudo_inverses: Mapping[int, Float[np.ndarray, "k k"]]
    rank: Rank

    def solve(self, first: Vectors, second: Vectors) -> Solve:
        """Solves K u = [first; second] for the items of the group."""
        n, rhs = first.shape[1], np.concatenate([first, second], axis=1)
        degenerate = np.zeros(len(self.place), dtype=bool)
        if self.pseudo_inverses:
            degenerate = np.isin(self.place, list(self.pseudo_inverses))
        solution, residual = refine(self.system, rhs, self._back_substitute, ~degenerate)
        if (residual > _ESCALATE).any():
            for item in np.flatnonzero((residual > _ESCALATE) & np.isfinite(residual) & ~degenerate).tolist():
                solution[item], residual[item] = self._escalate(item, rhs[item], solution[item], residual[item])
        return Solve(solution[:, :n], solution[:, n:], residual)

    def _escalate(
        self, item: int, rhs: Float[np.ndarray, " size"], u: Float[np.ndarray, " size"], residual: float
    ) -> tuple[Float[np.ndarray, " size"], float]:
        """Solves again where refinement has failed: balanced and regularised, then by least squares; keeps the best."""
        n, index, mine = self.system.program.structure.n, np.array([item]), self.system.item(np.array([item]))
        columns = np.concatenate([np.arange(n), n + self.kept[item]])
        K = assemble(mine, self.kept[index])[0]
        for solver in _balanced_solvers(K, n):
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
        n, m = self.system.program.structure.n, self.system.program.structure.m
        if self.kept.shape[1] == m:
            return self._apply(rhs, items)
        columns = np.concatenate([np.broadcast_to(np.arange(n), (len(items), n)), n + self.kept[items]], axis=1)
        full = np.zeros((len(items), n + m))
        np.put_along_axis(full, columns, self._apply(np.take_along_axis(rhs, columns, axis=1), items), axis=1)
        return full

    def _apply(self, rhs: Vectors, items: Int[np.ndarray, " count"]) -> Vectors:
        """Applies the factors to the rows that are kept."""
        solution = np.empty_like(rhs)
        for row, place in enumerate(self.place[items].tolist() if rhs.shape[1] else ()):
            if place in self.pseudo_inverses:
                solution[row] = self.pseudo_inverses[place] @ rhs[row]
            else:
                solution[row] = lapack.dgetrs(self.factors[place].T, self.pivots[place], rhs[row])[0]
        return solution


@dataclass(frozen=True, eq=False)
class DenseFactorisation(Factorisation):
    """The factorised groups of a batch."""

    groups: Sequence[Group]

    @property
    def rank(self) -> Rank:
        """How regular the systems are."""
        if len(self.groups) == 1:
            return self.groups[0].rank
        if not self.groups:
            return Rank.regular(np.ones(0), 0)
        order = np.argsort(np.concatenate([group.items for group in self.groups]))
        names = [field.name for field in fields(Rank)]
        return Rank(*(np.concatenate([getattr(group.rank, name) for group in self.groups])[order] for name in names))

    def solve(self, first: Vectors, second: Vectors) -> Solve:
        """Solves K u = [first; second] for each item."""
        if len(self.groups) == 1:
            return self.groups[0].solve(first, second)
        u, z, residual = np.empty(first.shape), np.empty(second.shape), np.empty(len(first))
        for group in self.groups:
            part = group.solve(first[group.items], second[group.items])
            u[group.items], z[group.items] = part.first, part.second
            residual[group.items] = part.residual
        return Solve(u, z, residual)


def factorise_dense(system: System, threads: int) -> DenseFactorisation:
    """Factorises the dense matrices K of a batch of systems."""
    eigenvalues = system.derivative.eigenvalues
    batch, m = eigenvalues.shape
    if system.program.structure.n + m <= _SMALL:
        # Here sorting rows out costs more than factorising them: a row with d = 0 is −1 on the diagonal.
        everything = np.broadcast_to(np.arange(m), (batch, m))
        return DenseFactorisation([_factorise_group(system, np.arange(batch), everything, threads)])
    positive = eigenvalues > 0
    counts = positive.sum(axis=1)
    groups = []
    for count in np.unique(counts):
        items = np.flatnonzero(counts == count)
        kept = np.nonzero(positive[items])[1].reshape(len(items), -1)
        groups.append(_factorise_group(system, items, kept, threads))
    return DenseFactorisation(groups)


def _factorise_group(
    system: System, items: Int[np.ndarray, " group"], kept: Int[np.ndarray, "group kept"], threads: int
) -> Group:
    mine = system.item(items) if len(items) < system.program.batch else system
    first, place = mine.distinct
    some, rows = (mine, kept) if len(first) == len(items) else (mine.item(first), kept[first])
    factors = assemble(some, rows)

    def factorise(piece: slice) -> list[Int[np.ndarray, " k"]]:
        # K is symmetric, so the transpose of a row-major item is K itself, in the order that LAPACK overwrites.
        if not factors.shape[1]:  # LAPACK takes no empty matrices
            return [np.zeros(0, dtype=np.int32)] * len(factors[piece])
        return [lapack.dgetrf(item.T, overwrite_a=1)[1] for item in factors[piece]]

    pieces = worthwhile_chunks(len(factors), threads, dense_microseconds(factors.shape[1]), _FREE)
    pivots = [pivot for part in map_chunks(factorise, pieces, threads) for pivot in part]
    inverses, rank = _rank(some, rows, factors)
    return Group(mine, items, kept, place, factors, pivots, inverses, rank if some is mine else rank.item(place))


def assemble(system: System, kept: Int[np.ndarray, "batch kept"]) -> Matrices:
    """Returns the matrices K of a batch of systems, with the rows `kept` of each."""
    program, n = system.program, system.program.structure.n
    batch, size = kept.shape
    At = program.structure.A.dense(program.A).transpose(0, 2, 1)
    if not isinstance(system.derivative.basis, IdentityBasis):
        rotated = system.derivative.basis.rotate(np.broadcast_to(At, (batch, *At.shape[1:])).transpose(0, 2, 1))
        At = rotated.transpose(0, 2, 1)
    root, eigenvalues = system.root, system.derivative.eigenvalues
    if size < root.shape[1]:
        At = At[0][:, kept].transpose(1, 0, 2) if len(At) == 1 else np.take_along_axis(At, kept[:, None, :], axis=2)
        root, eigenvalues = np.take_along_axis(root, kept, axis=1), np.take_along_axis(eigenvalues, kept, axis=1)
    K = np.empty((batch, n + size, n + size))
    # P is symmetric: of it and its transpose, this is the one that lies in memory as K does.
    K[:, :n, :n] = program.structure.P.dense(program.P).transpose(0, 2, 1)
    np.multiply(At, root[:, None, :], out=K[:, :n, n:])
    K[:, n:, :n] = K[:, :n, n:].transpose(0, 2, 1)
    K[:, n:, n:] = 0.0
    diagonal = np.arange(n, n + size)
    K[:, diagonal, diagonal] = eigenvalues - 1.0
    return K


def _rank(
    system: System, kept: Int[np.ndarray, "batch kept"], factors: Matrices
) -> tuple[dict[int, Float[np.ndarray, "k k"]], Rank]:
    """Returns the pseudo-inverse of every item that is singular to working precision, and how regular all are."""
    batch, n = len(factors), system.program.structure.n
    if not factors.shape[1]:
        return {}, Rank.regular(np.ones(batch), n)
    pivots = np.abs(np.diagonal(factors, axis1=1, axis2=2))
    smallest, largest = pivots.min(axis=1), pivots.max(axis=1)
    if (largest < _ROUGH * smallest).all():
        return {}, Rank.regular(largest / smallest, n)
    rank = Rank.regular(np.divide(largest, smallest, out=np.full(batch, np.inf), where=smallest > 0), n)
    for item in np.flatnonzero((rank.condition > _ROUGH) & (smallest > _SUSPECT * largest)).tolist():
        reciprocal = float(lapack.dgecon(factors[item].T, 1.0)[0])
        rank.condition[item] = max(rank.condition[item], largest[item] / reciprocal if reciprocal > 0 else np.inf)
    rank.inverted[:] = rank.condition
    found: dict[int, Float[np.ndarray, "k k"]] = {}
    for item in np.flatnonzero(~(rank.condition * _SUSPECT < 1.0)).tolist():
        K = assemble(system.item(np.array([item])), kept[[item]])[0]
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

"""Dense factorisations of a batch of reduced systems: LU, refined, and minimum-norm least squares where singular."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import lapack

from cvxlayers.cones import IdentityBasis
from cvxlayers.derivative.system import Factorisation, Solve, System, relative_residual
from cvxlayers.parallel import map_chunks, worthwhile_chunks
from cvxlayers.program import Vectors

Matrices = Float[np.ndarray, "batch k k"]

# A ratio of LU pivots below this makes an item suspect; an eigenvalue ratio below the second makes it singular.
_SUSPECT, _SINGULAR = 1e-9, 1e-12
_REFINE_ABOVE, _REFINEMENTS = 1e-13, 3
# Up to this order of K all rows are kept.
_SMALL = 80


@dataclass(frozen=True, eq=False)
class Group:
    """The items that keep equally many rows: their systems, which rows, K's LU factors, the singular items' inverses.

    Items are grouped, and not padded to one size, so that no item's rounding depends on its neighbours.
    """

    system: System
    items: Int[np.ndarray, " batch"]
    kept: Int[np.ndarray, "batch kept"]
    factors: Matrices
    pivots: list[Int[np.ndarray, " k"]]
    pseudo_inverses: Mapping[int, Float[np.ndarray, "k k"]]

    def solve(self, first: Vectors, second: Vectors) -> Solve:
        """Solves K u = [first; second] for the items of the group."""
        n, rhs = first.shape[1], np.concatenate([first, second], axis=1)
        degenerate = np.zeros(len(rhs), dtype=bool)
        degenerate[list(self.pseudo_inverses)] = True
        solution = self._back_substitute(rhs, np.arange(len(rhs)))
        gap = rhs - np.concatenate(self.system.matvec(solution[:, :n], solution[:, n:]), axis=1)
        residual = relative_residual(gap, rhs)
        for _ in range(_REFINEMENTS):
            items = np.flatnonzero((residual > _REFINE_ABOVE) & ~degenerate)
            if not len(items):
                break
            refined = solution[items] + self._back_substitute(gap[items], items)
            product = self.system.item(items).matvec(refined[:, :n], refined[:, n:])
            refined_gap = rhs[items] - np.concatenate(product, axis=1)
            refined_residual = relative_residual(refined_gap, rhs[items])
            better = refined_residual < residual[items]
            if not better.any():
                break
            chosen = items[better]
            solution[chosen], gap[chosen] = refined[better], refined_gap[better]
            residual[chosen] = refined_residual[better]
        return Solve(solution[:, :n], solution[:, n:], residual, degenerate)

    def _back_substitute(self, rhs: Vectors, items: Int[np.ndarray, " count"]) -> Vectors:
        """Applies the factors; the rows left out read −z = 0."""
        n, m = self.system.program.structure.n, self.system.program.structure.m
        everything = self.kept.shape[1] == m
        columns = np.concatenate([np.broadcast_to(np.arange(n), (len(items), n)), n + self.kept[items]], axis=1)
        rhs = rhs if everything else np.take_along_axis(rhs, columns, axis=1)
        solution = np.empty_like(rhs)
        for row, item in enumerate(items.tolist()):
            if item in self.pseudo_inverses:
                solution[row] = self.pseudo_inverses[item] @ rhs[row]
            else:
                solution[row] = lapack.dgetrs(self.factors[item].T, self.pivots[item], rhs[row])[0]
        if everything:
            return solution
        full = np.zeros((len(items), n + m))
        np.put_along_axis(full, columns, solution, axis=1)
        return full


@dataclass(frozen=True, eq=False)
class DenseFactorisation(Factorisation):
    """The factorised groups of a batch."""

    groups: Sequence[Group]

    def solve(self, first: Vectors, second: Vectors) -> Solve:
        """Solves K u = [first; second] for each item."""
        if len(self.groups) == 1:
            return self.groups[0].solve(first, second)
        u, z = np.empty(first.shape), np.empty(second.shape)
        residual, degenerate = np.empty(len(first)), np.empty(len(first), dtype=bool)
        for group in self.groups:
            part = group.solve(first[group.items], second[group.items])
            u[group.items], z[group.items] = part.first, part.second
            residual[group.items], degenerate[group.items] = part.residual, part.degenerate
        return Solve(u, z, residual, degenerate)


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


def microseconds(order: int) -> float:
    """Returns about how long LAPACK takes to factorise a matrix K."""
    return 1e-4 * order**3


def _factorise_group(
    system: System, items: Int[np.ndarray, " group"], kept: Int[np.ndarray, "group kept"], threads: int
) -> Group:
    mine = system.item(items) if len(items) < system.program.batch else system
    factors = assemble(mine, kept)

    def factorise(piece: slice) -> list[Int[np.ndarray, " k"]]:
        # K is symmetric, so the transpose of a row-major item is K itself, in the order that LAPACK overwrites.
        return [lapack.dgetrf(item.T, overwrite_a=1)[1] for item in factors[piece]]

    pieces = worthwhile_chunks(len(factors), threads, microseconds(factors.shape[1]))
    pivots = [pivot for part in map_chunks(factorise, pieces, threads) for pivot in part]
    return Group(mine, items, kept, factors, pivots, _pseudo_inverses(mine, kept, factors))


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


def _pseudo_inverses(
    system: System, kept: Int[np.ndarray, "batch kept"], factors: Matrices
) -> dict[int, Float[np.ndarray, "k k"]]:
    """Returns the pseudo-inverse of every item that is singular to working precision."""
    if not factors.shape[1]:
        return {}
    pivots = np.abs(np.diagonal(factors, axis1=1, axis2=2))
    suspects = np.flatnonzero(~(pivots.min(axis=1) > _SUSPECT * pivots.max(axis=1)))
    if not len(suspects):
        return {}
    matrices = zip(suspects.tolist(), assemble(system.item(suspects), kept[suspects]), strict=True)
    found = {item: _pseudo_inverse(K) for item, K in matrices if np.isfinite(K).all()}
    return {item: inverse for item, inverse in found.items() if inverse is not None}


def _pseudo_inverse(K: Float[np.ndarray, "k k"]) -> Float[np.ndarray, "k k"] | None:
    """Returns K⁺, or None where K is only badly scaled: regular once its rows and columns have comparable size."""
    row_sizes = np.abs(K).max(axis=1)
    scale = np.sqrt(np.where(row_sizes > 0, row_sizes, 1.0))
    balanced = np.abs(np.linalg.eigvalsh(K / np.outer(scale, scale)))
    if balanced.min() > _SINGULAR * balanced.max():
        return None
    eigenvalues, vectors = np.linalg.eigh(K)
    regular = np.abs(eigenvalues) > 10 * _SINGULAR * np.abs(eigenvalues).max()
    inverse = np.divide(1.0, eigenvalues, out=np.zeros_like(eigenvalues), where=regular)
    return (vectors * inverse) @ vectors.T

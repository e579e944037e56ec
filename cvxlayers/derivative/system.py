"""The symmetric linear system behind every derivative of the residual map.

The Jacobian of the residual map is J = [[P, AᵀD], [A, D − I]] with D = U diag(d) Uᵀ, 0 ≤ d ≤ 1. With r = √d and
Ã = UᵀA, write dv = A dx + dy − r₂ and dy = U r z. Then J [dx; dv] = [r₁; r₂] becomes

    K [dx; z] = [r₁ ; r Uᵀr₂],        K = [[P, Ãᵀ diag(r)], [diag(r) Ã, diag(d − 1)]],

and Jᵀ [λ; μ] = [g₁; Dȳ + (D − I)s̄] becomes, with μ = s̄ + U r ζ, the same system for [λ; ζ] with right-hand side
[g₁ − Aᵀs̄ ; r Uᵀȳ]. So one symmetric matrix, whose factorisation is shared, serves tangents, cotangents and Newton
steps. A direction with d = 0 decouples (its row of K is −1 on the diagonal) and is left out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from cvxlayers.batches import Vectors, is_everything, largest, some
from cvxlayers.cones import Derivative, IdentityBasis, ProductBasis, together
from cvxlayers.elimination import distinct_rows
from cvxlayers.program import ConeProgram

# A relative residual above the first is refined, at most so often.
_REFINE_ABOVE, _REFINEMENTS = 1e-13, 3


@dataclass(frozen=True, eq=False)
class System:
    """The matrices K of a batch of programs at points where the projection has derivative D."""

    program: ConeProgram
    derivative: Derivative

    @cached_property
    def root(self) -> Vectors:
        """The square roots of D's eigenvalues."""
        return np.sqrt(self.derivative.eigenvalues)

    def to_eigen(self, w: Vectors) -> Vectors:
        """Returns diag(r) Uᵀ w."""
        return self.root * self.derivative.basis.rotate(w[..., None])[..., 0]

    def from_eigen(self, z: Vectors) -> Vectors:
        """Returns U diag(r) z, the adjoint of `to_eigen`."""
        return self.derivative.basis.unrotate((self.root * z)[..., None])[..., 0]

    def matvec(self, first: Vectors, second: Vectors) -> tuple[Vectors, Vectors]:
        """Returns the two parts of K [first; second]."""
        program, P, A = self.program, self.program.structure.P, self.program.structure.A
        head = P.matvec(program.P, first) + A.rmatvec(program.A, self.from_eigen(second))
        tail = self.to_eigen(A.matvec(program.A, first)) + (self.derivative.eigenvalues - 1.0) * second
        return head, tail

    def item(self, index: slice | Int[np.ndarray, " k"]) -> System:
        """Returns the systems of some items."""
        if is_everything(index, self.program.batch):
            return self  # with what is known of it
        return System(self.program.item(index), self.derivative.item(index))

    @property
    def distinct(self) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " batch"]]:
        """Items whose matrices differ, and for each item which of these has its own.

        Items that share P and A, and have the same constraints active, have the same matrix.
        """
        shared = len(self.program.P) == len(self.program.A) == 1
        return distinct_rows(self.derivative.eigenvalues, shared and isinstance(self.derivative.basis, IdentityBasis))


@dataclass(frozen=True, eq=False)
class Solve:
    """The solution [first; second] of K u = right-hand side, and how well it was solved.

    `residual` is ‖K u − rhs‖∞ / ‖rhs‖∞ per item (zero where the right-hand side is).
    """

    first: Vectors
    second: Vectors
    residual: Float[np.ndarray, " batch"]


@dataclass(frozen=True, eq=False)
class Rank:
    """How regular the matrices K are, per item.

    Attributes:
        condition: an estimate of the condition number of K, from what the factorisation computes anyway.
        not_unique: whether K is singular along a direction of x: other solutions are as good.
        dependent: whether K is singular along a direction of y: active constraints depend on one another.
        inverted: the condition number of the part of K that is inverted: all of it, where it is not singular.
        free: the x of a random vector [x; z] of the null space where K is singular, else zero.
    """

    condition: Float[np.ndarray, " batch"]
    not_unique: Bool[np.ndarray, " batch"]
    dependent: Bool[np.ndarray, " batch"]
    inverted: Float[np.ndarray, " batch"]
    free: Vectors

    @classmethod
    def regular(cls, condition: Float[np.ndarray, " batch"], n: int) -> Rank:
        """Returns the rank of regular matrices with n unknowns of x, whose condition is known."""
        not_unique, dependent = np.zeros((2, len(condition)), dtype=bool)
        return cls(condition, not_unique, dependent, condition.copy(), np.zeros((len(condition), n)))

    def item(self, index: Int[np.ndarray, " k"]) -> Rank:
        """Returns the rank of some items."""
        return Rank(*(getattr(self, field.name)[index] for field in fields(self)))

    def replace_items(self, index: Int[np.ndarray, " k"], rank: Rank) -> None:
        """Puts the rank of some items in place."""
        for field in fields(self):
            getattr(self, field.name)[index] = getattr(rank, field.name)


class Factorisation(ABC):
    """A factorised batch of systems. Where K is singular, solutions are the least-squares ones of smallest norm."""

    @property
    @abstractmethod
    def rank(self) -> Rank:
        """How regular the systems are."""

    @abstractmethod
    def solve(self, first: Vectors, second: Vectors) -> Solve:
        """Solves K u = [first; second] for each item."""

    def once(self, first: Vectors, second: Vectors) -> tuple[Vectors, Vectors]:
        """Solves as `solve` does, but need not look at the residual: for what is judged by where it leads."""
        solve = self.solve(first, second)
        return solve.first, solve.second


@dataclass(frozen=True, eq=False)
class Lifted(Factorisation):
    """A factorised smaller system, to which right-hand sides are folded and from which solutions are expanded.

    `carry` takes what a null vector does to the variables of the smaller system to all variables.
    """

    inner: Factorisation
    fold: Callable[[Vectors, Vectors], tuple[Vectors, Vectors]]
    expand: Callable[[tuple[Vectors, Vectors], tuple[Vectors, Vectors]], tuple[Vectors, Vectors]]
    carry: Callable[[Vectors], Vectors]

    @property
    def rank(self) -> Rank:
        """How regular the smaller systems are."""
        rank = self.inner.rank
        return replace(rank, free=self.carry(rank.free)) if some(rank.not_unique) else rank

    def solve(self, first: Vectors, second: Vectors) -> Solve:
        """Solves K u = [first; second] for each item; the residual is that of the smaller system."""
        small = self.inner.solve(*self.fold(first, second))
        return Solve(*self.expand((small.first, small.second), (first, second)), small.residual)

    def once(self, first: Vectors, second: Vectors) -> tuple[Vectors, Vectors]:
        """Solves K u = [first; second] for each item, once."""
        return self.expand(self.inner.once(*self.fold(first, second)), (first, second))


# Factorises systems; where they are those of some items of a batch, these items may follow as an index.
Factorise = Callable[..., Factorisation]


def of_rows(derivative: Derivative, kept: Int[np.ndarray, " k"]) -> Derivative:
    """Returns a derivative of some rows alone; on the others its basis is the identity."""
    eigenvalues, basis = derivative.eigenvalues.take(kept, axis=1), derivative.basis
    if not isinstance(basis, ProductBasis):
        return Derivative(eigenvalues, IdentityBasis(len(kept)))
    position = np.full(derivative.eigenvalues.shape[1], -1)
    position[kept] = np.arange(len(kept))
    every = [position[rows] for rows in basis.rows]
    mine = [rows[rows >= 0] for rows in every]
    parts = [IdentityBasis(len(k)) if len(k) < len(r) else p for k, r, p in zip(mine, every, basis.parts, strict=True)]
    return Derivative(eigenvalues, ProductBasis([together(rows) for rows in mine], parts))


def relative_residual(residual: Vectors, rhs: Vectors) -> Float[np.ndarray, " batch"]:
    """Returns ‖residual‖∞ / ‖rhs‖∞ per item: 0 where the right-hand side is zero, infinite where it is not finite."""
    size, scale = largest(residual), largest(rhs)
    ratio = np.divide(size, scale, out=np.zeros(len(size)), where=scale > 0)
    return np.fmin(ratio, np.inf)  # infinite for NaN


def refine(
    system: System,
    rhs: Vectors,
    approximate: Callable[[Vectors, Int[np.ndarray, " count"]], Vectors],
    refinable: Bool[np.ndarray, " batch"],
) -> tuple[Vectors, Float[np.ndarray, " batch"]]:
    """Solves K u = rhs by an approximate inverse and iterative refinement; returns u and its relative residual.

    Args:
        system: the matrices K.
        rhs: the right-hand sides.
        approximate: applies approximate inverses of some items to right-hand sides.
        refinable: the items whose solution is refined; of the others the first solution stands.
    """
    n = system.program.structure.n
    solution = approximate(rhs, np.arange(len(rhs)))
    gap = rhs - np.concatenate(system.matvec(solution[:, :n], solution[:, n:]), axis=1)
    residual = relative_residual(gap, rhs)
    for _ in range(_REFINEMENTS):
        rough = (residual > _REFINE_ABOVE) & refinable
        if not some(rough):
            break
        items = np.flatnonzero(rough)
        refined = solution[items] + approximate(gap[items], items)
        product = system.item(items).matvec(refined[:, :n], refined[:, n:])
        refined_gap = rhs[items] - np.concatenate(product, axis=1)
        refined_residual = relative_residual(refined_gap, rhs[items])
        better = refined_residual < residual[items]
        if not some(better):
            break
        chosen = items[better]
        solution[chosen], gap[chosen] = refined[better], refined_gap[better]
        residual[chosen] = refined_residual[better]
    return solution, residual

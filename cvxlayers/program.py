"""The cone program, its batched values, and its solutions.

For each item of a batch:

    minimise ½ xᵀPx + qᵀx   subject to   Ax + s = b,  s ∈ K,          dual variable y ∈ K*,

with the optimality conditions Px + Aᵀy + q = 0, Ax + s = b, s ∈ K, y ∈ K*, sᵀy = 0. The rows of A are ordered as in
`cvxlayers.cones.Product`: zero, nonnegative, second-order, semidefinite (scaled upper triangle, column by column),
exponential (x, y, z with y·exp(x/y) ≤ z), power (x, y, z with x^α y^(1−α) ≥ |z|).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from cvxlayers.batches import Values, Vectors, is_everything, largest
from cvxlayers.complement import Complement, Whole, find_complement, find_whole
from cvxlayers.cones import Product
from cvxlayers.elimination import Active, Elimination, eliminate
from cvxlayers.patterns import Pattern


class Status(IntEnum):
    """How the solve of one item ended."""

    SOLVED = 0
    INACCURATE = 1
    INFEASIBLE = 2
    UNBOUNDED = 3
    ITERATION_LIMIT = 4
    TIME_LIMIT = 5
    NUMERICAL_ERROR = 6
    INVALID_INPUT = 7


_INACCURATE = int(Status.INACCURATE)
# Bytes up to which the complements of a batch are kept, if all of their rows are active.
_KEPT = 2**26


def is_usable(status: Int[np.ndarray, "*batch"]) -> Bool[np.ndarray, "*batch"]:
    """Returns which items have a solution: SOLVED, or INACCURATE."""
    return status <= _INACCURATE


@dataclass(frozen=True, eq=False)
class Structure:
    """What all items of a batch share: sizes, patterns and the cone. P is stored in full, both triangles."""

    P: Pattern
    A: Pattern
    cone: Product

    @property
    def n(self) -> int:
        """The number of variables."""
        return self.A.shape[1]

    @property
    def m(self) -> int:
        """The number of rows."""
        return self.A.shape[0]

    @cached_property
    def has_full_diagonal(self) -> bool:
        """Whether every diagonal entry of P is stored, as it is in every positive definite matrix."""
        return bool(np.count_nonzero(self.P.rows == self.P.cols) == self.n)

    @cached_property
    def is_diagonal(self) -> bool:
        """Whether P is a diagonal with no entry missing."""
        return self.P.nnz == self.n and self.has_full_diagonal

    @cached_property
    def single_entries(self) -> Int[np.ndarray, " _count"]:
        """Which of A's stored entries stand alone in a row that is not an equality."""
        alone = np.bincount(self.A.rows, minlength=self.m)[self.A.rows] == 1
        return np.flatnonzero(alone & (self.A.rows >= self.cone.zero))


class Sizes(NamedTuple):
    """The largest absolute value in P, q, A and b, per item; NaN or infinite where an entry is."""

    P: Float[np.ndarray, "#batch"]
    q: Float[np.ndarray, "#batch"]
    A: Float[np.ndarray, "#batch"]
    b: Float[np.ndarray, "#batch"]


@dataclass(frozen=True, eq=False)
class ConeProgram:
    """A batch of cone programs. Each array has a leading axis of size `batch`, or of one where the items share it."""

    structure: Structure
    batch: int
    P: Values
    q: Vectors
    A: Values
    b: Vectors
    _eliminated: list[Elimination] = field(init=False, repr=False, default_factory=list)
    _active: list[Active] = field(init=False, repr=False, default_factory=list)
    _complements: list[Shaped[np.ndarray, " batch"]] = field(init=False, repr=False, default_factory=list)

    def item(self, index: slice | Int[np.ndarray, " k"]) -> ConeProgram:
        """Returns the programs of some items; shared arrays stay shared."""
        if is_everything(index, self.batch):
            return self  # with what is known of it
        count = len(range(*index.indices(self.batch))) if isinstance(index, slice) else len(index)
        arrays = (array if len(array) == 1 else array[index] for array in (self.P, self.q, self.A, self.b))
        part = ConeProgram(self.structure, count, *arrays)
        part.__dict__["shares_matrices"] = self.shares_matrices
        active = tuple(self._active)  # first: what it rests on is there then, though another thread may fill both
        part._eliminated.extend(known.item(index) for known in self._eliminated)
        part._active.extend(known.item(index, part._eliminated[0]) for known in active if known.all_differ)
        part._complements.extend(known[index] for known in self._complements)
        if self.__dict__.get("whole") is not None:
            part.__dict__["whole"] = self.whole
        if "sizes" in self.__dict__:
            part.__dict__["sizes"] = Sizes(*(size if len(size) == 1 else size[index] for size in self.sizes))
        return part

    def eliminated(self, threads: int = 1) -> Elimination:
        """Returns the programs without their variables: computed once, and kept with them."""
        if not self._eliminated:
            P, A = self.structure.P.dense(self.P), self.structure.A.dense(self.A)
            self._eliminated.append(eliminate(P, A, threads))
        return self._eliminated[0]

    def active(self, d: Vectors) -> Active:
        """Returns what is left of them where rows count by d: computed once for the same d, and kept with them."""
        for known in self._active:
            if np.array_equal(known.d, d):
                return known
        found = self.eliminated().active(d, self.structure.cone.zero)
        self._active[:] = [found]
        return found

    def keep_complements(self) -> None:
        """Makes room for the complements that solvers find, as derivatives need them; chunks of the batch share it."""
        if not self._complements and 8 * self.batch * self.structure.m**2 <= _KEPT:
            self._complements.append(np.full(self.batch, None))

    def complement(self, item: int, d: Float[np.ndarray, " m"]) -> Complement:
        """Returns what is left of an item with a diagonal P where rows count by d: kept, if there is room."""
        known = self._complements[0] if self._complements else np.full(self.batch, None)
        if known[item] is None or not np.array_equal(known[item].d, d):
            P, A = self.weights[item % len(self.P)], self.A[item % len(self.A)]
            known[item] = find_complement(self.structure.A, A, P, d, self.whole)
        return known[item]

    @cached_property
    def whole(self) -> Whole | None:
        """What is left of the variables where all rows count by one, if all items share that, in whatever units."""
        return find_whole(self.structure.A, self.A[0], self.weights[0]) if self.shares_matrices else None

    @cached_property
    def shares_matrices(self) -> bool:
        """Whether items share P and A; one that is left of a batch does so still, and is solved as beside them."""
        return len(self.P) == len(self.A) == 1 < self.batch

    @cached_property
    def weights(self) -> Values:
        """P⁻¹, of a diagonal P."""
        return 1.0 / np.where(self.P > 0, self.P, 1.0)

    @cached_property
    def sizes(self) -> Sizes:
        """The sizes of the data."""
        q, b = self.sides
        return Sizes(largest(self.P), q, largest(self.A), b)

    @cached_property
    def sides(self) -> tuple[Float[np.ndarray, "#batch"], Float[np.ndarray, "#batch"]]:
        """The sizes of q and b alone."""
        return largest(self.q), largest(self.b)

    def objective(self, x: Vectors) -> Float[np.ndarray, " batch"]:
        """Returns ½ xᵀPx + qᵀx for each item."""
        return np.sum(x * (0.5 * self.structure.P.matvec(self.P, x) + self.q), axis=1)


@dataclass(frozen=True, eq=False)
class Residuals:
    """How far a point is from optimality, per item; `largest` is relative to the size of the terms that cancel."""

    primal: Float[np.ndarray, " batch"]
    dual: Float[np.ndarray, " batch"]
    gap: Float[np.ndarray, " batch"]

    @property
    def largest(self) -> Float[np.ndarray, " batch"]:
        """The largest of the three relative residuals; infinite where the point is not finite."""
        worst = np.maximum(np.maximum(self.primal, self.dual), self.gap)
        return np.where(np.isfinite(worst), worst, np.inf)


@dataclass(frozen=True, eq=False)
class Solution:
    """A batch of primal-dual points with how their solves ended."""

    x: Vectors
    y: Vectors
    s: Vectors
    status: Int[np.ndarray, " batch"]
    iterations: Int[np.ndarray, " batch"]

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
import scipy.sparse as sp
from jaxtyping import Float, Int

from cvxlayers.cones import Product
from cvxlayers.elimination import Elimination, eliminate
from cvxlayers.products import Products

# A leading axis of one stands for what all items of a batch share.
Values = Float[np.ndarray, "#batch _nnz"]
Vectors = Float[np.ndarray, "#batch _size"]
Run = slice | Int[np.ndarray, " _count"]

# Entries from which on an array is large.
_LARGE = 2**15
# A block that is not as high as the matrix must have so many rows, and so many entries.
_HIGH, _BIG = 8, 256
# From so many entries on a block is multiplied faster by itself.
_WORTHWHILE = 2**12


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


def run(index: Int[np.ndarray, " _count"]) -> Run:
    """Returns the indices as a slice where they rise by equal steps, else as they are."""
    steps = np.unique(np.diff(index))
    if not len(index) or len(steps) > 1 or (steps < 1).any():
        return index
    step = int(steps[0]) if len(steps) else 1
    return slice(int(index[0]), int(index[-1]) + 1, step)


@dataclass(frozen=True, eq=False)
class _Block:
    """A dense submatrix of consecutive rows and columns, transposed, where it lies among the stored entries.

    Attributes:
        columns: its columns, which have equally many entries.
        rows: its rows.
        entries: the stored entries of the columns.
        inside: which of each column's entries are those of the rows.
    """

    columns: slice
    rows: slice
    entries: slice
    inside: slice

    @property
    def size(self) -> int:
        """The number of entries."""
        return (self.columns.stop - self.columns.start) * (self.rows.stop - self.rows.start)

    def view(self, values: Values) -> Float[np.ndarray, "batch cols rows"]:
        """Returns the transposed matrices, without a copy if the items' values are contiguous."""
        # The memory order decides how a product is summed up, and so its rounding.
        width = self.columns.stop - self.columns.start
        height = (self.entries.stop - self.entries.start) // width
        columns = np.ascontiguousarray(values)[:, self.entries]
        return columns.reshape((len(values), width, height))[:, :, self.inside]


_NOTHING = _Block(*4 * (slice(0, 0),))


def _find_block(shape: tuple[int, int], rows: Int[np.ndarray, " nnz"], indptr: Int[np.ndarray, " _edges"]) -> _Block:
    """Finds the largest dense block that spans the longest run of consecutive rows in each of its columns."""
    starts, counts = indptr[:-1].astype(np.int64), np.diff(indptr).astype(np.int64)
    if not len(rows):
        return _NOTHING
    # Runs of consecutive rows within a column, and the longest of each column.
    begins = np.ones(len(rows), dtype=bool)
    begins[1:] = np.diff(rows) != 1
    begins[starts[counts > 0]] = True
    first = np.flatnonzero(begins)
    length = np.diff(np.append(first, len(rows)))
    column = np.searchsorted(indptr, first, side="right") - 1
    order = np.lexsort((-first, length, column))
    best = order[np.append(np.diff(column[order]) != 0, True)]
    shapes = np.full((shape[1], 4), -1, dtype=np.int64)
    mine = column[best]
    shapes[mine] = np.stack([counts[mine], first[best] - starts[mine], rows[first[best]], length[best]], axis=1)
    # Neighbours of one shape make a block.
    edges = np.flatnonzero(np.append(True, np.append((np.diff(shapes, axis=0) != 0).any(axis=1), True)))
    widths = np.diff(edges)
    sizes = widths * shapes[edges[:-1], 3]
    k = int(np.argmax(sizes))
    start, stop = int(edges[k]), int(edges[k + 1])
    _, offset, top, height = shapes[start].tolist()
    if height < shape[0] and (height < _HIGH or sizes[k] < _BIG):
        return _NOTHING
    entries = slice(int(indptr[start]), int(indptr[stop]))
    return _Block(slice(start, stop), slice(top, top + height), entries, slice(offset, offset + height))


@dataclass(frozen=True, eq=False)
class Pattern:
    """The positions of a sparse matrix's stored entries, in compressed-column order."""

    shape: tuple[int, int]
    indices: Int[np.ndarray, " nnz"]
    indptr: Int[np.ndarray, " cols_plus_one"]

    @property
    def nnz(self) -> int:
        """The number of stored entries."""
        return len(self.indices)

    @property
    def rows(self) -> Int[np.ndarray, " nnz"]:
        """The row of each stored entry."""
        return self.indices

    @cached_property
    def cols(self) -> Int[np.ndarray, " nnz"]:
        """The column of each stored entry."""
        return np.repeat(np.arange(self.shape[1]), np.diff(self.indptr))

    @cached_property
    def is_full(self) -> bool:
        """Whether every entry of the matrix is stored, and there are any."""
        return self.nnz == self.shape[0] * self.shape[1] > 0

    @cached_property
    def _block(self) -> _Block:
        """A dense block: it is worth more than its entries alone."""
        return _find_block(self.shape, self.rows, self.indptr)

    @cached_property
    def _rest(self) -> Int[np.ndarray, " rest"]:
        """The entries outside the block."""
        outside = np.ones((1, self.nnz))
        if self._block.size:
            self._block.view(outside)[...] = 0.0
        return np.flatnonzero(outside)

    @cached_property
    def _is_scattered(self) -> bool:
        """Whether the block holds less than half of the entries."""
        return 2 * len(self._rest) > self.nnz

    @cached_property
    def _positions(self) -> Int[np.ndarray, " entries"]:
        """The stored position of each entry, column by column; one past the last where none is stored."""
        positions = np.full(self.shape[0] * self.shape[1], self.nnz)
        positions[self.cols * self.shape[0] + self.rows] = np.arange(self.nnz)
        return positions

    @cached_property
    def _apart(self) -> _Block:
        """The block, where it is multiplied by itself."""
        return self._block if self._block.size >= _WORTHWHILE else _NOTHING

    @cached_property
    def _products(self) -> Products:
        """The products of all entries but those of a block that is multiplied by itself."""
        if not self._apart.size:
            return Products(self.shape, self.indices, self.indptr)
        counts = np.bincount(self.cols[self._rest], minlength=self.shape[1])
        return Products(self.shape, self.rows[self._rest], np.concatenate([[0], np.cumsum(counts)]))

    def _columns_of(self, values: Values) -> Float[np.ndarray, "batch cols rows"]:
        """Returns a batch of dense transposed matrices: the stored entries stand column by column."""
        if self.is_full:
            # The memory order decides how a product is summed up, and so its rounding.
            return np.ascontiguousarray(values).reshape((len(values), self.shape[1], self.shape[0]))
        if self._is_scattered:
            padded = np.concatenate([values, np.zeros((len(values), 1))], axis=1)
            return padded.take(self._positions, axis=1).reshape(len(values), self.shape[1], self.shape[0])
        out = np.zeros((len(values), self.shape[1], self.shape[0]))
        if self._block.size:
            out[:, self._block.columns, self._block.rows] = self._block.view(values)
        out[:, self.cols[self._rest], self.rows[self._rest]] = values[:, self._rest]
        return out

    def matrix(self, values: Float[np.ndarray, " nnz"]) -> sp.csc_array:
        """Returns one matrix with these stored entries; explicit zeros stay."""
        return sp.csc_array((values, self.indices, self.indptr), shape=self.shape)

    def dense(self, values: Values) -> Float[np.ndarray, "batch rows cols"]:
        """Returns the batch of dense matrices."""
        return self._columns_of(values).transpose(0, 2, 1)

    def matvec(self, values: Values, x: Vectors) -> Vectors:
        """Returns M x for each item; a batch of one broadcasts."""
        if not self.nnz:
            return np.zeros((len(x) if len(values) == 1 else len(values), self.shape[0]))
        if self.is_full:
            return np.matmul(x[:, None, :], self._columns_of(values))[:, 0, :]
        block = self._apart
        if not block.size:
            return self._products.apply(values, x)
        product = self._products.apply(values.take(self._rest, axis=1), x)
        product[:, block.rows] += np.matmul(x[:, None, block.columns], block.view(values))[:, 0, :]
        return product

    def rmatvec(self, values: Values, y: Vectors) -> Vectors:
        """Returns Mᵀ y for each item, the adjoint of `matvec`; a batch of one broadcasts."""
        if not self.nnz:
            return np.zeros((len(y) if len(values) == 1 else len(values), self.shape[1]))
        if self.is_full:
            return np.matmul(self._columns_of(values), y[:, :, None])[:, :, 0]
        block = self._apart
        if not block.size:
            return self._products.adjoint(values, y)
        product = self._products.adjoint(values.take(self._rest, axis=1), y)
        product[:, block.columns] += np.matmul(block.view(values), y[:, block.rows, None])[:, :, 0]
        return product

    def outer(self, pair: tuple[Vectors, Vectors], *more: tuple[Vectors, Vectors]) -> Values:
        """Returns the stored entries of Σ u vᵀ over pairs: the derivative of Σ uᵀ M v with respect to M."""
        if self.is_full and more:
            u, v = (np.stack(part, axis=1) for part in zip(pair, *more, strict=True))
            return np.matmul(v.transpose(0, 2, 1), u).reshape((-1, self.nnz))
        total = self._outer(*pair)
        for other in more:
            total += self._outer(*other)
        return total

    def _outer(self, u: Vectors, v: Vectors) -> Values:
        if self.is_full:
            return np.multiply(v[:, :, None], u[:, None, :]).reshape((-1, self.nnz))
        rest, block = self._rest, self._block
        if len(rest) == self.nnz:
            return u.take(self.rows, axis=1) * v.take(self.cols, axis=1)
        out = np.empty((len(u), self.nnz))
        np.multiply(v[:, block.columns, None], u[:, None, block.rows], out=block.view(out))
        if len(rest):
            out[:, rest] = u[:, self.rows[rest]] * v[:, self.cols[rest]]
        return out


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


def largest(values: Float[np.ndarray, "leading size"]) -> Float[np.ndarray, " leading"]:
    """Returns the largest absolute value per item."""
    if values.size < _LARGE:
        return np.maximum.reduce(np.abs(values), axis=1, initial=0.0)
    # Without an array of all absolute values, which memory would have to be found for.
    return np.maximum(np.max(values, axis=1, initial=0.0), -np.min(values, axis=1, initial=0.0))


def is_everything(index: slice | Int[np.ndarray, " k"], batch: int) -> bool:
    """Whether an index stands for all items of a batch, in their order."""
    if isinstance(index, slice):
        return index.indices(batch) == (0, batch, 1)
    return len(index) == batch and (batch == 1 or bool((index == np.arange(batch)).all()))


def spread_rows(array: Vectors, batch: int) -> Vectors:
    """Broadcasts what all items share."""
    return array if len(array) == batch else np.broadcast_to(array, (batch, array.shape[1]))


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

    def item(self, index: slice | Int[np.ndarray, " k"]) -> ConeProgram:
        """Returns the programs of some items; shared arrays stay shared."""
        if is_everything(index, self.batch):
            return self  # with what is known of it
        count = len(range(*index.indices(self.batch))) if isinstance(index, slice) else len(index)
        arrays = (array if len(array) == 1 else array[index] for array in (self.P, self.q, self.A, self.b))
        part = ConeProgram(self.structure, count, *arrays)
        part._eliminated.extend(known.item(index) for known in self._eliminated)
        if "sizes" in self.__dict__:
            part.__dict__["sizes"] = Sizes(*(size if len(size) == 1 else size[index] for size in self.sizes))
        return part

    def eliminated(self, threads: int = 1) -> Elimination:
        """Returns the programs without their variables: computed once, and kept with them."""
        if not self._eliminated:
            P, A = self.structure.P.dense(self.P), self.structure.A.dense(self.A)
            self._eliminated.append(eliminate(P, A, threads))
        return self._eliminated[0]

    @cached_property
    def sizes(self) -> Sizes:
        """The sizes of the data."""
        return Sizes(*(largest(array) for array in (self.P, self.q, self.A, self.b)))

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

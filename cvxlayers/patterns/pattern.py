"""Sparse patterns, and what is computed with the batches of matrices that share them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int

from cvxlayers.batches import Run, Values, Vectors, run
from cvxlayers.patterns.block import NOTHING, Block, find_block
from cvxlayers.patterns.gram import Gram, find_gram
from cvxlayers.patterns.lines import Lines, find_lines
from cvxlayers.patterns.products import Products

Pairs = Sequence[tuple[Vectors, Vectors]]

# From so many entries on a block is multiplied faster by itself; from fewer where all but this share of them is in it.
_WORTHWHILE, _MOSTLY, _SHARE = 2**12, 2**10, 1 / 32
# How many products of dense matrices' entries one of sparse matrices' is worth.
_SPEED = 20.0


@dataclass(frozen=True, eq=False)
class Pattern:
    """The positions of a sparse matrix's stored entries, in compressed-column order."""

    shape: tuple[int, int]
    indices: Int[np.ndarray, " nnz"]
    indptr: Int[np.ndarray, " cols_plus_one"]

    @cached_property
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
    def _block(self) -> Block:
        """A dense block: it is worth more than its entries alone."""
        return find_block(self.shape, self.rows, self.indptr)

    @cached_property
    def _rest(self) -> Int[np.ndarray, " rest"]:
        """The entries outside the block."""
        outside = np.ones((1, self.nnz))
        if self._block.size:
            self._block.view(outside)[...] = 0.0
        return np.flatnonzero(outside)

    @cached_property
    def _outside(self) -> tuple[Run, Int[np.ndarray, " rest"], Int[np.ndarray, " rest"]]:
        """The entries outside the block, and their rows and columns."""
        return run(self._rest), self.rows[self._rest], self.cols[self._rest]

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
    def _apart(self) -> Block:
        """The block, where it is multiplied by itself."""
        least = _MOSTLY if len(self._rest) <= _SHARE * self._block.size else _WORTHWHILE
        return self._block if self._block.size >= least else NOTHING

    @cached_property
    def _products(self) -> Lines | Products:
        """The products of all entries but those of a block that is multiplied by itself."""
        rows, starts = self.indices, self.indptr
        if self._apart.size:
            counts = np.bincount(self.cols[self._rest], minlength=self.shape[1])
            rows, starts = self.rows[self._rest], np.concatenate([[0], np.cumsum(counts)])
        return find_lines(self.shape, rows, starts) or Products(self.shape, rows, starts)

    @cached_property
    def _gram(self) -> Gram | None:
        """Which entries meet where the matrix is multiplied by its transpose; None where they are too many."""
        return find_gram(self.shape[0], self.rows, self.cols, self.indptr)

    @cached_property
    def _is_thick(self) -> bool:
        """Whether the matrix is multiplied by its transpose faster as a dense one."""
        counts = np.diff(self.indptr).astype(np.float64)
        return bool(_SPEED * np.sum(counts * counts) >= self.shape[0] ** 2 * self.shape[1])

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

    def gram(
        self,
        values: Float[np.ndarray, " nnz"],
        weights: Float[np.ndarray, " cols"],
        kept: Bool[np.ndarray, " rows"] | None = None,
    ) -> Float[np.ndarray, "_size _size"]:
        """Returns M diag(w) Mᵀ of one matrix, or the rows and columns of it that are kept, dense and symmetric."""
        if self._gram is not None:
            return self._gram.dense(values, weights, kept)
        half = self.matrix(values * np.sqrt(weights)[self.cols]).tocsr()
        if self._is_thick:
            # All of it, for the size of a product decides how it is rounded.
            half = half.toarray()
            whole = half @ half.T
            return whole if kept is None else whole.compress(kept, axis=0).compress(kept, axis=1)
        half = half if kept is None else half[np.flatnonzero(kept)]
        return (half @ half.T).toarray()

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

    def outer(self, *pairs: tuple[Vectors, Vectors]) -> Values:
        """Returns the stored entries of Σ u vᵀ over pairs: the derivative of Σ uᵀ M v with respect to M."""
        block, (rest, rows, cols) = self._block, self._outside
        if not block.size:
            return _entries(pairs, rows, cols)
        out = np.empty((len(pairs[0][0]), self.nnz))
        _outer([(u[:, block.rows], v[:, block.columns]) for u, v in pairs], block.view(out))
        if len(rows):
            out[:, rest] = _entries(pairs, rows, cols)
        return out


def _entries(pairs: Pairs, rows: Int[np.ndarray, " nnz"], cols: Int[np.ndarray, " nnz"]) -> Values:
    """Returns entries of Σ u vᵀ."""
    u, v = pairs[0]
    total = u.take(rows, axis=1) * v.take(cols, axis=1)
    for u, v in pairs[1:]:
        total += u.take(rows, axis=1) * v.take(cols, axis=1)
    return total


def _outer(pairs: Pairs, out: Float[np.ndarray, "batch cols rows"]) -> None:
    """Writes Σ v uᵀ: one product of thin matrices takes an eighth of the time of a sum of products of vectors."""
    # Of a single column NumPy makes no call of BLAS.
    padded = pairs if len(pairs) > 1 else [*pairs, tuple(np.zeros(part.shape) for part in pairs[0])]
    u, v = (np.stack(part, axis=1) for part in zip(*padded, strict=True))
    np.matmul(v.transpose(0, 2, 1), u, out=out)

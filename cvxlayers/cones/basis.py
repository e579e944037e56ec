"""Orthogonal bases in which the derivatives of projections are diagonal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int

from cvxlayers.cones.cone import Basis, Triplets

Columns = Float[np.ndarray, "*batch dim k"]
Index = slice | Int[np.ndarray, " k"]
# Rows of a product, of one of its parts: a slice where they lie together.
Rows = slice | Int[np.ndarray, " _part"]


@dataclass(frozen=True, eq=False)
class IdentityBasis(Basis):
    """U = I, for `dim` coordinates, whatever the batch."""

    dim: int

    def rotate(self, w: Columns) -> Columns:
        """Returns w."""
        return w

    def unrotate(self, w: Columns) -> Columns:
        """Returns w."""
        return w

    def triplets(self) -> Triplets:
        """Returns the identity, shared by the batch."""
        diagonal = np.arange(self.dim)
        return Triplets(diagonal, diagonal, np.ones((1, self.dim)))

    def item(self, index: Index) -> IdentityBasis:
        """Returns itself: the items share it."""
        return self


@dataclass(frozen=True, eq=False)
class BlockBasis(Basis):
    """U = diag(U₁, U₂, …) with dense blocks of one size."""

    blocks: Float[np.ndarray, "*batch count block block"]

    def rotate(self, w: Columns) -> Columns:
        """Returns Uᵀ w, block by block."""
        return self._apply(np.swapaxes(self.blocks, -1, -2), w)

    def unrotate(self, w: Columns) -> Columns:
        """Returns U w, block by block."""
        return self._apply(self.blocks, w)

    def triplets(self) -> Triplets:
        """Returns the blocks' entries."""
        count, size = self.blocks.shape[-3], self.blocks.shape[-1]
        start, row, col = np.meshgrid(size * np.arange(count), np.arange(size), np.arange(size), indexing="ij")
        values = self.blocks.reshape((*self.blocks.shape[:-3], count * size * size))
        return Triplets((start + row).ravel(), (start + col).ravel(), values)

    def item(self, index: Index) -> BlockBasis:
        """Returns the blocks of some items."""
        return BlockBasis(self.blocks[index])

    def _apply(self, blocks: Float[np.ndarray, "*batch count block block"], w: Columns) -> Columns:
        size = blocks.shape[-1]
        stacked = w.reshape((*w.shape[:-2], w.shape[-2] // size, size, w.shape[-1]))
        return np.matmul(blocks, stacked).reshape(w.shape)


@dataclass(frozen=True, eq=False)
class ConeRayBasis(Basis):
    """The eigenbasis of second-order cones: (1, ẑ)/√2, (1, −ẑ)/√2, and the orthogonal complement of ẑ.

    The complement is the image of e₂, e₃, … under the Householder reflection H = I − 2 h hᵀ, which maps e₁ to σẑ with
    the sign σ that avoids cancellation; so U costs O(dim) a column.
    """

    h: Float[np.ndarray, "*batch count size_minus_one"]
    sigma: Float[np.ndarray, "*batch count"]

    def rotate(self, w: Columns) -> Columns:
        """Returns Uᵀ w."""
        out = np.array(self._stacked(w), order="C")
        self._reflect(out[..., 1:, :])
        t, first = out[..., 0, :], self.sigma[..., None] * out[..., 1, :]
        out[..., 0, :], out[..., 1, :] = (t + first) / np.sqrt(2.0), (t - first) / np.sqrt(2.0)
        return out.reshape(w.shape)

    def unrotate(self, w: Columns) -> Columns:
        """Returns U w."""
        out = np.array(self._stacked(w), order="C")
        plus, minus = out[..., 0, :], out[..., 1, :]
        out[..., 0, :], out[..., 1, :] = (
            (plus + minus) / np.sqrt(2.0),
            self.sigma[..., None] * (plus - minus) / np.sqrt(2.0),
        )
        self._reflect(out[..., 1:, :])
        return out.reshape(w.shape)

    def triplets(self) -> Triplets:
        """Returns each cone's U as a dense block."""
        count, size = self.h.shape[-2], self.h.shape[-1] + 1
        eye = np.tile(np.eye(size), (count, 1))
        stacked = self.unrotate(np.broadcast_to(eye, (*self.h.shape[:-2], *eye.shape)))
        return BlockBasis(stacked.reshape((*self.h.shape[:-2], count, size, size))).triplets()

    def item(self, index: Index) -> ConeRayBasis:
        """Returns the bases of some items."""
        return ConeRayBasis(self.h[index], self.sigma[index])

    def _stacked(self, w: Columns) -> np.ndarray:
        size = self.h.shape[-1] + 1
        return w.reshape((*w.shape[:-2], w.shape[-2] // size, size, w.shape[-1]))

    def _reflect(self, z: np.ndarray) -> None:
        """Replaces z by H z."""
        if z.shape[-1] == 1:
            # The same sums, over memory that lies together.
            alone = z[..., 0]
            alone -= self.h * (2.0 * np.add.reduce(self.h * alone, axis=-1, keepdims=True))
            return
        z -= self.h[..., None] * (2.0 * np.matmul(self.h[..., None, :], z))


@dataclass(frozen=True, eq=False)
class CongruenceBasis(Basis):
    """The eigenbasis of semidefinite cones: U maps svec(W) to svec(Q W Qᵀ) for the eigenvectors Q of the matrix."""

    vectors: Float[np.ndarray, "*batch count order order"]

    def rotate(self, w: Columns) -> Columns:
        """Returns svec(Qᵀ W Q)."""
        return self._congruence(np.swapaxes(self.vectors, -1, -2), w)

    def unrotate(self, w: Columns) -> Columns:
        """Returns svec(Q W Qᵀ)."""
        return self._congruence(self.vectors, w)

    def triplets(self) -> Triplets:
        """Returns each cone's U as a dense block."""
        count, order = self.vectors.shape[-3], self.vectors.shape[-1]
        size = order * (order + 1) // 2
        eye = np.tile(np.eye(size), (count, 1))
        stacked = self.unrotate(np.broadcast_to(eye, (*self.vectors.shape[:-3], *eye.shape)))
        return BlockBasis(stacked.reshape((*self.vectors.shape[:-3], count, size, size))).triplets()

    def item(self, index: Index) -> CongruenceBasis:
        """Returns the bases of some items."""
        return CongruenceBasis(self.vectors[index])

    def rows(self, index: Int[np.ndarray, " k"]) -> Float[np.ndarray, "batch k dim"]:
        """Returns some rows of U: svec of Qᵀ E Q, where the symmetric E has one entry."""
        order = self.vectors.shape[-1]
        rows, cols = triangle(order)
        cone, entry = np.divmod(index, len(rows))
        left, right = self.vectors[:, cone, rows[entry]], self.vectors[:, cone, cols[entry]]
        turned = left.take(rows, axis=-1) * right.take(cols, axis=-1)
        if (rows[entry] != cols[entry]).any():
            turned += right.take(rows, axis=-1) * left.take(cols, axis=-1)
            turned *= np.where(rows[entry] == cols[entry], 0.5, np.sqrt(0.5))[:, None]
        turned *= _places(order).stretch
        if self.vectors.shape[1] == 1:
            return turned
        out = np.zeros((len(turned), len(index), self.vectors.shape[1], len(rows)))
        out[:, np.arange(len(index)), cone] = turned
        return out.reshape((len(turned), len(index), -1))

    def _congruence(self, Q: np.ndarray, w: Columns) -> Columns:
        # Of all columns at once: two products of an item's Q with a wide matrix, as W is symmetric.
        order, count = Q.shape[-1], w.shape[-1]
        places = _places(order)
        stacked = w.reshape((*w.shape[:-2], w.shape[-2] // len(places.upper), len(places.upper), count))
        W = stacked.take(places.entry, axis=-2) * places.shrink[:, None]
        wide = (*W.shape[:-2], order, order * count)
        half = np.matmul(Q, W.reshape(wide)).reshape((*W.shape[:-2], order, order, count))
        turned = np.matmul(Q, np.swapaxes(half, -3, -2).reshape(wide)).reshape(W.shape)
        return (turned.take(places.upper, axis=-2) * places.stretch[:, None]).reshape(w.shape)


@dataclass(frozen=True, eq=False)
class ProductBasis(Basis):
    """The direct sum of bases, each on its own rows."""

    rows: Sequence[Rows]
    parts: Sequence[Basis]

    def rotate(self, w: Columns) -> Columns:
        """Returns Uᵀ w."""
        out = np.empty(w.shape)
        for rows, part in zip(self.rows, self.parts, strict=True):
            out[..., rows, :] = part.rotate(w[..., rows, :])
        return out

    def unrotate(self, w: Columns) -> Columns:
        """Returns U w."""
        out = np.empty(w.shape)
        for rows, part in zip(self.rows, self.parts, strict=True):
            out[..., rows, :] = part.unrotate(w[..., rows, :])
        return out

    def triplets(self) -> Triplets:
        """Returns the parts' entries at their rows."""
        found = [part.triplets() for part in self.parts]
        batch = np.broadcast_shapes(*(part.values.shape[:-1] for part in found))
        return Triplets(
            np.concatenate([places(rows)[part.rows] for rows, part in zip(self.rows, found, strict=True)]),
            np.concatenate([places(rows)[part.cols] for rows, part in zip(self.rows, found, strict=True)]),
            np.concatenate([np.broadcast_to(part.values, (*batch, part.values.shape[-1])) for part in found], axis=-1),
        )

    def item(self, index: Index) -> ProductBasis:
        """Returns the bases of some items."""
        return ProductBasis(self.rows, [part.item(index) for part in self.parts])


def places(rows: Rows) -> Int[np.ndarray, " _part"]:
    """Returns rows one by one."""
    return np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows


def together(rows: Int[np.ndarray, " _part"]) -> Rows:
    """Returns rows in ascending order as a slice, if nothing lies between them."""
    if not len(rows):
        return slice(0, 0)
    low, high = int(rows[0]), int(rows[-1]) + 1
    return slice(low, high) if high - low == len(rows) else rows


def rows_of(basis: Basis, index: Int[np.ndarray, " k"], dim: int, batch: int) -> Float[np.ndarray, "batch k dim"]:
    """Returns some rows of U, of which there are `dim`."""
    match basis:
        case CongruenceBasis():
            return basis.rows(index)
        case ProductBasis():
            out = np.zeros((batch, len(index), dim))
            for rows, part in zip(basis.rows, basis.parts, strict=True):
                own = places(rows)
                mine = np.flatnonzero(np.isin(index, own))
                if len(mine):
                    found = rows_of(part, np.searchsorted(own, index[mine]), len(own), batch)
                    out[:, mine[:, None], own] = found
            return out
        case _:
            units = np.zeros((batch, dim, len(index)))
            units[:, index, np.arange(len(index))] = 1.0
            return np.swapaxes(basis.rotate(units), -1, -2)


@lru_cache
def triangle(order: int) -> tuple[Int[np.ndarray, " size"], Int[np.ndarray, " size"]]:
    """Returns the rows and columns of the upper triangle, column by column."""
    cols, rows = np.tril_indices(order)
    rows.flags.writeable = cols.flags.writeable = False
    return rows, cols


@dataclass(frozen=True, eq=False)
class _Places:
    """Where the entries of symmetric matrices stand in svec, and those of svec in matrices, and their factors."""

    entry: Int[np.ndarray, " square"]
    shrink: Float[np.ndarray, " square"]
    upper: Int[np.ndarray, " size"]
    stretch: Float[np.ndarray, " size"]


@lru_cache
def _places(order: int) -> _Places:
    rows, cols = triangle(order)
    entry = np.empty((order, order), dtype=np.int64)
    entry[rows, cols] = entry[cols, rows] = np.arange(len(rows))
    stretch = np.where(rows == cols, 1.0, np.sqrt(2.0))
    shrink = np.where(rows == cols, 1.0, np.sqrt(0.5))
    return _Places(entry.ravel(), shrink[entry.ravel()], rows * order + cols, stretch)


def svec(M: Float[np.ndarray, "*batch order order"]) -> Float[np.ndarray, "*batch size"]:
    """Returns the upper triangle, column by column, with off-diagonal entries times √2: an isometry."""
    places = _places(M.shape[-1])
    return M.reshape((*M.shape[:-2], len(places.entry))).take(places.upper, axis=-1) * places.stretch


def smat(v: Float[np.ndarray, "*batch size"], order: int) -> Float[np.ndarray, "*batch order order"]:
    """Returns the symmetric matrix M with svec(M) = v."""
    places = _places(order)
    return (v.take(places.entry, axis=-1) * places.shrink).reshape((*v.shape[:-1], order, order))

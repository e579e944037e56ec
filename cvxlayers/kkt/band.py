"""The matrix in a band about its diagonal, for LAPACK."""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int
from scipy.linalg import lapack
from scipy.sparse.csgraph import reverse_cuthill_mckee

from cvxlayers.batches import Values, Vectors
from cvxlayers.kkt.effort import dense_microseconds
from cvxlayers.program import Structure

Index = Int[np.ndarray, " _count"]
Bands = Float[np.ndarray, "batch size depth"]
Vector = Float[np.ndarray, " size"]

# Up to this order nothing beats LAPACK on the whole matrix; a band must be this narrow, and cost this share of it.
_SMALL, _WIDEST, _GAIN = 48, 64, 0.5

_bands: WeakKeyDictionary[Structure, Band] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Band:
    """An order of rows and columns in which all entries lie near the diagonal.

    Attributes:
        order: the rows in this order.
        width: how far from the diagonal entries lie at most.
        places_P: where the stored entries of P lie in a band, flat.
        places_A: likewise of A.
        places_At: likewise of A's transpose.
        places_C: likewise of the diagonal C.
    """

    order: Index
    width: int
    places_P: Index
    places_A: Index
    places_At: Index
    places_C: Index

    @property
    def microseconds(self) -> float:
        """About how long LAPACK takes to factorise a matrix; measured at widths from 12 to 40."""
        return len(self.order) * (0.1 + 5e-4 * self.width**2)

    def assemble(self, P: Values, A: Values, C: Vectors) -> Bands:
        """Returns the matrices column by column, with room for the row exchanges of LAPACK's `gbtrf`.

        Args:
            P: stored entries of P, for each item or for all.
            A: stored entries of A, likewise.
            C: the diagonal, likewise.
        """
        (batch,) = np.broadcast_shapes(P.shape[:1], A.shape[:1], C.shape[:1])
        size, depth = len(self.order), 3 * self.width + 1
        bands = np.zeros((batch, size * depth))
        bands[:, self.places_P] = P
        bands[:, self.places_A] = A
        bands[:, self.places_At] = A
        bands[:, self.places_C] = C
        return bands.reshape((batch, size, depth))


@dataclass(frozen=True, eq=False)
class BandFactors:
    """The LU factors of a matrix in a band, with row exchanges.

    Attributes:
        band: the order and the width.
        factors: as LAPACK stores them.
        exchanges: of rows.
        singular: whether a pivot is zero.
    """

    band: Band
    factors: Float[np.ndarray, "depth size"]
    exchanges: Index
    singular: bool

    def solve(self, rhs: Vector) -> Vector:
        """Solves K u = rhs."""
        ordered, u = rhs[self.band.order], np.empty(len(rhs))
        self.substitute(ordered)
        u[self.band.order] = ordered
        return u

    def substitute(self, ordered: Vector) -> None:
        """Replaces a right-hand side, in the order of the band, by the solution."""
        width = self.band.width
        lapack.dgbtrs(self.factors, width, width, ordered, self.exchanges, overwrite_b=1)

    @property
    def pivots(self) -> Vector:
        """The sizes of the pivots."""
        return np.abs(self.factors[2 * self.band.width])


def factorise_band(band: Band, matrices: Bands) -> list[BandFactors]:
    """Factorises matrices that `assemble` returned, in place."""
    width = band.width
    found = (lapack.dgbtrf(matrix.T, width, width, overwrite_ab=1) for matrix in matrices)
    return [BandFactors(band, factors, exchanges, failure > 0) for factors, exchanges, failure in found]


def narrow_band(structure: Structure) -> Band | None:
    """Returns the band of the matrices of a structure if that is worth while, for their size and their bandwidth."""
    order = structure.n + structure.m
    if order <= _SMALL or structure.A.nnz + structure.P.nnz > order * _WIDEST or not structure.cone.polyhedral:
        return None
    band = band_of(structure)
    narrow = band.width <= _WIDEST and band.microseconds < _GAIN * dense_microseconds(order)
    return band if narrow else None


def band_of(structure: Structure) -> Band:
    """Returns the band of the matrices of a structure, in the order that reverse Cuthill-McKee finds."""
    if structure not in _bands:
        _bands[structure] = _find_band(structure)
    return _bands[structure]


def _find_band(structure: Structure) -> Band:
    n, size = structure.n, structure.n + structure.m
    P, A, C = (structure.P.rows, structure.P.cols), (n + structure.A.rows, structure.A.cols), np.arange(n, size)
    rows, cols = (np.concatenate(parts) for parts in zip(P, A, A[::-1], (C, C), strict=True))
    pattern = sp.csr_array((np.ones(len(rows), dtype=np.int8), (rows, cols)), shape=(size, size))
    order = np.array(reverse_cuthill_mckee(pattern, symmetric_mode=True), dtype=np.int64)
    position = np.empty(size, dtype=np.int64)
    position[order] = np.arange(size)
    width = int(np.max(np.abs(position[rows] - position[cols]), initial=0))

    def places(row: Index, col: Index) -> Index:
        row, col = position[row], position[col]
        return col * (3 * width + 1) + 2 * width + row - col

    return Band(order, width, places(*P), places(*A), places(*A[::-1]), places(C, C))

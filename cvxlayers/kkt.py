"""The symmetric matrix [[P, Aᵀ], [A, C]] with C diagonal: where its entries lie, in a band and in compressed columns.

Both layouts are found once per structure; a batch of matrices is then a few scatters of the stored entries of P and A.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spl
from jaxtyping import Float, Int
from scipy.linalg import lapack
from scipy.sparse.csgraph import reverse_cuthill_mckee

from cvxlayers.batches import Values, Vectors
from cvxlayers.patterns import Pattern
from cvxlayers.program import Structure

Index = Int[np.ndarray, " _count"]
Bands = Float[np.ndarray, "batch size depth"]
Vector = Float[np.ndarray, " size"]

# Up to this order nothing beats LAPACK on the whole matrix; a band must be this narrow, and cost this share of it.
_SMALL, _WIDEST, _GAIN = 48, 64, 0.5
# Variables between which a dense P is factorised by itself.
_FEWEST, _MOST = 32, 150

_bands: WeakKeyDictionary[Structure, Band] = WeakKeyDictionary()
_columns: WeakKeyDictionary[Structure, Columns] = WeakKeyDictionary()
_flops: WeakKeyDictionary[Structure, float] = WeakKeyDictionary()
_turns: WeakKeyDictionary[Structure, Turn] = WeakKeyDictionary()


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


def eliminates(structure: Structure) -> bool:
    """Whether a batch is served faster without its variables: P may be positive definite, and few rows are left."""
    definite = structure.cone.polyhedral and structure.has_full_diagonal
    few = 0 < structure.m <= structure.n and 2 * structure.cone.nonnegative <= structure.n
    return definite and few and _FEWEST <= structure.n <= _MOST


def dense_microseconds(order: int) -> float:
    """Returns about how long LAPACK takes to factorise a matrix of this order without structure."""
    return 1e-4 * order**3


def stored(structure: Structure) -> int:
    """Returns how many entries are stored once A is turned by an orthogonal matrix within each curved cone."""
    n, A, cone = structure.n, structure.A, structure.cone
    sizes, block = np.ones(structure.m, dtype=np.int64), np.arange(structure.m)
    for _, rows in cone.blocks():
        if rows.start >= cone.zero + cone.nonnegative:
            sizes[rows], block[rows] = rows.stop - rows.start, rows.start
    touched = np.unique(block[A.rows] * n + A.cols) // n
    return structure.P.nnz + 2 * int(sizes[touched].sum()) + structure.m


def factor_flops(structure: Structure) -> float:
    """Returns about how many operations a sparse factorisation takes, with rows in the order of least degree.

    It is the sum of squares of the columns' counts in the factor; for inequalities' rows, C is taken as −1.
    """
    if structure not in _flops:
        n, columns = structure.n, columns_of(structure)
        # Strong diagonals of both signs need no exchanges, so that the counts are those of any quasi-definite matrix.
        signs = np.where(columns.pattern.cols < n, 1.0, -1.0)
        K = columns.pattern.matrix(np.where(columns.pattern.rows == columns.pattern.cols, 1e6 * signs, 1.0))
        symmetric = {"permc_spec": "MMD_AT_PLUS_A", "diag_pivot_thresh": 0.0, "options": {"SymmetricMode": True}}
        counts = np.diff(spl.splu(K, **symmetric).L.indptr)
        _flops[structure] = float(np.sum(counts.astype(float) ** 2))
    return _flops[structure]


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


@dataclass(frozen=True, eq=False)
class Columns:
    """The compressed columns of the matrices, of a whole matrix and of its upper triangle.

    Attributes:
        pattern: the stored entries, all of the diagonal among them.
        gather: for each of them its place in the stacked values [P, A, C, 0].
        upper: which of them stand in the upper triangle.
        triangle: their pattern.
        diagonal: the places of the diagonal in the upper triangle.
        in_P: which of the stored entries belong to P.
        in_A: which belong to A, below the diagonal.
    """

    pattern: Pattern
    gather: Index
    upper: Index
    triangle: Pattern
    diagonal: Index
    in_P: Index
    in_A: Index

    def assemble(self, P: Values, A: Values, C: Vectors) -> Values:
        """Returns the stored entries of the matrices; the arguments are those of `Band.assemble`."""
        (batch,) = np.broadcast_shapes(P.shape[:1], A.shape[:1], C.shape[:1])
        parts = (np.broadcast_to(part, (batch, part.shape[1])) for part in (P, A, C, np.zeros((1, 1))))
        return np.take(np.concatenate(list(parts), axis=1), self.gather, axis=1)


def columns_of(structure: Structure) -> Columns:
    """Returns how the matrices of a structure lie in compressed columns."""
    if structure not in _columns:
        _columns[structure] = find_columns(structure.P, structure.A)
    return _columns[structure]


def find_columns(P: Pattern, A: Pattern) -> Columns:
    """Returns how matrices with these patterns of P and A lie in compressed columns."""
    n, (m, _) = P.shape[1], A.shape
    bare = np.setdiff1d(np.arange(n), P.rows[P.rows == P.cols])
    rows = np.concatenate([P.rows, n + A.rows, A.cols, n + np.arange(m), bare])
    cols = np.concatenate([P.cols, A.cols, n + A.rows, n + np.arange(m), bare])
    sources = np.concatenate([np.arange(P.nnz), *2 * [P.nnz + np.arange(A.nnz)], P.nnz + A.nnz + np.arange(m)])
    sources = np.concatenate([sources, np.full(len(bare), P.nnz + A.nnz + m)])
    order = np.lexsort((rows, cols))
    pattern = _pattern(rows[order], cols[order], n + m)
    upper = np.flatnonzero(pattern.rows <= pattern.cols)
    triangle = _pattern(pattern.rows[upper], pattern.cols[upper], n + m)
    left = pattern.cols < n
    in_P, in_A = np.flatnonzero(left & (pattern.rows < n)), np.flatnonzero(left & (pattern.rows >= n))
    return Columns(pattern, sources[order], upper, triangle, np.flatnonzero(triangle.rows == triangle.cols), in_P, in_A)


@dataclass(frozen=True, eq=False)
class Turn:
    """How UᵀA is computed entry by entry, for a sparse orthogonal U with one pattern.

    Attributes:
        rows: of the stored entries of U.
        cols: likewise.
        pattern: the stored entries of UᵀA.
        columns: how matrices with UᵀA in place of A lie in compressed columns.
        factors: for each product u a that is summed, the stored entries of U and of A.
        starts: where the sum of each stored entry of UᵀA begins.
    """

    rows: Index
    cols: Index
    pattern: Pattern
    columns: Columns
    factors: tuple[Index, Index]
    starts: Index

    def apply(self, U: Values, A: Values) -> Values:
        """Returns the stored entries of UᵀA, of batches or of what all items share."""
        if not len(self.starts):
            return np.zeros((len(A), 0))
        terms = U.take(self.factors[0], axis=1) * A.take(self.factors[1], axis=1)
        return np.add.reduceat(terms, self.starts, axis=1)


def turn_of(structure: Structure, rows: Index, cols: Index) -> Turn:
    """Returns how UᵀA is computed for a structure and the stored entries of U."""
    known = _turns.get(structure)
    if known is None or not (np.array_equal(known.rows, rows) and np.array_equal(known.cols, cols)):
        known = _turns[structure] = _find_turn(structure, rows, cols)
    return known


def _find_turn(structure: Structure, rows: Index, cols: Index) -> Turn:
    A, m = structure.A, structure.m
    # Pairs of an entry (i, j) of U and an entry (i, c) of A: one product for each entry (j, c) of UᵀA.
    by_row = np.argsort(A.rows, kind="stable")
    counts = np.bincount(A.rows, minlength=m)
    first = np.cumsum(counts) - counts
    repeats = counts[rows]
    of_U = np.repeat(np.arange(len(rows)), repeats)
    within = np.arange(len(of_U)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    of_A = by_row[first[rows[of_U]] + within]
    places = A.cols[of_A] * m + cols[of_U]
    order = np.argsort(places, kind="stable")
    distinct, starts = np.unique(places[order], return_index=True)
    counts = np.bincount(distinct // m, minlength=structure.n)
    pattern = Pattern(A.shape, distinct % m, np.concatenate([[0], np.cumsum(counts)]))
    return Turn(rows, cols, pattern, find_columns(structure.P, pattern), (of_U[order], of_A[order]), starts)


def _pattern(rows: Index, cols: Index, size: int) -> Pattern:
    """Returns the pattern of entries that are sorted by columns; small integers spare scipy a conversion."""
    counts = np.bincount(cols, minlength=size)
    return Pattern((size, size), rows.astype(np.int32), np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))

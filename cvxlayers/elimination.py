"""Strictly convex quadratic programs without their variables: what P and A alone decide, for solvers and derivatives.

With P = LLᵀ and u = Lᵀx, the program minimises ½|u|² + (L⁻¹q)ᵀu subject to Vu + s = b with V = AL⁻ᵀ, and its dual is
quadratic in VVᵀ = AP⁻¹Aᵀ = RRᵀ. Equalities come first: in R = [[R₀, 0], [X, W]], WWᵀ is what they leave to the
inequalities.

Where the rows count by r = √d, which is one for equalities and active inequalities and zero for the others,

    P x + Aᵀr z = f,  r A x − (1 − d) z = g

is x = L⁻ᵀ(L⁻¹f − Vᵀr z), S z = r V L⁻¹f − g, with S = r VVᵀ r + diag(1 − d) = CCᵀ and C = [[R₀, 0], [r X, Y]],
YYᵀ = r WWᵀ r + diag(1 − d): of all factors, one as small as the inequalities depends on which of them are active.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.linalg import lapack

from cvxlayers.parallel import map_chunks, worthwhile_chunks

Matrices = Float[np.ndarray, "_leading _rows _cols"]
Squares = Float[np.ndarray, "_leading _order _order"]
Rows = Float[np.ndarray, "_leading _size"]
Index = Int[np.ndarray, " _count"]

# What is added to the diagonal of VVᵀ, relative to itself and to the number of rows, where rows depend on one another.
_SHIFT = 1e-14
# Up to this order a triangular matrix is inverted by LAPACK, beyond by blocks.
_BLOCK = 32


@dataclass(frozen=True, eq=False)
class Active:
    """What the active rows leave of a batch of programs.

    Attributes:
        eliminated: what P and A decide.
        d: how much each row counts.
        root: r.
        lower: C of each kind of item.
        first: the first item of each kind.
        place: of which kind an item is.
        regular: which kinds mean anything.
    """

    eliminated: Elimination
    d: Rows
    root: Rows
    lower: Squares
    first: Index
    place: Index
    regular: Bool[np.ndarray, " _kinds"]

    @property
    def all_differ(self) -> bool:
        """Whether each item is of a kind of its own."""
        return len(self.first) == len(self.place)

    def item(self, index: slice | Index, eliminated: Elimination) -> Active:
        """Returns what they leave of some items, if all differ."""
        d, root, lower, regular = (part[index] for part in (self.d, self.root, self.lower, self.regular))
        every = np.arange(len(d))
        return Active(eliminated, d, root, lower, every, every, regular)

    def solve(self, f: Rows, g: Rows) -> tuple[Rows, Rows]:
        """Returns x and z."""
        inverse, V = self.eliminated.inverse, self.eliminated.rows
        u = np.matmul(inverse, f[:, :, None])
        z = self.root * np.matmul(V, u)[:, :, 0] - g
        factors = self.lower if len(self.lower) == len(z) else self.lower[self.place]
        for row, factor in zip(z, factors, strict=True):
            lapack.dpotrs(factor.T, row, 0, 1)
        u = u - np.matmul(V.transpose(0, 2, 1), (self.root * z)[:, :, None])
        return np.matmul(inverse.transpose(0, 2, 1), u)[:, :, 0], z


@dataclass(frozen=True, eq=False)
class Elimination:
    """The matrices of a batch of programs, or of one that stands for all where they share P, or P and A.

    Attributes:
        inverse: L⁻¹.
        rows: V.
        lower: R.
        definite: whether P is positive definite; where it is not, the matrices mean nothing.
    """

    inverse: Squares
    rows: Matrices
    lower: Squares
    definite: Bool[np.ndarray, " _leading"]

    def item(self, index: slice | Index) -> Elimination:
        """Returns those of some items; what is shared stays shared."""
        columns = (self.inverse, self.rows, self.lower, self.definite)
        return Elimination(*(column if len(column) == 1 else column[index] for column in columns))

    @cached_property
    def reciprocal(self) -> Float[np.ndarray, " _leading"]:
        """The largest entry of P⁻¹."""
        return np.max(np.einsum("bij,bij->bj", self.inverse, self.inverse), axis=1)

    def active(self, d: Rows, zero: int) -> Active:
        """Returns what is left where rows, the first of them equalities, count by d."""
        first, place = distinct_rows(d, len(self.lower) == 1)
        root, every = np.sqrt(d), len(first) == len(place)
        some, r, soft = (self, root, 1.0 - d) if every else (self.item(first), root[first], 1.0 - d[first])
        lower, diagonal = np.zeros((len(r), d.shape[1], d.shape[1])), np.arange(d.shape[1] - zero)
        lower[:, :zero, :zero] = some.lower[:, :zero, :zero]
        np.multiply(r[:, zero:, None], some.lower[:, zero:], out=lower[:, zero:])
        W = lower[:, zero:, zero:]
        gram = np.matmul(W, W.transpose(0, 2, 1))
        gram[:, diagonal, diagonal] += soft[:, zero:]
        lower[:, zero:, zero:], regular = cholesky(gram)
        return Active(self, d, root, lower, first, place, regular & some.definite)


def eliminate(P: Matrices, A: Matrices, threads: int = 1) -> Elimination:
    """Eliminates the variables of programs with dense matrices.

    Args:
        P: matrices that may be positive definite.
        A: the rows.
        threads: threads over the items.
    """
    batch, order = max(len(P), len(A)), P.shape[1] + A.shape[1]
    pieces = worthwhile_chunks(batch, threads, 1e-4 * order**3)
    if len(pieces) == 1:
        return Elimination(*_eliminate(P, A))

    def piece_of(piece: slice) -> tuple[np.ndarray, ...]:
        return _eliminate(*(part if len(part) == 1 else part[piece] for part in (P, A)))

    parts = map_chunks(piece_of, pieces, threads)
    return Elimination(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _eliminate(P: Matrices, A: Matrices) -> tuple[np.ndarray, ...]:
    factor, definite = cholesky(P)
    inverse = invert_lower(factor)
    rows = np.matmul(A, inverse.transpose(0, 2, 1))
    gram = np.matmul(rows, rows.transpose(0, 2, 1))
    lower, regular = cholesky(gram)
    if not regular.all():
        items, diagonal = np.flatnonzero(~regular), np.arange(gram.shape[1])
        some = gram[items]
        some[:, diagonal, diagonal] *= 1.0 + _SHIFT * len(diagonal)
        lower[items], regular[items] = cholesky(some)
    return inverse, rows, lower, definite & regular


def distinct_rows(d: Rows, shared: bool) -> tuple[Index, Index]:
    """Returns items that differ, and which of these each item is like: all differ, unless they share the rest."""
    every = np.arange(len(d))
    if not shared or len(d) < 2:
        return every, every
    if (d == d[:1]).all():
        return every[:1], np.zeros_like(every)
    _, first, place = np.unique(d, axis=0, return_index=True, return_inverse=True)
    return (first, place.ravel()) if len(first) < len(every) else (every, every)


def cholesky(matrices: Squares) -> tuple[Squares, Bool[np.ndarray, " _leading"]]:
    """Returns the lower factor of each matrix, the unit matrix where it is not positive definite, and where it is."""
    definite = np.ones(len(matrices), dtype=bool)
    try:
        return np.linalg.cholesky(matrices), definite
    except np.linalg.LinAlgError:
        factors = np.broadcast_to(np.eye(matrices.shape[1]), matrices.shape).copy()
    for item, matrix in enumerate(matrices):
        try:
            factors[item] = np.linalg.cholesky(matrix)
        except np.linalg.LinAlgError:
            definite[item] = False
    return factors, definite


def invert_lower(factors: Squares) -> Squares:
    """Replaces lower triangular matrices by their inverses: [[L, 0], [M, N]] by [[L⁻¹, 0], [−N⁻¹ M L⁻¹, N⁻¹]].

    Products of large blocks are faster than LAPACK's inverse, and let other threads run meanwhile.
    """
    half = factors.shape[1] // 2
    if factors.shape[1] <= _BLOCK:
        for matrix in factors:
            matrix[...] = lapack.dtrtri(matrix.T, 0, 0)[0].T
        return factors
    above, below = invert_lower(factors[:, :half, :half]), invert_lower(factors[:, half:, half:])
    factors[:, half:, :half] = -np.matmul(below, np.matmul(factors[:, half:, :half], above))
    return factors

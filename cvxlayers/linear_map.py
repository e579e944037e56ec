"""Sparse matrices that act on batches of row vectors, with their adjoints."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int

from cvxlayers.batches import Run, Vectors, run


@dataclass(frozen=True, eq=False)
class _Gather:
    """A sparse matrix with at most two entries in a row, as sums of gathered columns: faster than a sparse product.

    Attributes:
        filled: the rows that have entries; None where all have.
        columns: the column of one entry of each such row, and of the other where any row has two.
        coefficients: the entries' values, or one number where all are equal.
        count: the number of rows.
    """

    filled: Int[np.ndarray, " filled"] | slice | None
    columns: tuple[Int[np.ndarray, " filled"] | slice, ...]
    coefficients: tuple[Float[np.ndarray, " filled"], ...] | float
    count: int

    def product(self, v: Vectors, out: Vectors | None = None) -> Vectors:
        """Returns the filled rows of M v for each item, in `out` where that is given."""
        total, weights = _copied(v, self.columns[-1], out), self.coefficients
        others = [v[:, part] if isinstance(part, slice) else v.take(part, axis=1) for part in self.columns[:-1]]
        if isinstance(weights, tuple):
            total *= weights[-1]
            for other, weight in zip(others, weights[:-1], strict=True):
                total += other * weight
            return total
        for other in others:
            total += other
        return total if weights == 1.0 else np.multiply(total, weights, out=total)


def _copied(v: Vectors, columns: Int[np.ndarray, " filled"] | slice, out: Vectors | None = None) -> Vectors:
    """Returns a copy of some columns, in `out` where that is given."""
    if not isinstance(columns, slice):
        # The mode changes nothing, as all columns exist, but with "raise" NumPy would fill a copy of `out`.
        return v.take(columns, axis=1, out=out, mode="clip")
    if out is None:
        return v[:, columns].copy()
    out[:] = v[:, columns]
    return out


def _gather(matrix: sp.csr_array) -> _Gather | None:
    """Returns the matrix as a gather, or None where a row has more than two entries, or none has any."""
    counts = np.diff(matrix.indptr)
    filled = np.flatnonzero(counts)
    if not len(filled) or counts.max() > 2:
        return None
    first, double = matrix.indptr[filled], counts[filled] == 2
    second = np.where(double, first + 1, first)
    # What symmetrises matrices adds their transposes to them as they are: these columns are a run.
    own = matrix.indices[second] == filled
    first, second = np.where(own, second, first), np.where(own, first, second)
    # A lone entry beside pairs counts as two halves.
    halves = np.where(double | ~double.any(), 1.0, 0.5)
    places = (first, second) if double.any() else (first,)
    values = [matrix.data[place] * halves for place in places]
    uniform = all(np.all(value == values[0][0]) for value in values)
    return _Gather(
        filled=None if len(filled) == len(counts) else run(filled),
        columns=tuple(run(matrix.indices[position]) for position in places),
        coefficients=float(values[0][0]) if uniform else tuple(values),
        count=len(counts),
    )


@dataclass(frozen=True, eq=False)
class LinearMap:
    """A sparse matrix that acts on batches of row vectors, and its adjoint."""

    matrix: sp.csr_array

    def apply(self, v: Vectors) -> Vectors:
        """Returns M v for each item; v itself where M is the identity."""
        if self._is_identity:
            return v
        gather = self._forward
        if gather is not None and gather.filled is None:
            return gather.product(v)
        out = np.zeros((len(v), len(self.matrix.indptr) - 1))
        if gather is not None:
            out[:, gather.filled] = gather.product(v)
        else:
            _accumulate(out, self.matrix, gather, v)
        return out

    def adjoint(self, w: Vectors) -> Vectors:
        """Returns Mᵀ w for each item."""
        out = np.zeros((len(w), len(self._transposed.indptr) - 1))
        self.add_adjoint(w, out, blank=True)
        return out

    def add_adjoint(self, w: Vectors, out: Vectors, blank: bool = False) -> None:
        """Adds Mᵀ w to `out`; it may be overwritten if it is `blank`: zero wherever Mᵀ has entries."""
        gather = self._backward
        if blank and gather is not None and gather.filled is None:
            gather.product(w, out)
        elif blank and gather is not None:
            out[:, gather.filled] = gather.product(w)
        else:
            _accumulate(out, self._transposed, gather, w)

    def columns(self, block: Run) -> LinearMap:
        """Returns the map of some of the inputs, the others being zero."""
        return LinearMap(sp.csr_array(self.matrix[:, block]))

    @cached_property
    def inputs(self) -> Bool[np.ndarray, " columns"]:
        """Which inputs have an effect."""
        return np.diff(self._transposed.indptr) > 0

    @cached_property
    def _is_identity(self) -> bool:
        matrix = self.matrix
        size = matrix.indptr.size - 1
        diagonal = np.array_equal(matrix.indptr, np.arange(size + 1)) and np.array_equal(
            matrix.indices, np.arange(size)
        )
        return diagonal and matrix.shape == (size, size) and bool(np.all(matrix.data == 1.0))

    @cached_property
    def _transposed(self) -> sp.csr_array:
        return sp.csr_array(self.matrix.T)

    @cached_property
    def _forward(self) -> _Gather | None:
        return _gather(self.matrix)

    @cached_property
    def _backward(self) -> _Gather | None:
        return _gather(self._transposed)


def _accumulate(out: Vectors, matrix: sp.csr_array, gather: _Gather | None, v: Vectors) -> None:
    if gather is not None:
        out[:, slice(None) if gather.filled is None else gather.filled] += gather.product(v)
    elif matrix.nnz:
        out += (matrix @ v.T).T

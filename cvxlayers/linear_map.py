"""Sparse matrices that act on batches of row vectors, with their adjoints."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int

from cvxlayers.batches import Run, Vectors, run
from cvxlayers.grid import Grid, find_grid

# Where columns lie: in a run or a grid, by a list of indices, or None for all of them.
Place = slice | Grid | Int[np.ndarray, " _count"] | None


@dataclass(frozen=True, eq=False)
class _Gather:
    """A sparse matrix with at most two entries in a row, as sums of gathered columns: faster than a sparse product.

    Attributes:
        filled: the rows that have entries; None where all have.
        columns: the column of one entry of each such row, and of the other where any row has two.
        coefficients: the entries' values, or one number where all are equal.
        shape: how many rows those are, or the shape of the matrix as which they and their columns are views.
    """

    filled: Place
    columns: tuple[Place, ...]
    coefficients: tuple[Float[np.ndarray, " filled"], ...] | float
    shape: tuple[int, ...]

    def write(self, v: Vectors, out: Vectors, add: bool = False) -> None:
        """Writes the filled rows of M v to those of `out`, or adds them there."""
        if isinstance(self.filled, np.ndarray):
            product = np.empty((len(v), *self.shape))
            self._fill(v, product)
            out[:, self.filled] = out[:, self.filled] + product if add else product
            return
        target = self._seen(out, self.filled)
        if add and len(self.columns) == 1 and self.coefficients == 1.0:
            target += self._seen(v, self.columns[0])
        elif add:
            product = np.empty(target.shape)
            self._fill(v, product)
            target += product
        else:
            self._fill(v, target)

    def _fill(self, v: Vectors, target: Float[np.ndarray, "batch *shape"]) -> None:
        first, weights = self.columns[-1], self.coefficients
        if isinstance(first, np.ndarray):
            # The mode changes nothing, as all columns exist, but with "raise" NumPy would fill a copy of `out`.
            v.take(first, axis=1, out=target, mode="clip")
        else:
            target[...] = self._seen(v, first)
        others = [self._seen(v, part) for part in self.columns[:-1]]
        if isinstance(weights, tuple):
            target *= weights[-1]
            for other, weight in zip(others, weights[:-1], strict=True):
                target += other * weight
            return
        for other in others:
            target += other
        if weights != 1.0:
            target *= weights

    def _seen(self, v: Vectors, place: Place) -> Float[np.ndarray, "#batch *shape"]:
        """Returns columns in the shape of the rows: views of them but for lists of indices."""
        if isinstance(place, np.ndarray):
            return v.take(place, axis=1)
        if isinstance(place, Grid):
            return place.view(v)
        columns = v if place is None else v[:, place]
        return columns if len(self.shape) == 1 else columns.reshape((len(v), *self.shape))


def _gather(matrix: sp.csr_array, width: int) -> _Gather | None:
    """Returns a matrix of that width as a gather, or None where a row has more than two entries, or none has any."""
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
    indices = [(filled, len(counts)), *((matrix.indices[place], width) for place in places)]
    plain = [run(index) for index, _ in indices]
    seen = [find_grid(*pair) if isinstance(p, np.ndarray) else p for p, pair in zip(plain, indices, strict=True)]
    shapes = {grid.shape for grid in seen if isinstance(grid, Grid)}
    fits = uniform and len(shapes) == 1 and None not in seen
    rows, *columns = seen if fits else plain
    return _Gather(
        filled=None if len(filled) == len(counts) else rows,
        columns=tuple(columns),
        coefficients=float(values[0][0]) if uniform else tuple(values),
        shape=shapes.pop() if fits else (len(filled),),
    )


@dataclass(frozen=True, eq=False)
class LinearMap:
    """A sparse matrix that acts on batches of row vectors, and its adjoint."""

    matrix: sp.csr_array

    def apply(self, v: Vectors) -> Vectors:
        """Returns M v for each item; v itself where M is the identity."""
        if self._is_identity:
            return v
        gather, shape = self._forward, (len(v), len(self.matrix.indptr) - 1)
        out = np.empty(shape) if gather is not None and gather.filled is None else np.zeros(shape)
        _write(out, self.matrix, gather, v, blank=True)
        return out

    def put(self, v: Vectors, out: Vectors) -> None:
        """Writes the entries of M v, of rows that have any, to `out`, which is zero there."""
        _write(out, self.matrix, self._forward, v, blank=True)

    def adjoint(self, w: Vectors) -> Vectors:
        """Returns Mᵀ w for each item."""
        out = np.zeros((len(w), len(self._transposed.indptr) - 1))
        self.add_adjoint(w, out, blank=True)
        return out

    def add_adjoint(self, w: Vectors, out: Vectors, blank: bool = False) -> None:
        """Adds Mᵀ w to `out`; it may be overwritten if it is `blank`: zero wherever Mᵀ has entries."""
        _write(out, self._transposed, self._backward, w, blank)

    def columns(self, block: Run) -> LinearMap:
        """Returns the map of some of the inputs, the others being zero."""
        return LinearMap(sp.csr_array(self.matrix[:, block]))

    @property
    def fills_view(self) -> bool:
        """Whether the rows that have entries, each of two at most, are a view of all rows."""
        return self._forward is not None and not isinstance(self._forward.filled, np.ndarray)

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
        return _gather(self.matrix, len(self._transposed.indptr) - 1)

    @cached_property
    def _backward(self) -> _Gather | None:
        return _gather(self._transposed, len(self.matrix.indptr) - 1)


def _write(out: Vectors, matrix: sp.csr_array, gather: _Gather | None, v: Vectors, blank: bool) -> None:
    if gather is not None:
        gather.write(v, out, add=not blank)
    elif matrix.nnz:
        out += (matrix @ v.T).T

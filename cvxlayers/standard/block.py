"""One matrix or vector of a program, dense or on a fixed sparsity pattern, apart from its values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from jaxtyping import Int

from cvxlayers.errors import ShapeError

Positions = Int[np.ndarray, " size"]


@dataclass(frozen=True)
class Block:
    """The shape of a block, and where its values stand. Two blocks of the same layout are equal.

    Attributes:
        name: how the user calls it.
        shape: its shape without batch axes; () for one number that stands for all entries of a vector.
        pattern: the rows and columns of its values, as bytes; None where all entries are values, in C order.
    """

    name: str
    shape: tuple[int, ...]
    pattern: tuple[bytes, bytes] | None = None

    @property
    def value_shape(self) -> tuple[int, ...]:
        """The shape of the values of one item."""
        return self.shape if self.pattern is None else (len(self.pattern[0]) // np.dtype(np.int64).itemsize,)

    def positions(self) -> tuple[Positions, Positions]:
        """Returns the row and the column of each value of a matrix."""
        if self.pattern is None:
            rows, cols = np.divmod(np.arange(int(np.prod(self.shape))), self.shape[1])
            return rows, cols
        rows, cols = (np.frombuffer(indices, dtype=np.int64) for indices in self.pattern)
        return rows, cols


def read_block(name: str, given: Any, axes: int, convert: Callable[[Any], Any]) -> tuple[Block, Any]:
    """Splits what a user gives into a block and its values.

    Args:
        name: how the user calls it.
        given: an array of shape (*batch, *shape); a SciPy sparse matrix; or such a matrix, as a pattern, with values of
            shape (*batch, nnz), in the order of its `tocoo()`.
        axes: the number of axes without batch axes: 1 or 2.
        convert: makes an array of the framework.

    Raises:
        ShapeError: if it has too few axes, or a pattern that is not one of a matrix.
    """
    if sp.issparse(given):
        return _sparse(name, given, axes), convert(given.tocoo().data)
    if isinstance(given, tuple) and len(given) == 2 and sp.issparse(given[0]):
        return _sparse(name, given[0], axes), convert(given[1])
    value = convert(given)
    if axes == 1 and not value.ndim:
        return Block(name, ()), value
    if value.ndim < axes:
        raise ShapeError(f"{name} needs at least {axes} axes, got shape {tuple(value.shape)}")
    return Block(name, tuple(value.shape[-axes:])), value


def _sparse(name: str, pattern: Any, axes: int) -> Block:
    if axes != 2 or len(pattern.shape) != 2:
        raise ShapeError(f"{name} cannot be sparse: only matrices P, A and G can")
    entries = pattern.tocoo()
    rows, cols = (np.asarray(indices, dtype=np.int64).tobytes() for indices in (entries.row, entries.col))
    return Block(name, tuple(int(size) for size in pattern.shape), (rows, cols))

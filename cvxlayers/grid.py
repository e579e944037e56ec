"""Indices of a matrix's entries among others, in rows of equal steps at equal distances: a view instead of a list."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from cvxlayers.batches import Vectors

# Rows and columns from which on views are read faster than lists of indices.
_LEAST = 8


@dataclass(frozen=True, eq=False)
class Grid:
    """The columns s + i·d + j·e of row vectors, where i counts rows and j columns of a matrix.

    Attributes:
        shape: how many rows and columns.
        span: consecutive columns in which they lie, cut into as many equal parts as the larger step is made.
        parts: how many those are.
        within: where they lie in each part.
        turned: whether the parts are columns of the matrix.
    """

    shape: tuple[int, int]
    span: slice
    parts: int
    within: slice
    turned: bool

    def view(self, v: Vectors) -> Float[np.ndarray, "#batch height width"]:
        """Returns a view of these columns of each row vector, as a matrix."""
        columns = v[:, self.span]
        matrices = columns.reshape((len(v), self.parts, columns.shape[1] // self.parts))[:, :, self.within]
        return matrices.transpose(0, 2, 1) if self.turned else matrices


def find_grid(index: Int[np.ndarray, " _count"], size: int) -> Grid | None:
    """Returns indices as a grid; None where they are none, or one too narrow to be worth while.

    Args:
        index: the indices.
        size: the length of the row vectors.
    """
    breaks = np.flatnonzero(np.diff(index, n=2))
    width = int(breaks[0]) + 2 if len(breaks) else len(index)
    height = len(index) // width if width else 0
    if min(width, height) < _LEAST:
        return None
    start, across, down = int(index[0]), int(index[1] - index[0]), int(index[width] - index[0])
    grid = start + down * np.arange(height)[:, None] + across * np.arange(width)
    if min(across, down) < 1 or not np.array_equal(grid.ravel(), index):
        return None
    turned = across > down
    period, parts, step, count = (across, width, down, height) if turned else (down, height, across, width)
    extent = step * (count - 1) + 1
    # The parts may begin anywhere before their first index, as long as they end before their last column, and the span
    # within the vectors.
    least, most = max(0, start + parts * period - size), min(start, period - extent)
    if least > most:
        return None
    first = start - least
    return Grid(
        (height, width), slice(first, first + parts * period), parts, slice(least, least + extent, step), turned
    )

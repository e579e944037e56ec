"""Arrays of a batch: one row an item, and a leading axis of one for what all items share."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

# A leading axis of one stands for what all items of a batch share.
Values = Float[np.ndarray, "#batch _nnz"]
Vectors = Float[np.ndarray, "#batch _size"]
Run = slice | Int[np.ndarray, " _count"]

# Entries from which on an array is large.
_LARGE = 2**15


def run(index: Int[np.ndarray, " _count"]) -> Run:
    """Returns the indices as a slice where they rise by equal steps, else as they are."""
    steps = np.unique(np.diff(index))
    if not len(index) or len(steps) > 1 or (steps < 1).any():
        return index
    step = int(steps[0]) if len(steps) else 1
    return slice(int(index[0]), int(index[-1]) + 1, step)


def is_large(entries: int) -> bool:
    """Whether arrays of so many entries are worth an extra call of NumPy that spares a pass over them."""
    return entries >= _LARGE


def largest(values: Float[np.ndarray, "leading size"]) -> Float[np.ndarray, " leading"]:
    """Returns the largest absolute value per item."""
    if not is_large(values.size):
        return np.maximum.reduce(np.abs(values), axis=1, initial=0.0)
    # Without an array of all absolute values, which memory would have to be found for.
    return np.maximum(np.max(values, axis=1, initial=0.0), -np.min(values, axis=1, initial=0.0))


def every(condition: Bool[np.ndarray, "..."]) -> bool:
    """Returns whether a condition holds everywhere: `condition.all()`, in a fifth of its time where entries are few."""
    return bool(np.count_nonzero(condition) == condition.size)


def some(values: Shaped[np.ndarray, "..."]) -> bool:
    """Returns whether a condition holds anywhere, or any number is not zero: `values.any()`, likewise."""
    return bool(np.count_nonzero(values))


def is_everything(index: slice | Int[np.ndarray, " k"], batch: int) -> bool:
    """Whether an index stands for all items of a batch, in their order."""
    if isinstance(index, slice):
        return index.indices(batch) == (0, batch, 1)
    return len(index) == batch and (batch == 1 or bool((index == np.arange(batch)).all()))


def is_shared(rows: Vectors) -> bool:
    """Whether all items share one row, as `spread_rows` leaves it."""
    return not rows.strides[0]


def is_moving(rows: Vectors) -> bool:
    """Whether any entry is not zero; of what all items share, one row is looked at."""
    return some(rows[:1] if is_shared(rows) else rows)


def spread_rows(array: Vectors, batch: int) -> Vectors:
    """Broadcasts what all items share."""
    return array if len(array) == batch else np.broadcast_to(array, (batch, array.shape[1]))

"""Products of sparse matrices with vectors, where all entries lie on a few straight lines through the matrix.

A line is part of a row, of a column or of a diagonal. Its entries are evenly spaced among those that are stored, and so
are its rows and columns: what it contributes is one product of arrays for the whole batch, without any index.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from cvxlayers.batches import Values, Vectors

# Lines up to which, and entries on each of them from which on, their products are faster than a loop over the entries.
_MOST, _LEAST = 8, 24
# A column of more entries is a line of its own.
_SHORT = 4

Entries = Int[np.ndarray, "_count 3"]


class Line(NamedTuple):
    """Entries of one line: their rows and columns, of which one may be a single one, and where they are stored."""

    rows: slice
    columns: slice
    entries: slice


class _Step(NamedTuple):
    """What one line contributes to a product.

    Attributes:
        entries: of the line.
        taken: what of the vector they are multiplied by.
        put: where the products go.
        sums: whether they are summed up.
        fresh: whether no line before has put anything there.
    """

    entries: slice
    taken: slice
    put: slice
    sums: bool
    fresh: bool


@dataclass(frozen=True, eq=False)
class _Side:
    """The steps of a product, the length of what it returns, and whether no part of that is first to be zero."""

    steps: Sequence[_Step]
    size: int
    filled: bool

    @classmethod
    def of(cls, places: Sequence[tuple[slice, slice, slice]], size: int) -> _Side:
        """Orders the entries of each line, what they are multiplied by, and where the products go."""
        steps, seen, filled = [], np.zeros(size, dtype=bool), True
        for entries, taken, put in places:
            sums = put.stop - put.start == 1 < entries.stop - entries.start
            fresh = not seen[put].any()
            steps.append(_Step(entries, taken, put, sums, fresh))
            filled &= fresh or bool(seen[put].all())
            seen[put] = True
        return cls(steps, size, filled and bool(seen.all()))

    def multiply(self, values: Values, v: Vectors) -> Vectors:
        """Returns the product for each item; a batch of one broadcasts."""
        batch = len(v) if len(values) == 1 else len(values)
        out = np.empty((batch, self.size)) if self.filled else np.zeros((batch, self.size))
        for entries, taken, put, sums, fresh in self.steps:
            weights, part, target = values[:, entries], v[:, taken], out[:, put]
            if fresh and not sums:
                np.multiply(weights, part, out=target)
                continue
            # The memory order decides how a sum is rounded.
            terms = np.multiply(weights, part, order="C")
            if sums:
                terms = np.add.reduce(terms, axis=1, keepdims=True)
            if fresh:
                target[:] = terms
            else:
                target += terms
        return out


@dataclass(frozen=True, eq=False)
class Lines:
    """M x and Mᵀ y for matrices whose entries lie on lines."""

    forward: _Side
    backward: _Side

    def apply(self, values: Values, x: Vectors) -> Vectors:
        """Returns M x for each item; a batch of one broadcasts."""
        return self.forward.multiply(values, x)

    def adjoint(self, values: Values, y: Vectors) -> Vectors:
        """Returns Mᵀ y for each item; a batch of one broadcasts."""
        return self.backward.multiply(values, y)


def find_lines(
    shape: tuple[int, int], rows: Int[np.ndarray, " nnz"], starts: Int[np.ndarray, " cols_plus_one"]
) -> Lines | None:
    """Returns the products of matrices given by their entries, column by column; None where these lie otherwise."""
    found: list[Line] = []
    most = min(_MOST, len(rows) // _LEAST)
    for line in _lines(rows.astype(np.int64), starts.astype(np.int64)):
        found.append(line)
        if len(found) > most:
            return None
    return Lines(
        _Side.of([(line.entries, line.columns, line.rows) for line in found], shape[0]),
        _Side.of([(line.entries, line.rows, line.columns) for line in found], shape[1]),
    )


def _lines(rows: Int[np.ndarray, " nnz"], starts: Int[np.ndarray, " cols_plus_one"]) -> Iterator[Line]:
    """Yields long columns, and then lines through the first entries of the others, through their second ones, ..."""
    counts = np.diff(starts)
    columns = np.repeat(np.arange(len(counts)), counts)
    entries = np.stack([rows, columns, np.arange(len(rows))], axis=1)
    for column in np.flatnonzero(counts > _SHORT):
        yield from _split(entries[starts[column] : starts[column + 1]])
    for nth in range(_SHORT):
        yield from _split(entries[starts[:-1][(counts > nth) & (counts <= _SHORT)] + nth])


def _split(entries: Entries) -> Iterator[Line]:
    """Cuts a sequence of entries into lines, each as long as it can be."""
    steps, first = np.diff(entries, axis=0), 0
    turns = np.append(np.flatnonzero(np.any(np.diff(steps, axis=0), axis=1)) + 1, len(steps))
    while first < len(entries):
        last = first
        if first < len(steps) and (steps[first] >= 0).all():
            last = int(turns[np.searchsorted(turns, first, side="right")]) if first < turns[-1] else first
        starts, stops = entries[first].tolist(), entries[last].tolist()
        rows, columns, places = (_between(*ends, last - first) for ends in zip(starts, stops, strict=True))
        yield Line(rows, columns, places)
        first = last + 1


def _between(start: int, stop: int, steps: int) -> slice:
    """Returns the slice from one index to another in equal steps; of one index where they are the same."""
    return slice(start, stop + 1, (stop - start) // steps if stop > start else 1)

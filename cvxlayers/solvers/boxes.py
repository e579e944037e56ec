"""Inequalities in one variable, as the bounds on variables that some solvers take."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Float, Int

from cvxlayers.batches import Vectors, every, some
from cvxlayers.program import ConeProgram, Structure

Index = Int[np.ndarray, " _count"]

# How many patterns of signs are remembered for a structure.
_MANY = 32


@dataclass(frozen=True, eq=False)
class Side:
    """The rows that bound variables from one side: `rows` are sign·size·x[columns] ≤ b, with one size for each item."""

    rows: Index
    columns: Index
    sizes: Float[np.ndarray, "#batch _count"]

    def multipliers(self, of_bounds: Vectors) -> Vectors:
        """Returns the dual variables of the rows, from those of the bounds on all variables."""
        return of_bounds[:, self.columns] / self.sizes


_NO_SIDE = Side(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros((1, 0)))


@dataclass(frozen=True, eq=False)
class Boxes:
    """Some items of a batch of programs, with bounds on variables in place of rows; infinite where there is none.

    Attributes:
        items: which items.
        program: these items, all rows included.
        kept: the rows that are no bounds.
        upper: the upper bounds, and what rows they are.
        lower: likewise.
        bounded: how many variables, from the first on, may have bounds.
    """

    items: Int[np.ndarray, " items"]
    program: ConeProgram
    kept: Index
    upper: Side
    lower: Side
    bounded: int

    def bounds(self) -> tuple[Float[np.ndarray, "#batch n"], Float[np.ndarray, "#batch n"]]:
        """Returns the lower and the upper bounds."""
        return self._bounds

    @cached_property
    def _bounds(self) -> tuple[Float[np.ndarray, "#batch n"], Float[np.ndarray, "#batch n"]]:
        n, b = self.program.structure.n, self.program.b
        found = []
        for side, sign in ((self.lower, -1.0), (self.upper, 1.0)):
            values = sign * b.take(side.rows, axis=1) / side.sizes
            full = np.full((len(values), n), sign * np.inf)
            full[:, side.columns] = values
            found.append(full)
        return found[0], found[1]


def find_boxes(program: ConeProgram) -> list[Boxes]:
    """Splits a batch of polyhedral programs by which of their rows are bounds, which their signs decide item by item.

    Of several upper bounds on a variable the first counts, and the others stay rows; so do rows with a coefficient of
    zero, and all rows of items whose bounds cross.
    """
    entries = program.structure.single_entries
    everything = np.arange(program.batch)
    if not len(entries):
        return [_without_bounds(program, everything)]
    signs = np.sign(program.A.take(entries, axis=1))
    groups = [(everything, signs[0] if len(signs) else np.zeros(len(entries)))]
    if not every(signs == signs[:1]):
        patterns, which = np.unique(signs, axis=0, return_inverse=True)
        groups = [(np.flatnonzero(which.ravel() == k), pattern) for k, pattern in enumerate(patterns)]
    found = []
    for items, pattern in groups:
        boxes = _boxes(program, items, entries, pattern)
        lower, upper = boxes.bounds()
        crossing = lower > upper
        if some(crossing):
            crossing = np.broadcast_to(crossing.any(axis=1), items.shape)
            found.append(_without_bounds(program, items[crossing]))
            boxes = _boxes(program, items[~crossing], entries, pattern)
        if len(boxes.items) or not len(program.b):
            found.append(boxes)
    return found


def _without_bounds(program: ConeProgram, items: Index) -> Boxes:
    mine = program if len(items) == program.batch else program.item(items)
    return Boxes(items, mine, np.arange(program.structure.m), _NO_SIDE, _NO_SIDE, 0)


def _boxes(program: ConeProgram, items: Index, entries: Index, signs: Float[np.ndarray, " _count"]) -> Boxes:
    mine = program if len(items) == program.batch else program.item(items)
    places = _places(program.structure, entries, signs)
    upper, lower = (Side(rows, columns, np.abs(mine.A.take(stored, axis=1))) for stored, rows, columns in places.sides)
    return Boxes(items, mine, places.kept, upper, lower, places.bounded)


class _Places(NamedTuple):
    """Where bounds stand.

    Attributes:
        sides: of upper and of lower bounds the entries among A's stored ones, with their rows and columns.
        kept: the rows that are no bounds.
        bounded: how many variables, from the first on, may have bounds.
    """

    sides: list[tuple[Index, Index, Index]]
    kept: Index
    bounded: int


_KNOWN: WeakKeyDictionary[Structure, dict[bytes, _Places]] = WeakKeyDictionary()


def _places(structure: Structure, entries: Index, signs: Float[np.ndarray, " _count"]) -> _Places:
    """Returns what stands where, which may have been found before."""
    known, key = _KNOWN.setdefault(structure, {}), signs.tobytes()
    places = known.get(key)
    if places is None:
        if len(known) >= _MANY:
            known.clear()
        places = known[key] = _find_places(structure, entries, signs)
    return places


def _find_places(structure: Structure, entries: Index, signs: Float[np.ndarray, " _count"]) -> _Places:
    A, kept = structure.A, np.ones(structure.m, dtype=bool)
    found = [_first(A.cols, entries[signs == sign]) for sign in (1.0, -1.0)]
    sides = [(stored, A.rows[stored], A.cols[stored]) for stored in found]
    for _, rows, _ in sides:
        kept[rows] = False
    bounded = max(int(columns.max(initial=-1)) + 1 for _, _, columns in sides)
    return _Places(sides, kept.nonzero()[0], bounded)


def _first(columns: Index, entries: Index) -> Index:
    """Returns the first of the entries in each column; they are stored by columns."""
    fresh = np.ones(len(entries), dtype=bool)
    fresh[1:] = columns[entries[1:]] != columns[entries[:-1]]
    return entries[fresh]

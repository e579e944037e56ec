"""Programs whose variables only few rows couple: a sum of functions of one variable, and bounds.

Their optimality conditions fall apart once the multipliers of the coupling rows are known, and so do the systems of
their derivatives. Recognised from the structure alone, so for any values that parameters give to its entries:

    P diagonal;  rows of the zero and the nonnegative cone that couple variables, few of them;  rows of the nonnegative
    cone with one variable (bounds);  exponential cones (a·t, αx + β, γ) that bound a t of their own by an entropy of x.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Float, Int

from cvxlayers.batches import Run, Values, run
from cvxlayers.patterns import Pattern
from cvxlayers.program import Structure

Index = Int[np.ndarray, " _count"]
# More coupling rows than these are no longer few: their Schur complement is a dense matrix.
_FEW, _SHARE = 40, 0.25


@dataclass(frozen=True, eq=False)
class Bounds:
    """Rows with one variable each, no two of them with the same one, and their coefficients' positions in A."""

    rows: Index
    columns: Index
    entries: Index

    @cached_property
    def runs(self) -> tuple[Run, Run, Run]:
        """The rows, columns and entries, as slices where they are equally spaced."""
        return run(self.rows), run(self.columns), run(self.entries)


@dataclass(frozen=True, eq=False)
class Entropies:
    """Exponential cones in the order of their x, all different: triples of rows (a·t + b₁, α·x + b₂, b₃) in K.

    Attributes:
        rows: the three rows of each.
        bounded: the column of each t.
        bounded_entries: the position of −a in A's stored entries.
        columns: the column of each x.
        entries: the position of −α in A's stored entries.
    """

    rows: Int[np.ndarray, "_count 3"]
    bounded: Index
    bounded_entries: Index
    columns: Index
    entries: Index


class Places(NamedTuple):
    """The parts of `Entropies`, as slices where they are equally spaced: what is taken is then a view."""

    rows: tuple[Run, Run, Run]
    bounded: Run
    bounded_entries: Run
    columns: Run
    entries: Run


@dataclass(frozen=True, eq=False)
class Separable:
    """The parts of a separable program.

    Attributes:
        n: the number of variables.
        squared: the variables with an entry of P.
        main: the variables but for those that stand for entropies.
        coupling: the rows that couple main variables.
        coupling_entries: the positions in A's stored entries of these rows.
        coupling_places: where these entries stand among the coupling rows, and in which column.
        bounds: the rows that bound main variables, in groups.
        entropies: the exponential cones, in groups.
    """

    n: int
    squared: Index
    main: Index
    coupling: Index
    coupling_entries: Index
    coupling_places: tuple[Index, Index]
    bounds: Sequence[Bounds]
    entropies: Sequence[Entropies]

    @cached_property
    def main_run(self) -> Run:
        """The main variables, as a slice where they are equally spaced."""
        return run(self.main)

    @cached_property
    def coupling_run(self) -> Run:
        """The coupling rows, likewise."""
        return run(self.coupling)

    @cached_property
    def places(self) -> list[Places]:
        """Where the numbers of the entropies stand, group by group."""
        return [_places(group) for group in self.entropies]

    def coupling_matrix(self, A: Values) -> Float[np.ndarray, "leading _coupling n"]:
        """Returns the coupling rows, dense."""
        matrix = np.zeros((len(A), len(self.coupling) * self.n))
        matrix[:, self._flat_places] = A.take(self.coupling_entries, axis=1)
        return matrix.reshape((len(A), len(self.coupling), self.n))

    @cached_property
    def _flat_places(self) -> Index:
        rows, columns = self.coupling_places
        return rows * self.n + columns

    def diagonal(self, P: Values) -> Float[np.ndarray, "leading n"]:
        """Returns the diagonal of P."""
        if len(self.squared) == self.n:
            return P
        full = np.zeros((len(P), self.n))
        full[:, self.squared] = P
        return full


# What is kept here must not hold its structure, which would then live for ever.
_KNOWN: WeakKeyDictionary[Structure, Separable | None] = WeakKeyDictionary()


def separate(structure: Structure) -> Separable | None:
    """Returns the parts of a structure, or None where it is not separable."""
    if structure not in _KNOWN:
        _KNOWN[structure] = _separate(structure)
    return _KNOWN[structure]


def _separate(structure: Structure) -> Separable | None:
    A, cone, n = structure.A, structure.cone, structure.n
    if cone.second_order or cone.semidefinite or cone.power or not _is_diagonal(structure.P):
        return None
    linear = cone.zero + cone.nonnegative
    counts = np.bincount(A.rows, minlength=structure.m)
    entropies = _entropies(structure, np.arange(linear, structure.m).reshape(-1, 3), counts)
    if entropies is None:
        return None
    named = np.zeros(n, dtype=bool)
    for group in entropies:
        named[group.bounded] = True
    in_coupling = (A.rows < linear) & ((counts[A.rows] != 1) | (A.rows < cone.zero))
    coupling = np.setdiff1d(np.arange(linear), A.rows[(A.rows < linear) & ~in_coupling])
    main = np.flatnonzero(~named)
    few = len(coupling) <= _FEW and len(coupling) <= max(1, _SHARE * len(main))
    if not few or named[A.cols[A.rows < linear]].any() or named[structure.P.rows].any():
        return None
    single = np.flatnonzero((A.rows < linear) & ~in_coupling)
    bounds = [Bounds(A.rows[part], A.cols[part], part) for part in _distinct(single, A.cols[single])]
    entries = np.flatnonzero(in_coupling)
    places = np.searchsorted(coupling, A.rows[entries]), A.cols[entries]
    return Separable(n, structure.P.rows, main, coupling, entries, places, bounds, entropies)


def _is_diagonal(P: Pattern) -> bool:
    return bool(np.array_equal(P.rows, P.cols))


def _entropies(structure: Structure, rows: Int[np.ndarray, "_count 3"], counts: Index) -> list[Entropies] | None:
    """Returns the exponential cones of the form above in groups, or None where one has another form."""
    A = structure.A
    if not len(rows):
        return []
    if (counts[rows] != (1, 1, 0)).any():
        return None
    position = np.zeros(structure.m, dtype=np.int64)
    position[A.rows] = np.arange(A.nnz)
    first, second = position[rows[:, 0]], position[rows[:, 1]]
    bounded, columns = A.cols[first], A.cols[second]
    if (np.diff(A.indptr)[bounded] != 1).any():
        return None
    groups = [k[np.argsort(columns[k])] for k in _distinct(np.arange(len(rows)), columns)]
    return [Entropies(rows[k], bounded[k], first[k], columns[k], second[k]) for k in groups]


def _places(group: Entropies) -> Places:
    first, second, third = (run(rows) for rows in group.rows.T)
    others = (group.bounded, group.bounded_entries, group.columns, group.entries)
    return Places((first, second, third), *(run(index) for index in others))


def _distinct(items: Index, keys: Index) -> list[Index]:
    """Splits items so that in each part all keys differ: the first of each key, the second, and so on."""
    order = np.argsort(keys, kind="stable")
    sorted_keys = keys[order]
    occurrence = np.arange(len(keys)) - np.searchsorted(sorted_keys, sorted_keys)
    return [np.sort(items[order[occurrence == k]]) for k in range(int(occurrence.max(initial=-1)) + 1)]


def require(structure: Structure) -> Separable:
    """Returns the parts of a structure.

    Raises:
        ValueError: if it is not separable.
    """
    parts = separate(structure)
    if parts is None:
        raise ValueError("the program is not separable")
    return parts

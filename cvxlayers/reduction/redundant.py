"""Finds rows that say nothing new: they hold whatever x is, or repeat another row, or a cone implies them.

Points of an exponential, power or second-order cone have coordinates that are not negative. So `x >= 0` says nothing
new beside `entr(x)`, `log(x)` or `SOC(x, z)`; and where x is tiny, as in an entropy, rounding cannot tell whether it
holds strictly: it would be a kink that is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from cvxlayers.affine_map import AffineMap
from cvxlayers.compiled import CompiledProblem
from cvxlayers.cones import Exponential, Power, Product, SecondOrder
from cvxlayers.reduction.parts import Index
from cvxlayers.reduction.repeated import Repeated

# Rows are multiples of others up to rounding, if they are of about the same size.
_ROUNDING, _NEAR = 8 * np.finfo(float).eps, 1e-3
# A mark this small is zero.
_NOTHING = 1e-200
# Which coordinates of a cone's points cannot be negative.
_NOT_NEGATIVE = {SecondOrder: (0,), Exponential: (1, 2), Power: (0, 1)}


def find_redundant(compiled: CompiledProblem) -> tuple[Index, Repeated]:
    """Finds equalities and inequalities that say nothing new, and of which rows they are multiples, if of linear ones.

    What a cone implies bears no multiplier. Where one is asked for, the row stays: it might share the cone's.
    """
    cone, rows, listed = compiled.structure.cone, _Rows.of(compiled), compiled.variables.y.inputs
    place, offsets, linear = np.arange(cone.dim), compiled.b.constant, cone.zero + cone.nonnegative
    void = rows.empty & (place < linear) & np.where(place < cone.zero, offsets == 0, offsets >= 0)
    within = {rows.key(row): row for row in _not_negative(cone)}
    first: dict[tuple[float, float], int] = {}
    implied: list[int] = []
    found: list[tuple[int, int, float]] = []
    # Rows that are multiples have equal marks; the few others that might are told apart entry by entry.
    for row in np.flatnonzero(~rows.empty[:linear]).tolist():
        mark, sign = rows.key(row)
        # An inequality repeats those of its direction, and any equality.
        direction = 0.0 if row < cone.zero else sign
        bound = within.get((mark, direction))
        if bound is not None and (mark, 0.0) not in first and not listed[row] and rows.factor(row, bound) is not None:
            implied.append(row)
            continue
        twin = first.get((mark, 0.0), first.setdefault((mark, direction), row))
        factor = None if twin == row else rows.factor(row, twin)
        if factor is not None:
            found.append((row, twin, factor))
    repeats, others = (np.array([pair[k] for pair in found], dtype=np.int64) for k in (0, 1))
    factors = np.array([factor for _, _, factor in found], dtype=np.float64)
    redundant = np.concatenate([np.flatnonzero(void), np.array(implied, dtype=np.int64), repeats])
    return np.sort(redundant), Repeated(repeats, others, factors, others < cone.zero)


def _not_negative(cone: Product) -> Iterator[int]:
    for block, rows in cone.blocks():
        for coordinate in _NOT_NEGATIVE.get(type(block), ()):
            yield rows.start + coordinate


@dataclass(frozen=True, eq=False)
class _Rows:
    """The rows of A and b, as functions of theta.

    Attributes:
        compiled: whose they are.
        order: the stored entries of A, row by row, of which row r has those from edges[r] to edges[r + 1].
        edges: where rows begin.
        marks: numbers that are equal for rows that are multiples.
        scales: the first coefficients, for random parameters.
    """

    compiled: CompiledProblem
    order: Index
    edges: Index
    marks: Float[np.ndarray, " m"]
    scales: Float[np.ndarray, " m"]

    @classmethod
    def of(cls, compiled: CompiledProblem) -> _Rows:
        """Marks the rows of a problem."""
        A = compiled.structure.A
        order = np.argsort(A.rows, kind="stable")
        return cls(compiled, order, np.searchsorted(A.rows[order], np.arange(A.shape[0] + 1)), *_marks(compiled))

    @property
    def empty(self) -> Bool[np.ndarray, " m"]:
        """Which are a constant and nothing else."""
        return (np.diff(self.edges) == 0) & (np.diff(self.compiled.b.linear.matrix.indptr) == 0)

    def key(self, row: int) -> tuple[float, float]:
        """Returns what is equal for rows that are positive multiples."""
        return float(self.marks[row]), float(np.sign(self.scales[row]))

    def factor(self, row: int, other: int) -> float | None:
        """Returns of which multiple of another row it is, up to rounding; None if it is none of about that size."""
        (A, b), factor = (self.compiled.A, self.compiled.b), float(self.scales[row] / self.scales[other])
        mine, theirs = (self.order[self.edges[k] : self.edges[k + 1]] for k in (row, other))
        columns = self.compiled.structure.A.cols
        if not (_NEAR <= abs(factor) <= 1 / _NEAR and np.array_equal(columns[mine], columns[theirs])):
            return None
        both = _is_multiple(A, mine, theirs, factor) and _is_multiple(b, np.array([row]), np.array([other]), factor)
        return factor if both else None


def _marks(compiled: CompiledProblem) -> tuple[Float[np.ndarray, " _m"], Float[np.ndarray, " _m"]]:
    """Returns numbers that are equal for rows that are multiples, and the first coefficients for random parameters."""
    rng = np.random.default_rng(0)
    structure, A = compiled.structure, compiled.structure.A
    weights, columns = rng.uniform(1, 2, size=compiled.parameters.width), rng.uniform(1, 2, size=structure.n)
    entries = compiled.A.constant + compiled.A.linear.matrix @ weights
    sums = np.bincount(A.rows, entries * columns[A.cols], minlength=structure.m)
    sums = sums + np.pi * (compiled.b.constant + compiled.b.linear.matrix @ weights)
    filled, place = np.unique(A.rows, return_index=True)
    scales = np.ones(structure.m)
    scales[filled] = np.where(entries[place] == 0, 1.0, entries[place])
    marks = sums / scales
    # What rounding may tell apart is cut off.
    digits = 10.0 ** (11 - np.ceil(np.log10(np.maximum(np.abs(marks), _NOTHING))))
    return np.rint(marks * digits) / digits, scales


def _is_multiple(affine: AffineMap, mine: Index, theirs: Index, factor: float) -> bool:
    """Whether some of the outputs are a multiple of others, as functions of theta."""
    constants, linear = affine.constant, affine.linear.matrix
    gap = np.abs(constants[mine] - factor * constants[theirs]) - _ROUNDING * np.abs(constants[mine])
    linear_gap = abs(linear[mine] - factor * linear[theirs]) - _ROUNDING * abs(linear[mine])
    return bool(gap.max(initial=0.0) <= 0 and linear_gap.data.max(initial=0.0) <= 0)

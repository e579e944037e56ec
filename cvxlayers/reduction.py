"""Eliminates what a solver need not see: named expressions, fixed variables, and redundant rows.

Named expressions. CVXPY writes `sum_squares(L @ x)` as ½·2 tᵀt with t = Lx. Such a t stands in one equality only,
a·t + A_RX x = b_R, and in the objective only by its own square, ½ d t² + q_T t. With F = −A_RX/a and c = b_R/a,
t = c + F x, so

    P' = P_XX + Fᵀ diag(d) F,    q' = q_X + Fᵀ(q_T + d c),    A' = A_SX,    b' = b_S

is the same program without t, and y_R = −(d t + q_T)/a is the dual that the elimination removed. The symmetric system
of the derivative is eliminated alike (`fold`, `expand`): it is the same block elimination of the same matrix.

Equalities are eliminated in groups that share their variables, so that Fᵀ diag(d) F is a dense product, and only where
P' gains fewer entries than the equalities had.

Fixed variables. An equality a·t = b_R in one variable fixes it, whatever else it stands in: t moves to the right-hand
sides, q' = q_X + P_XT t and b' = b_S − A_ST t, and y_R = −(P_T x + q_T + A_STᵀ y_S)/a. This is done first.

Redundant rows. Of equal rows one is kept, and of rows 0·x ≤ b those that do not hold already; the others have y = 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int

from cvxlayers.compiled import CompiledProblem
from cvxlayers.derivative import System
from cvxlayers.linear_map import LinearMap
from cvxlayers.program import ConeProgram, Pattern, Structure, Values, Vectors

Index = Int[np.ndarray, " _count"]


@dataclass(frozen=True, eq=False)
class Group:
    """Equalities that share their support: `rows` name `columns` as affine expressions of the variables `support`.

    Attributes:
        rows: the k equalities.
        columns: the variable that each names.
        support: the p variables in the expressions.
        entries: positions in A's stored entries of the k×p coefficients.
        pivots: positions in A's stored entries of the k constants a.
        squares: positions in P's stored entries of the k numbers d; −1 stands for zero.
    """

    rows: Index
    columns: Index
    support: Index
    entries: Int[np.ndarray, "_k _p"]
    pivots: Index
    squares: Index

    @property
    def squared(self) -> bool:
        """Whether any of the variables is squared in the objective."""
        return bool((self.squares >= 0).any())


@dataclass(frozen=True, eq=False)
class Fixed:
    """The variables `columns` that the equalities `rows` fix, by their entries `pivots` in A's stored entries."""

    rows: Index
    columns: Index
    pivots: Index


@dataclass(frozen=True, eq=False)
class Reduction:
    """The elimination of fixed variables, groups and redundant rows.

    Attributes:
        structure: that of the reduced programs.
        fixed: the variables that are fixed.
        redundant: the rows that say nothing new.
        groups: what is eliminated.
        kept_variables: the variables X that stay.
        kept_rows: the rows S that stay.
        kept_P: positions in P's stored entries of P_XX.
        kept_A: positions in A's stored entries of A_SX.
        gather_P: P_XX's entries and all groups' Fᵀ diag(d) F, stacked → the stored entries of P'.
    """

    structure: Structure
    fixed: Fixed
    redundant: Index
    groups: Sequence[Group]
    kept_variables: Index
    kept_rows: Index
    kept_P: Index
    kept_A: Index
    gather_P: LinearMap

    def eliminate(self, program: ConeProgram) -> Reduced:
        """Reduces a batch of programs."""
        full, coefficients = program, np.take(program.A, self.fixed.pivots, axis=1)
        constants = np.take(program.b, self.fixed.rows, axis=1) / coefficients
        if len(self.fixed.rows):
            structure, x = program.structure, self.place(constants)
            q, b = program.q + structure.P.matvec(program.P, x), program.b - structure.A.matvec(program.A, x)
            program = replace(program, q=q, b=b)
        affine = [_affine(group, program) for group in self.groups]
        parts = [np.take(program.P, self.kept_P, axis=1)]
        batch = _common_length(program.P, program.q, program.A, program.b)
        q = np.array(np.broadcast_to(program.q, (batch, program.q.shape[1])))
        for group, (F, c, d, _) in zip(self.groups, affine, strict=True):
            if group.squared:
                root = F * np.sqrt(d)[:, :, None]
                # A matrix times its own transpose is computed as one, and symmetric to the bit.
                product = np.matmul(root.transpose(0, 2, 1), root)
                parts.append(product.reshape((len(product), len(group.support) ** 2)))
            q[:, group.support] += _adjoint(F, program.q[:, group.columns] + d * c)
        stacked = _stack([part for part in parts if part.shape[1]] or parts[:1])
        small = ConeProgram(
            self.structure,
            program.batch,
            self.gather_P.apply(stacked),
            np.take(q, self.kept_variables, axis=1),
            np.take(program.A, self.kept_A, axis=1),
            np.take(program.b, self.kept_rows, axis=1),
        )
        return Reduced(self, full, program, small, constants, affine)

    def place(self, constants: Vectors) -> Vectors:
        """Returns x with values for the fixed variables, and zero for the others."""
        x = np.zeros((len(constants), len(self.kept_variables) + len(self.fixed.columns) + self._named))
        x[:, self.fixed.columns] = constants
        return x

    @property
    def _named(self) -> int:
        return sum(len(group.columns) for group in self.groups)


class _Affine(NamedTuple):
    """t = c + F x, the diagonal d of t's part of P, and the coefficients a; each for all items, or one for all."""

    F: Float[np.ndarray, "#batch _k _p"]
    c: Vectors
    d: Vectors
    a: Vectors


@dataclass(frozen=True, eq=False)
class Reduced:
    """A batch of programs, reduced, with the way back for solutions and for systems of the derivative.

    Attributes:
        reduction: what was eliminated.
        full: the programs.
        moved: the programs with fixed variables on the right-hand sides.
        program: the reduced programs.
        constants: the values of the fixed variables.
        affine: the numbers of each group.
    """

    reduction: Reduction
    full: ConeProgram
    moved: ConeProgram
    program: ConeProgram
    constants: Vectors
    affine: Sequence[_Affine]

    def item(self, index: slice | Index) -> Reduced:
        """Returns some of the programs, reduced."""
        affine = [_Affine(*(_items(part, index) for part in numbers)) for numbers in self.affine]
        full, moved, program = (batch.item(index) for batch in (self.full, self.moved, self.program))
        return Reduced(self.reduction, full, moved, program, _items(self.constants, index), affine)

    def recover(self, x: Vectors, y: Vectors, s: Vectors) -> tuple[Vectors, Vectors, Vectors]:
        """Returns the solution (x, y, s) of the full programs from that of the reduced ones."""
        full, reduction = self.full, self.reduction
        P, A, (rows, columns, pivots) = full.structure.P, full.structure.A, self._fixed
        batch, n, m = full.batch, full.structure.n, full.structure.m
        full_x, full_y, full_s = np.zeros((batch, n)), np.zeros((batch, m)), np.zeros((batch, m))
        full_x[:, reduction.kept_variables] = x
        full_y[:, reduction.kept_rows], full_s[:, reduction.kept_rows] = y, s
        for group, (F, c, d, a) in zip(reduction.groups, self.affine, strict=True):
            t = c + _apply(F, full_x[:, group.support])
            full_x[:, group.columns] = t
            full_y[:, group.rows] = -(d * t + self.moved.q[:, group.columns]) / a
        if len(rows):
            full_x[:, columns] = self.constants
            slope = P.matvec(full.P, full_x) + A.rmatvec(full.A, full_y) + full.q
            full_y[:, rows] = -slope[:, columns] / full.A[:, pivots]
        if len(reduction.redundant):
            slack = full.b - A.matvec(full.A, full_x)
            unequal = reduction.redundant[reduction.redundant >= full.structure.cone.zero]
            full_s[:, unequal] = np.maximum(slack[:, unequal], 0.0)
        return full_x, full_y, full_s

    def fold(self, system: System, first: Vectors, second: Vectors) -> tuple[Vectors, Vectors]:
        """Returns the right-hand side of the reduced system from that of the full one."""
        first, second, _ = self._move(system, first, second)
        folded = first.copy()
        for group, (F, _, d, a) in zip(self.reduction.groups, self.affine, strict=True):
            folded[:, group.support] += _adjoint(F, first[:, group.columns] - d * second[:, group.rows] / a)
        kept = self.reduction.kept_variables, self.reduction.kept_rows
        return np.take(folded, kept[0], axis=1), np.take(second, kept[1], axis=1)

    def expand(
        self, system: System, u: tuple[Vectors, Vectors], rhs: tuple[Vectors, Vectors]
    ) -> tuple[Vectors, Vectors]:
        """Returns the solution of the full system from that of the reduced one, u, and the full right-hand side."""
        rhs_first, rhs_second, moved = self._move(system, *rhs)
        first, second = np.zeros(rhs_first.shape), np.zeros(rhs_second.shape)
        first[:, self.reduction.kept_variables], second[:, self.reduction.kept_rows] = u
        for group, (F, _, d, a) in zip(self.reduction.groups, self.affine, strict=True):
            t = rhs_second[:, group.rows] / a + _apply(F, first[:, group.support])
            first[:, group.columns] = t
            second[:, group.rows] = (rhs_first[:, group.columns] - d * t) / a
        rows, columns, pivots = self._fixed
        if len(rows):
            first[:, columns] = moved
            slope = system.matvec(first, second)[0]
            second[:, rows] = (rhs[0] - slope)[:, columns] / self.full.A[:, pivots]
        return first, second

    @property
    def _fixed(self) -> tuple[Index, Index, Index]:
        fixed = self.reduction.fixed
        return fixed.rows, fixed.columns, fixed.pivots

    def _move(self, system: System, first: Vectors, second: Vectors) -> tuple[Vectors, Vectors, Vectors]:
        """Moves what is known of the fixed variables to the right-hand sides, and returns it too."""
        rows, _, pivots = self._fixed
        if not len(rows):
            return first, second, second[:, :0]
        full = self.full
        known = second[:, rows] / full.A[:, pivots]
        x = self.reduction.place(known)
        first = first - full.structure.P.matvec(full.P, x)
        second = second - system.to_eigen(full.structure.A.matvec(full.A, x))
        return first, second, known


def find_reduction(compiled: CompiledProblem) -> Reduction | None:
    """Finds what can be eliminated to advantage; None where that is nothing."""
    structure = compiled.structure
    redundant = _redundant(compiled)
    fixed = _fixed(compiled, redundant)
    groups = [group for group in _groups(compiled, fixed, redundant) if _pays(group)]
    if not (groups or len(fixed.rows) or len(redundant)):
        return None
    variables, rows = np.ones(structure.n, dtype=bool), np.ones(structure.m, dtype=bool)
    variables[fixed.columns], rows[fixed.rows], rows[redundant] = False, False, False
    for group in groups:
        variables[group.columns], rows[group.rows] = False, False
    kept_P = np.flatnonzero(variables[structure.P.rows] & variables[structure.P.cols])
    kept_A = np.flatnonzero(variables[structure.A.cols] & rows[structure.A.rows])
    P, gather = _reduced_P(structure, groups, variables, kept_P)
    A = _submatrix(structure.A, kept_A, variables, rows)
    zero, linear = structure.cone.zero, structure.cone.zero + structure.cone.nonnegative
    equalities, inequalities = (int(np.count_nonzero(part)) for part in (rows[:zero], rows[zero:linear]))
    cone = replace(structure.cone, zero=equalities, nonnegative=inequalities)
    kept = np.flatnonzero(variables), np.flatnonzero(rows)
    return Reduction(Structure(P, A, cone), fixed, redundant, groups, *kept, kept_P, kept_A, gather)


def _fixed(compiled: CompiledProblem, redundant: Index) -> Fixed:
    """Finds equalities in one variable with a constant coefficient, one for each variable; none if all were fixed."""
    structure, A = compiled.structure, compiled.structure.A
    alone = np.bincount(A.rows, minlength=structure.m)[A.rows] == 1
    candidate = alone & _constant_entries(compiled) & (A.rows < structure.cone.zero) & ~np.isin(A.rows, redundant)
    pivots = np.flatnonzero(candidate)
    pivots = pivots[np.unique(A.cols[pivots], return_index=True)[1]]
    if len(pivots) == structure.n:
        pivots = pivots[:0]
    return Fixed(A.rows[pivots], A.cols[pivots], pivots)


def _constant_entries(compiled: CompiledProblem) -> Bool[np.ndarray, " _nnz"]:
    """Which stored entries of A are constants other than zero."""
    return (np.diff(compiled.A.linear.matrix.indptr) == 0) & (compiled.A.constant != 0)


def _redundant(compiled: CompiledProblem) -> Index:
    """Finds equalities and inequalities that repeat another one, or that hold whatever x is."""
    structure, A = compiled.structure, compiled.structure.A
    zero, linear = structure.cone.zero, structure.cone.zero + structure.cone.nonnegative
    offsets, steady = compiled.b.constant, np.diff(compiled.b.linear.matrix.indptr) == 0
    row = np.arange(structure.m)
    empty = (np.bincount(A.rows, minlength=structure.m) == 0) & steady & (row < linear)
    found = row[empty & np.where(row < zero, offsets == 0, offsets >= 0)].tolist()
    order = np.argsort(A.rows, kind="stable")
    edges = np.searchsorted(A.rows[order], np.arange(structure.m + 1))
    first: dict[float, int] = {}
    # Equal rows have equal products with random numbers; the few others that might are told apart entry by entry.
    for candidate, mark in enumerate(_marks(compiled)[:linear].tolist()):
        twin = first.setdefault(mark if candidate >= zero else -mark, candidate)
        if twin != candidate and not empty[candidate] and (twin < zero) == (candidate < zero):
            mine, other = (order[edges[k] : edges[k + 1]] for k in (candidate, twin))
            if np.array_equal(A.cols[mine], A.cols[other]) and _equal_rows(compiled, (candidate, mine), (twin, other)):
                found.append(candidate)
    return np.array(sorted(found), dtype=np.int64)


def _marks(compiled: CompiledProblem) -> Float[np.ndarray, " _m"]:
    rng = np.random.default_rng(0)
    structure, A = compiled.structure, compiled.structure.A
    weights, columns = rng.uniform(1, 2, size=compiled.parameters.width), rng.uniform(1, 2, size=structure.n)
    entries = compiled.A.constant + compiled.A.linear.matrix @ weights
    sums = np.bincount(A.rows, entries * columns[A.cols], minlength=structure.m)
    return sums + np.pi * (compiled.b.constant + compiled.b.linear.matrix @ weights)


def _equal_rows(compiled: CompiledProblem, one: tuple[int, Index], other: tuple[int, Index]) -> bool:
    """Whether two rows of A with the same support, and their right-hand sides, are the same function of theta."""
    for affine, mine, theirs in ((compiled.A, one[1], other[1]), (compiled.b, [one[0]], [other[0]])):
        if not np.array_equal(affine.constant[mine], affine.constant[theirs]):
            return False
        if abs(affine.linear.matrix[mine] - affine.linear.matrix[theirs]).nnz:
            return False
    return True


def _groups(compiled: CompiledProblem, fixed: Fixed, redundant: Index) -> list[Group]:
    """Pairs each equality with a variable that it alone names, and groups equalities by their other variables."""
    structure = compiled.structure
    A, P = structure.A, structure.P
    free = np.ones(structure.n, dtype=bool)
    free[fixed.columns] = False
    lone = np.diff(A.indptr)[A.cols] == 1
    candidate = _constant_entries(compiled) & lone & (A.rows < structure.cone.zero) & _only_squared(P, free)[A.cols]
    candidate &= ~np.isin(A.rows, np.concatenate([fixed.rows, redundant]))
    by_row = np.argsort(A.rows, kind="stable")
    starts = np.searchsorted(A.rows[by_row], np.arange(structure.m + 1))
    diagonal = np.full(structure.n, -1)
    own = np.flatnonzero(P.rows == P.cols)
    diagonal[P.rows[own]] = own
    named: dict[int, int] = {}
    for pivot in np.flatnonzero(candidate).tolist():
        named.setdefault(int(A.rows[pivot]), pivot)
    eliminated = np.zeros(structure.n, dtype=bool)
    eliminated[A.cols[list(named.values())]] = True
    by_support: dict[bytes, list[tuple[int, np.ndarray]]] = {}
    for equality, pivot in named.items():
        entries = by_row[starts[equality] : starts[equality + 1]]
        others = entries[(entries != pivot) & free[A.cols[entries]]]
        # A second variable that could be named stays in the program: it may be in this row's support.
        if eliminated[A.cols[others]].any():
            continue
        order = others[np.argsort(A.cols[others])]
        by_support.setdefault(A.cols[order].tobytes(), []).append((pivot, order))
    return [_group(members, A, diagonal) for members in by_support.values()]


def _group(members: list[tuple[int, np.ndarray]], A: Pattern, diagonal: Index) -> Group:
    pivots = np.array([pivot for pivot, _ in members])
    entries = np.array([order for _, order in members]).reshape(len(members), -1).astype(int)
    columns = A.cols[pivots]
    return Group(A.rows[pivots], columns, A.cols[entries[0]], entries, pivots, diagonal[columns])


def _only_squared(P: Pattern, free: Bool[np.ndarray, " _n"]) -> Bool[np.ndarray, " _n"]:
    """Which variables stand in P on the diagonal at most, but for products with variables that are not free."""
    coupled = np.zeros(P.shape[0], dtype=bool)
    coupled[P.cols[(P.rows != P.cols) & free[P.rows]]] = True
    return ~coupled


def _pays(group: Group) -> bool:
    """Whether Fᵀ diag(d) F has at most twice the entries that the equalities had, or none where nothing is squared."""
    k, p = group.entries.shape
    return p * p <= 2 * k * (p + 1) or not group.squared


def _reduced_P(
    structure: Structure, groups: Sequence[Group], kept: Bool[np.ndarray, " _n"], kept_P: Index
) -> tuple[Pattern, LinearMap]:
    rows, cols = [structure.P.rows[kept_P]], [structure.P.cols[kept_P]]
    for group in groups:
        p = len(group.support) if group.squared else 0
        rows.append(np.tile(group.support[:p], p))
        cols.append(np.repeat(group.support[:p], p))
    position = np.cumsum(kept) - 1
    all_rows, all_cols = position[np.concatenate(rows)], position[np.concatenate(cols)]
    n = int(np.count_nonzero(kept))
    keys, place = np.unique(all_cols * n + all_rows, return_inverse=True)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(keys // n, minlength=n))])
    gather = sp.csr_array((np.ones(len(place)), (place, np.arange(len(place)))), shape=(len(keys), len(place)))
    return Pattern((n, n), keys % n, indptr), LinearMap(gather)


def _submatrix(
    pattern: Pattern, kept: Index, variables: Bool[np.ndarray, " _n"], rows: Bool[np.ndarray, " _m"]
) -> Pattern:
    row_position, column_position = np.cumsum(rows) - 1, np.cumsum(variables) - 1
    width = int(np.count_nonzero(variables))
    counts = np.bincount(column_position[pattern.cols[kept]], minlength=width)
    indptr = np.concatenate([[0], np.cumsum(counts)])
    return Pattern((int(np.count_nonzero(rows)), width), row_position[pattern.rows[kept]], indptr)


def _affine(group: Group, program: ConeProgram) -> _Affine:
    a = np.take(program.A, group.pivots, axis=1)
    F = np.take(program.A, group.entries, axis=1)
    if (a != -1.0).any():
        F /= -a[:, :, None]
    squares = np.where(group.squares >= 0, program.P[:, group.squares], 0.0) if group.squared else np.zeros(a[:1].shape)
    return _Affine(F, program.b[:, group.rows] / a, squares, a)


def _stack(parts: Sequence[Values]) -> Values:
    """Concatenates the columns, for the items that the parts have in common."""
    if len(parts) == 1:
        return parts[0]
    length = _common_length(*parts)
    return np.concatenate([np.broadcast_to(part, (length, part.shape[1])) for part in parts], axis=1)


def _items(array: Float[np.ndarray, "#batch ..."], index: slice | Index) -> Float[np.ndarray, "..."]:
    return array if len(array) == 1 else array[index]


def _common_length(*arrays: Vectors) -> int:
    """Returns the length of the batch axis to which those of length one broadcast."""
    return np.broadcast_shapes(*(array.shape[:1] for array in arrays))[0]


def _apply(F: Float[np.ndarray, "#batch _k _p"], x: Vectors) -> Vectors:
    return np.matmul(F, x[:, :, None])[:, :, 0]


def _adjoint(F: Float[np.ndarray, "#batch _k _p"], t: Vectors) -> Vectors:
    return np.matmul(t[:, None, :], F)[:, 0, :]

"""Eliminates the variables that canonicalisation introduces to name an affine expression.

CVXPY writes `sum_squares(L @ x)` as ½·2 tᵀt with t = Lx. Such a t stands in one equality only, a·t + A_RX x = b_R, and
in the objective only by its own square, ½ d t² + q_T t. With F = −A_RX/a and c = b_R/a, t = c + F x, so

    P' = P_XX + Fᵀ diag(d) F,    q' = q_X + Fᵀ(q_T + d c),    A' = A_SX,    b' = b_S

is the same program without t, and y_R = −(d t + q_T)/a is the dual that the elimination removed. The symmetric system
of the derivative is eliminated alike (`fold`, `expand`): it is the same block elimination of the same matrix.

Equalities are eliminated in groups that share their variables, so that Fᵀ diag(d) F is a dense product, and only where
P' gains fewer entries than the equalities had.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int

from cvxlayers.compiled import CompiledProblem
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
class Reduction:
    """The elimination of all groups.

    Attributes:
        structure: that of the reduced programs.
        groups: what is eliminated.
        kept_variables: the variables X that stay.
        kept_rows: the rows S that stay.
        kept_P: positions in P's stored entries of P_XX.
        kept_A: positions in A's stored entries of A_SX.
        gather_P: P_XX's entries and all groups' Fᵀ diag(d) F, stacked → the stored entries of P'.
    """

    structure: Structure
    groups: Sequence[Group]
    kept_variables: Index
    kept_rows: Index
    kept_P: Index
    kept_A: Index
    gather_P: LinearMap

    def eliminate(self, program: ConeProgram) -> Reduced:
        """Eliminates the groups of a batch of programs."""
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
        return Reduced(self, program, small, affine)


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
        program: the reduced programs.
        affine: the numbers of each group.
    """

    reduction: Reduction
    full: ConeProgram
    program: ConeProgram
    affine: Sequence[_Affine]

    def item(self, index: slice | Index) -> Reduced:
        """Returns some of the programs, reduced."""
        affine = [_Affine(*(part if len(part) == 1 else part[index] for part in numbers)) for numbers in self.affine]
        return Reduced(self.reduction, self.full.item(index), self.program.item(index), affine)

    def recover(self, x: Vectors, y: Vectors, s: Vectors) -> tuple[Vectors, Vectors, Vectors]:
        """Returns the solution (x, y, s) of the full programs from that of the reduced ones."""
        program, reduction = self.full, self.reduction
        batch, n, m = program.batch, program.structure.n, program.structure.m
        full_x, full_y, full_s = np.zeros((batch, n)), np.zeros((batch, m)), np.zeros((batch, m))
        full_x[:, reduction.kept_variables] = x
        full_y[:, reduction.kept_rows], full_s[:, reduction.kept_rows] = y, s
        for group, (F, c, d, a) in zip(reduction.groups, self.affine, strict=True):
            t = c + _apply(F, full_x[:, group.support])
            full_x[:, group.columns] = t
            full_y[:, group.rows] = -(d * t + program.q[:, group.columns]) / a
        return full_x, full_y, full_s

    def fold(self, first: Vectors, second: Vectors) -> tuple[Vectors, Vectors]:
        """Returns the right-hand side of the reduced system from that of the full one."""
        folded = first.copy()
        for group, (F, _, d, a) in zip(self.reduction.groups, self.affine, strict=True):
            folded[:, group.support] += _adjoint(F, first[:, group.columns] - d * second[:, group.rows] / a)
        kept = self.reduction.kept_variables, self.reduction.kept_rows
        return np.take(folded, kept[0], axis=1), np.take(second, kept[1], axis=1)

    def expand(self, u: tuple[Vectors, Vectors], rhs: tuple[Vectors, Vectors]) -> tuple[Vectors, Vectors]:
        """Returns the solution of the full system from that of the reduced one, u, and the full right-hand side."""
        rhs_first, rhs_second = rhs
        first, second = np.zeros(rhs_first.shape), np.zeros(rhs_second.shape)
        first[:, self.reduction.kept_variables], second[:, self.reduction.kept_rows] = u
        for group, (F, _, d, a) in zip(self.reduction.groups, self.affine, strict=True):
            t = rhs_second[:, group.rows] / a + _apply(F, first[:, group.support])
            first[:, group.columns] = t
            second[:, group.rows] = (rhs_first[:, group.columns] - d * t) / a
        return first, second


def find_reduction(compiled: CompiledProblem) -> Reduction | None:
    """Finds what can be eliminated to advantage; None where that is nothing."""
    groups = [group for group in _groups(compiled) if _pays(group)]
    if not groups:
        return None
    structure = compiled.structure
    variables, rows = np.ones(structure.n, dtype=bool), np.ones(structure.m, dtype=bool)
    for group in groups:
        variables[group.columns], rows[group.rows] = False, False
    kept_P = np.flatnonzero(variables[structure.P.rows] & variables[structure.P.cols])
    kept_A = np.flatnonzero(variables[structure.A.cols] & rows[structure.A.rows])
    P, gather = _reduced_P(structure, groups, variables, kept_P)
    A = _submatrix(structure.A, kept_A, variables, rows)
    cone = replace(structure.cone, zero=structure.cone.zero - int(np.count_nonzero(~rows)))
    return Reduction(
        Structure(P, A, cone), groups, np.flatnonzero(variables), np.flatnonzero(rows), kept_P, kept_A, gather
    )


def _groups(compiled: CompiledProblem) -> list[Group]:
    """Pairs each equality with a variable that it alone names, and groups equalities by their other variables."""
    structure = compiled.structure
    A, P = structure.A, structure.P
    constant = (np.diff(compiled.A.linear.matrix.indptr) == 0) & (compiled.A.constant != 0)
    lone = np.diff(A.indptr)[A.cols] == 1
    candidate = constant & lone & (A.rows < structure.cone.zero) & _only_squared(P)[A.cols]
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
        others = entries[entries != pivot]
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


def _only_squared(P: Pattern) -> Bool[np.ndarray, " _n"]:
    """Which variables stand in P on the diagonal at most."""
    coupled = np.zeros(P.shape[0], dtype=bool)
    coupled[P.cols[P.rows != P.cols]] = True
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


def _common_length(*arrays: Vectors) -> int:
    """Returns the length of the batch axis to which those of length one broadcast."""
    return np.broadcast_shapes(*(array.shape[:1] for array in arrays))[0]


def _apply(F: Float[np.ndarray, "#batch _k _p"], x: Vectors) -> Vectors:
    return np.matmul(F, x[:, :, None])[:, :, 0]


def _adjoint(F: Float[np.ndarray, "#batch _k _p"], t: Vectors) -> Vectors:
    return np.matmul(t[:, None, :], F)[:, 0, :]

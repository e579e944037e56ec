"""Finds in a compiled problem what can be eliminated to advantage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool

from cvxlayers.compiled import CompiledProblem
from cvxlayers.linear_map import LinearMap
from cvxlayers.patterns import Pattern
from cvxlayers.program import Structure
from cvxlayers.reduction.parts import Copies, Fixed, Index, Stack
from cvxlayers.reduction.reduced import Reduction
from cvxlayers.reduction.redundant import find_redundant


def find_reduction(compiled: CompiledProblem) -> Reduction | None:
    """Finds what can be eliminated to advantage; None where that is nothing."""
    structure = compiled.structure
    redundant, repeated = find_redundant(compiled)
    fixed = _fixed(compiled, redundant)
    copies = _copies(compiled, fixed, redundant)
    stacks = _stacked([group for group in _groups(compiled, fixed, copies, redundant) if _pays(group)])
    if not (stacks or len(copies.rows) or len(fixed.rows) or len(redundant)):
        return None
    variables, rows = np.ones(structure.n, dtype=bool), np.ones(structure.m, dtype=bool)
    for known in (fixed, copies):
        variables[known.columns], rows[known.rows] = False, False
    rows[redundant] = False
    for stack in stacks:
        variables[stack.columns], rows[stack.rows] = False, False
    stays = variables.copy()
    stays[copies.columns] = np.diff(copies.scaled.matrix.indptr) > 0
    kept_P = np.flatnonzero(stays[structure.P.rows] & stays[structure.P.cols])
    kept_A = np.flatnonzero(variables[structure.A.cols] & rows[structure.A.rows])
    P, gather = _reduced_P(structure, copies, stacks, variables, kept_P)
    A = _submatrix(structure.A, kept_A, variables, rows)
    zero, linear = structure.cone.zero, structure.cone.zero + structure.cone.nonnegative
    equalities, inequalities = (int(np.count_nonzero(part)) for part in (rows[:zero], rows[zero:linear]))
    cone = replace(structure.cone, zero=equalities, nonnegative=inequalities)
    kept = np.flatnonzero(variables), np.flatnonzero(rows)
    return Reduction(Structure(P, A, cone), fixed, copies, redundant, stacks, *kept, kept_P, kept_A, gather, repeated)


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


def _copies(compiled: CompiledProblem, fixed: Fixed, redundant: Index) -> Copies:
    """Finds equalities with constant coefficients that give a variable, in no other row, as at most one other one."""
    structure, A = compiled.structure, compiled.structure.A
    free = ~np.isin(A.cols, fixed.columns)
    fits = free & _constant_entries(compiled) & (A.rows < structure.cone.zero)
    fits &= ~np.isin(A.rows, np.concatenate([fixed.rows, redundant]))
    counts, fitting = (np.bincount(A.rows[part], minlength=structure.m) for part in (free, fits))
    whole = fits & ((counts == fitting) & (counts <= 2))[A.rows]
    pivots = np.flatnonzero(whole & (np.diff(A.indptr)[A.cols] == 1))
    pivots = pivots[np.unique(A.rows[pivots], return_index=True)[1]]
    copy = np.full(structure.m, -1)
    copy[A.rows[pivots]] = np.arange(len(pivots))
    others = np.setdiff1d(np.flatnonzero(whole & (copy[A.rows] >= 0)), pivots)
    factors = -compiled.A.constant[others] / compiled.A.constant[pivots][copy[A.rows[others]]]
    places, shape = (copy[A.rows[others]], A.cols[others]), (len(pivots), structure.n)
    return Copies(A.rows[pivots], A.cols[pivots], pivots, LinearMap(sp.csr_array((factors, places), shape=shape)))


def _constant_entries(compiled: CompiledProblem) -> Bool[np.ndarray, " _nnz"]:
    """Which stored entries of A are constants other than zero."""
    return (np.diff(compiled.A.linear.matrix.indptr) == 0) & (compiled.A.constant != 0)


def _groups(compiled: CompiledProblem, fixed: Fixed, copies: Copies, redundant: Index) -> list[Stack]:
    """Pairs each equality with a variable that it alone names, and groups equalities by their other variables."""
    structure = compiled.structure
    A, P = structure.A, structure.P
    free = np.ones(structure.n, dtype=bool)
    free[fixed.columns] = False
    lone = np.diff(A.indptr)[A.cols] == 1
    candidate = _constant_entries(compiled) & lone & (A.rows < structure.cone.zero) & _only_squared(P, free)[A.cols]
    candidate &= ~np.isin(A.rows, np.concatenate([fixed.rows, copies.rows, redundant]))
    # What is copied stays in the program.
    candidate &= ~copies.scaled.inputs[A.cols]
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


def _group(members: list[tuple[int, np.ndarray]], A: Pattern, diagonal: Index) -> Stack:
    """Returns a stack of one group."""
    pivots = np.array([pivot for pivot, _ in members])
    entries = np.array([order for _, order in members]).reshape(len(members), -1).astype(int)
    columns = A.cols[pivots]
    parts = A.rows[pivots], columns, A.cols[entries[0]], entries, pivots, diagonal[columns]
    return Stack(*(part[None] for part in parts))


def _stacked(groups: Sequence[Stack]) -> list[Stack]:
    """Stacks groups of one shape with disjoint supports: a stack costs about as much as a group."""
    stacks: list[tuple[tuple[object, ...], set[int], list[Stack]]] = []
    for group in groups:
        shape, support = (*group.entries.shape, group.squared), set(group.support.ravel().tolist())
        for known, taken, members in stacks:
            if known == shape and taken.isdisjoint(support):
                taken |= support
                members.append(group)
                break
        else:
            stacks.append((shape, support, [group]))
    columns = [field.name for field in fields(Stack)]
    return [Stack(*(np.concatenate([getattr(m, name) for m in members]) for name in columns)) for *_, members in stacks]


def _only_squared(P: Pattern, free: Bool[np.ndarray, " _n"]) -> Bool[np.ndarray, " _n"]:
    """Which variables stand in P on the diagonal at most, but for products with variables that are not free."""
    coupled = np.zeros(P.shape[0], dtype=bool)
    coupled[P.cols[(P.rows != P.cols) & free[P.rows]]] = True
    return ~coupled


def _pays(group: Stack) -> bool:
    """Whether Fᵀ diag(d) F has at most twice the entries that the equalities had, or none where nothing is squared."""
    _, k, p = group.entries.shape
    return p * p <= 2 * k * (p + 1) or not group.squared


def _reduced_P(
    structure: Structure, copies: Copies, stacks: Sequence[Stack], kept: Bool[np.ndarray, " _n"], kept_P: Index
) -> tuple[Pattern, LinearMap]:
    source, factor, scaled = np.arange(structure.n), np.ones(structure.n), copies.scaled.matrix
    moving = copies.columns[np.diff(scaled.indptr) > 0]
    source[moving], factor[moving] = scaled.indices, scaled.data
    P_rows, P_cols = structure.P.rows[kept_P], structure.P.cols[kept_P]
    rows, cols, weights = [source[P_rows]], [source[P_cols]], [factor[P_rows] * factor[P_cols]]
    for stack in stacks:
        for support in stack.support if stack.squared else ():
            rows.append(np.tile(support, len(support)))
            cols.append(np.repeat(support, len(support)))
            weights.append(np.ones(len(support) ** 2))
    position = np.cumsum(kept) - 1
    all_rows, all_cols = position[np.concatenate(rows)], position[np.concatenate(cols)]
    n = int(np.count_nonzero(kept))
    keys, place = np.unique(all_cols * n + all_rows, return_inverse=True)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(keys // n, minlength=n))])
    shape = len(keys), len(place)
    gather = sp.csr_array((np.concatenate(weights), (place, np.arange(len(place)))), shape=shape)
    return Pattern((n, n), keys % n, indptr), LinearMap(gather)


def _submatrix(
    pattern: Pattern, kept: Index, variables: Bool[np.ndarray, " _n"], rows: Bool[np.ndarray, " _m"]
) -> Pattern:
    row_position, column_position = np.cumsum(rows) - 1, np.cumsum(variables) - 1
    width = int(np.count_nonzero(variables))
    counts = np.bincount(column_position[pattern.cols[kept]], minlength=width)
    indptr = np.concatenate([[0], np.cumsum(counts)])
    return Pattern((int(np.count_nonzero(rows)), width), row_position[pattern.rows[kept]], indptr)

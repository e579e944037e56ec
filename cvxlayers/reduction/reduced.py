"""Eliminates what a solver need not see: named expressions, copies, fixed variables, and redundant rows.

Named expressions. CVXPY writes `sum_squares(L @ x)` as ½·2 tᵀt with t = Lx. Such a t stands in one equality only,
a·t + A_RX x = b_R, and in the objective only by its own square, ½ d t² + q_T t. With F = −A_RX/a and c = b_R/a,
t = c + F x, so

    P' = P_XX + Fᵀ diag(d) F,    q' = q_X + Fᵀ(q_T + d c),    A' = A_SX,    b' = b_S

is the same program without t, and y_R = −(d t + q_T)/a is the dual that the elimination removed. The symmetric system
of the derivative is eliminated alike (`fold`, `expand`): it is the same block elimination of the same matrix.

Equalities are eliminated in groups that share their variables, so that Fᵀ diag(d) F is a dense product, and only where
P' gains fewer entries than the equalities had.

Copies. CVXPY writes `quad_form(x[:, k], Q)` with a copy t of x[:, k]. Such a t stands in one equality only,
a·t + a′ x_j = b_R with constants a and a′, and anywhere in P. With t = c + f x_j, f = −a′/a, the entries of P move to
those of the variables that are copied, q' = Zᵀ(q + P_·T c) with Z the matrix of f, and y_R = −(P_T z + q_T)/a.

Fixed variables. An equality a·t = b_R in one variable fixes it, whatever else it stands in: t moves to the right-hand
sides, q' = q_X + P_XT t and b' = b_S − A_ST t, and y_R = −(P_T x + q_T + A_STᵀ y_S)/a. This is done first.

Redundant rows. Of rows that are multiples of one another the first is kept, and of rows 0·x ≤ b those that do not hold
already; the others have y = 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from cvxlayers.batches import Run, Values, Vectors, is_moving, is_shared, run, some, spread_rows
from cvxlayers.derivative import System
from cvxlayers.linear_map import LinearMap
from cvxlayers.program import ConeProgram, Structure
from cvxlayers.reduction.parts import Copies, Fixed, Index, Stack, Stacked
from cvxlayers.reduction.repeated import Repeated


@dataclass(frozen=True, eq=False)
class Reduction:
    """The elimination of fixed variables, copies, groups and redundant rows.

    Attributes:
        structure: that of the reduced programs.
        fixed: the variables that are fixed.
        copies: the variables that are others, up to constants.
        redundant: the rows that say nothing new.
        stacks: what is eliminated.
        kept_variables: the variables X that stay.
        kept_rows: the rows S that stay.
        kept_P: positions in P's stored entries of P_XX, and of those in which X is copied.
        kept_A: positions in A's stored entries of A_SX.
        gather_P: the entries `kept_P` and all groups' Fᵀ diag(d) F, side by side → the stored entries of P'.
        repeated: of the redundant rows, those that are multiples of others.
    """

    structure: Structure
    fixed: Fixed
    copies: Copies
    redundant: Index
    stacks: Sequence[Stack]
    kept_variables: Index
    kept_rows: Index
    kept_P: Index
    kept_A: Index
    gather_P: LinearMap
    repeated: Repeated

    @cached_property
    def kept(self) -> tuple[Run, Run]:
        """The variables and rows that stay, as slices where they are."""
        return run(self.kept_variables), run(self.kept_rows)

    @cached_property
    def _copied(self) -> LinearMap:
        """The variables that stay → their copies."""
        return self.copies.scaled.columns(self.kept_variables)

    def gathered(self, slopes: Vectors) -> Vectors:
        """Returns the slopes by the variables that stay, with those by their copies added."""
        found = np.array(slopes[:, self.kept[0]])
        if len(self.copies.rows):
            self._copied.add_adjoint(slopes[:, self.copies.runs[1]], found)
        return found

    def eliminate(self, program: ConeProgram) -> Reduced:
        """Reduces a batch of programs."""
        full, structure, fixed, copies = program, program.structure, self.fixed, self.copies
        x = np.zeros((_common_length(program.A, program.b), structure.n))
        if len(fixed.rows):
            x[:, fixed.columns] = program.b.take(fixed.rows, axis=1) / program.A.take(fixed.pivots, axis=1)
            program = replace(program, b=program.b - structure.A.matvec(program.A, x))
        if len(copies.rows):
            x[:, copies.runs[1]] = copies.constants(program.b, program.A)
        if some(x):
            program = replace(program, q=program.q + structure.P.matvec(program.P, x))
        affine = [_affine(stack, program) for stack in self.stacks]
        parts = [program.P.take(self.kept_P, axis=1)]
        batch = _common_length(program.P, program.q, program.A, program.b)
        q = spread_rows(program.q, batch)
        q = q.copy() if self.stacks else q
        for stack, (F, c, d, _) in zip(self.stacks, affine, strict=True):
            if stack.squared:
                root = F if (d == 1.0).all() else F * np.sqrt(d)[..., None]
                # A matrix times its own transpose is computed as one, and symmetric to the bit.
                product = _product(np.swapaxes(root, -1, -2), root)
                parts.append(product.reshape((len(product), math.prod(product.shape[1:]))))
            q[:, stack.support] += _adjoint(F, program.q[:, stack.columns] + d * c)
        stacked = _side_by_side([part for part in parts if part.shape[1]] or parts[:1])
        small = ConeProgram(
            self.structure,
            program.batch,
            self.gather_P.apply(stacked),
            self.gathered(q),
            program.A.take(self.kept_A, axis=1),
            np.ascontiguousarray(program.b[:, self.kept[1]]),
        )
        return Reduced(self, full, program, small, x, affine)


class _Affine(NamedTuple):
    """t = c + F x, the diagonal d of t's part of P, and the coefficients a; each for all items, or one for all."""

    F: Float[np.ndarray, "#batch _g _k _p"]
    c: Stacked
    d: Stacked
    a: Stacked


@dataclass(frozen=True, eq=False)
class Reduced:
    """A batch of programs, reduced, with the way back for solutions and for systems of the derivative.

    Attributes:
        reduction: what was eliminated.
        full: the programs.
        moved: the programs with fixed variables on the right-hand sides.
        program: the reduced programs.
        constants: the values of the fixed variables, and what the copies add to theirs; zero for the others.
        affine: the numbers of each stack.
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
        P, A, fixed, copies = full.structure.P, full.structure.A, reduction.fixed, reduction.copies
        batch, n, m = full.batch, full.structure.n, full.structure.m
        full_x, full_y, full_s = np.empty((batch, n)), np.zeros((batch, m)), np.zeros((batch, m))
        full_x[:] = self.constants
        variables, rows = reduction.kept
        full_x[:, variables] = x
        full_y[:, rows], full_s[:, rows] = y, s
        for stack, (F, c, d, a) in zip(reduction.stacks, self.affine, strict=True):
            t = c + _apply(F, full_x[:, stack.support])
            full_x[:, stack.columns] = t
            full_y[:, stack.rows] = -(d * t + self.moved.q[:, stack.columns]) / a
        if len(copies.rows):
            full_x[:, copies.runs[1]] += copies.scaled.apply(full_x)
        if len(copies.rows) or len(fixed.rows):
            slope = P.matvec(full.P, full_x)
            rows, columns, pivots = copies.runs
            full_y[:, rows] = (slope[:, columns] + full.q[:, columns]) / -full.A[:, pivots]
            if len(fixed.rows):
                slope += A.rmatvec(full.A, full_y)
                full_y[:, fixed.rows] = -(slope + full.q)[:, fixed.columns] / full.A[:, fixed.pivots]
        if len(reduction.redundant):
            slack = full.b - A.matvec(full.A, full_x)
            unequal = reduction.redundant[reduction.redundant >= full.structure.cone.zero]
            full_s[:, unequal] = np.maximum(slack[:, unequal], 0.0)
        return full_x, full_y, full_s

    def fold(self, system: System, first: Vectors, second: Vectors) -> tuple[Vectors, Vectors]:
        """Returns the right-hand side of the reduced system from that of the full one."""
        first, second, _ = self._move(system, first, second)
        folded = first.copy() if self.reduction.stacks else first
        for stack, (F, _, d, a) in zip(self.reduction.stacks, self.affine, strict=True):
            folded[:, stack.support] += _adjoint(F, first[:, stack.columns] - d * second[:, stack.rows] / a)
        kept = second[:, self.reduction.kept[1]]
        return self.reduction.gathered(folded), kept if is_shared(kept) else np.ascontiguousarray(kept)

    def expand(
        self, system: System, u: tuple[Vectors, Vectors], rhs: tuple[Vectors, Vectors]
    ) -> tuple[Vectors, Vectors]:
        """Returns the solution of the full system from that of the reduced one, u, and the full right-hand side."""
        rhs_first, rhs_second, first = self._move(system, *rhs)
        second = np.zeros(rhs_second.shape)
        variables, rows = self.reduction.kept
        first[:, variables], second[:, rows] = u
        for stack, (F, _, d, a) in zip(self.reduction.stacks, self.affine, strict=True):
            t = rhs_second[:, stack.rows] / a + _apply(F, first[:, stack.support])
            first[:, stack.columns] = t
            second[:, stack.rows] = (rhs_first[:, stack.columns] - d * t) / a
        full, fixed, copies = self.full, self.reduction.fixed, self.reduction.copies
        P, A = full.structure.P, full.structure.A
        if len(copies.rows):
            first[:, copies.runs[1]] += copies.scaled.apply(first)
        if len(copies.rows) or len(fixed.rows):
            slope = P.matvec(full.P, first)
            rows, columns, pivots = copies.runs
            second[:, rows] = (rhs[0][:, columns] - slope[:, columns]) / full.A[:, pivots]
            if len(fixed.rows):
                slope += A.rmatvec(full.A, system.from_eigen(second))
                second[:, fixed.rows] = (rhs[0] - slope)[:, fixed.columns] / full.A[:, fixed.pivots]
        return first, second

    def carry(self, x: Vectors) -> Vectors:
        """Returns what the full variables do where the reduced ones move along x, and the data stay."""
        moved = np.zeros((len(x), self.full.structure.n))
        moved[:, self.reduction.kept_variables] = x
        for stack, (F, _, _, _) in zip(self.reduction.stacks, self.affine, strict=True):
            moved[:, stack.columns] = _apply(F, moved[:, stack.support])
        copies = self.reduction.copies
        if len(copies.rows):
            moved[:, copies.columns] = copies.scaled.apply(moved)
        return moved

    def _move(self, system: System, first: Vectors, second: Vectors) -> tuple[Vectors, Vectors, Vectors]:
        """Moves what is known of fixed variables and copies to the right-hand sides, and returns it too."""
        full, fixed, copies = self.full, self.reduction.fixed, self.reduction.copies
        x = np.zeros(first.shape)
        if not is_moving(second):
            return first, second, x
        if len(fixed.rows):
            x[:, fixed.columns] = second[:, fixed.rows] / full.A[:, fixed.pivots]
            if some(x):
                second = second - system.to_eigen(full.structure.A.matvec(full.A, x))
        if len(copies.rows):
            x[:, copies.runs[1]] = copies.constants(second, full.A)
        if some(x):
            first = first - full.structure.P.matvec(full.P, x)
        return first, second, x


def _affine(stack: Stack, program: ConeProgram) -> _Affine:
    a = program.A.take(stack.pivots, axis=1)
    F = stack.coefficients(program.A)
    if some(a != -1.0):
        F = F / -a[..., None]
    squares = np.where(stack.squares >= 0, program.P[:, stack.squares], 0.0) if stack.squared else np.zeros(a[:1].shape)
    return _Affine(F, program.b[:, stack.rows] / a, squares, a)


def _side_by_side(parts: Sequence[Values]) -> Values:
    """Concatenates the columns, for the items that the parts have in common."""
    if len(parts) == 1:
        return parts[0]
    length = _common_length(*parts)
    return np.concatenate([spread_rows(part, length) for part in parts], axis=1)


def _items(array: Float[np.ndarray, "#batch ..."], index: slice | Index) -> Float[np.ndarray, "..."]:
    if len(array) == 1:
        return array
    if array.ndim > 2 and array.strides[-2] < array.strides[-1]:
        # Matrices that lie column by column stay so: the memory order decides how a product is rounded.
        return np.swapaxes(np.swapaxes(array, -1, -2)[index], -1, -2)
    return array[index]


def _common_length(*arrays: Float[np.ndarray, "..."]) -> int:
    """Returns the length of the batch axis to which those of length one broadcast."""
    return next((len(array) for array in arrays if len(array) != 1), 1)


def _apply(F: Float[np.ndarray, "#batch _g _k _p"], x: Stacked) -> Stacked:
    # The memory order of a vector decides how a product is rounded, and indexing leaves it to the batch.
    return _product(F, np.ascontiguousarray(x)[..., None])[..., 0]


def _adjoint(F: Float[np.ndarray, "#batch _g _k _p"], t: Stacked) -> Stacked:
    return _product(np.ascontiguousarray(t)[..., None, :], F)[..., 0, :]


def _product(left: Float[np.ndarray, "..."], right: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Returns the matrix product; that of a column and a row without the overhead of one product for each."""
    return left * right if left.shape[-1] == 1 else np.matmul(left, right)

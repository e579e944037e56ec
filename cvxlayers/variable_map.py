"""Maps from the solutions of programs to variables and dual variables, and what these belong to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import scipy.sparse as sp

from cvxlayers.batches import Vectors
from cvxlayers.linear_map import LinearMap
from cvxlayers.parameter_map import Array, user_shapes


@dataclass(frozen=True, eq=False)
class VariableMap:
    """The listed variables as linear maps of x and y, C order; exponentiated where `exps` says so.

    Attributes:
        names: the names of the variables.
        shapes: their shapes.
        x: rows of all variables, stacked, times the program's variables.
        y: the same rows times the program's dual variables.
        exps: for geometric programs, whether the variable is the exponential of its rows.
        complexes: whether the variable is complex: its last axis, of length two, then holds real and imaginary part.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    x: LinearMap
    y: LinearMap
    exps: tuple[bool, ...]
    complexes: tuple[bool, ...] = ()

    @cached_property
    def user_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes as users see them: without the axis of real and imaginary parts."""
        return user_shapes(self.shapes, self.complexes)

    def select(self, positions: Sequence[int]) -> VariableMap:
        """Returns the map of some of the variables, in the order given."""
        sizes = [int(np.prod(shape)) for shape in self.shapes]
        starts = np.cumsum([0, *sizes])
        pieces = [np.arange(starts[position], starts[position] + sizes[position]) for position in positions]
        rows = np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int64)
        return VariableMap(
            names=tuple(self.names[position] for position in positions),
            shapes=tuple(self.shapes[position] for position in positions),
            x=LinearMap(sp.csr_array(self.x.matrix[rows])),
            y=LinearMap(sp.csr_array(self.y.matrix[rows])),
            exps=tuple(self.exps[position] for position in positions),
            complexes=tuple(self.complexes[position] for position in positions) if self.complexes else (),
        )

    def recover(self, x: Vectors, y: Vectors) -> list[Array]:
        """Returns the value of each variable, of shape (batch, *shape); nothing of it is part of x or y."""
        stacked = self.linear(x, y)
        parts = self.shaped(x.copy() if stacked is x else stacked)
        with np.errstate(over="ignore"):  # infinite outputs are told of
            return [np.exp(part) if exp else part for part, exp in zip(parts, self.exps, strict=True)]

    def tangent(self, x: Vectors, y: Vectors, dx: Vectors, dy: Vectors) -> list[Array]:
        """Returns the tangent of each variable for tangents of x and y."""
        tangents = self._parts(dx, dy)
        if not any(self.exps):
            return tangents
        outputs = self.recover(x, y)
        return [out * part if exp else part for out, part, exp in zip(outputs, tangents, self.exps, strict=True)]

    def second_tangent(
        self, at: tuple[Vectors, Vectors], first: tuple[Vectors, Vectors], second: tuple[Vectors, Vectors]
    ) -> list[Array]:
        """Returns the second derivative of each variable at (x, y) along two tangents of (x, y)."""
        columns = (self.recover(*at), self._parts(*first), self._parts(*second))
        rows = zip(*columns, self.exps, strict=True)
        return [out * one * other if exp else np.zeros(out.shape) for out, one, other, exp in rows]

    def adjoint_tangent(
        self, at: tuple[Vectors, Vectors], motion: tuple[Vectors, Vectors], cotangents: Sequence[Array | None]
    ) -> tuple[Vectors, Vectors]:
        """Returns the derivative of `adjoint` as (x, y) moves and the cotangents of the variables stay."""
        rows = zip(self._parts(*motion), cotangents, self.exps, strict=True)
        moved = [part * cotangent if exp and cotangent is not None else None for part, cotangent, exp in rows]
        x, y = self.adjoint(*at, moved)
        return x, np.broadcast_to(y, (len(x), y.shape[1]))

    def adjoint(self, x: Vectors, y: Vectors, cotangents: Sequence[Array | None]) -> tuple[Vectors, Vectors]:
        """Returns the cotangents of x and y for cotangents of the variables, of shape (batch, *shape); None is zero.

        Where no variable is a dual one, that of y is zero, and has a batch axis of one.
        """
        if any(self.exps):
            rows = zip(cotangents, self.recover(x, y), self.exps, strict=True)
            cotangents = [c * output if exp and c is not None else c for c, output, exp in rows]
        stacked = self.stacked(cotangents, len(x))
        return self.x.adjoint(stacked), self.y.adjoint(stacked if self.y.matrix.nnz else stacked[:1])

    def linear(self, x: Vectors, y: Vectors) -> Vectors:
        """Returns the rows of all variables, side by side."""
        stacked = self.x.apply(x)
        return stacked + self.y.apply(y) if self.y.matrix.nnz else stacked

    def shaped(self, stacked: Vectors) -> list[Array]:
        """Takes arrays of shape (batch, *shape), one for each variable, out of such rows."""
        batch, rows = len(stacked), zip(self._columns, self.shapes, strict=True)
        return [stacked[:, columns].reshape((batch, *shape)) for columns, shape in rows]

    def stacked(self, arrays: Sequence[Array | None], batch: int) -> Vectors:
        """Puts such arrays side by side, the inverse of `shaped`; None is zero."""
        sizes = [columns.stop - columns.start for columns in self._columns]
        rows = [
            np.zeros((batch, size)) if array is None else array.reshape((batch, size))
            for array, size in zip(arrays, sizes, strict=True)
        ]
        if len(rows) == 1:
            return rows[0]
        return np.concatenate(rows, axis=1) if rows else np.zeros((batch, 0))

    @cached_property
    def _columns(self) -> list[slice]:
        """The rows of each variable."""
        edges = np.cumsum([0, *(math.prod(shape) for shape in self.shapes)]).tolist()
        return [slice(start, stop) for start, stop in pairwise(edges)]

    def _parts(self, x: Vectors, y: Vectors) -> list[Array]:
        return self.shaped(self.linear(x, y))


@dataclass(frozen=True)
class Owner:
    """What one row of `Leaves` belongs to: a variable, or a dual variable of a constraint.

    Attributes:
        identity: CVXPY's id of the variable or of the constraint.
        names: the names by which it is found.
        dual: whether it is a dual variable.
    """

    identity: int
    names: tuple[str, ...]
    dual: bool


@dataclass(frozen=True, eq=False)
class Leaves:
    """Every variable and every dual variable of a problem, for results that hold them all.

    Attributes:
        map: their maps, in the order of `owners`.
        owners: what each belongs to; a constraint may own several.
        listed: the positions of the layer's own outputs.
    """

    map: VariableMap
    owners: tuple[Owner, ...]
    listed: tuple[int, ...]

"""A compiled problem: plain arrays that map parameters to a cone program and its solution to variables.

Nothing here needs CVXPY. Every map is linear or affine, a sparse matrix with its transpose beside it, apart from the
logarithms and exponentials of geometric programs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float

from cvxlayers.batches import Values, Vectors, is_large
from cvxlayers.linear_map import LinearMap
from cvxlayers.parameter_map import Array, ParameterMap, Theta, user_shapes
from cvxlayers.program import ConeProgram, Structure


@dataclass(frozen=True, eq=False)
class AffineMap:
    """theta ↦ M theta + constant, evaluated once for the whole batch where only shared parameters enter.

    Attributes:
        linear: M.
        constant: the values at theta = 0.
        blocks: the columns of theta that belong to each parameter.
    """

    linear: LinearMap
    constant: Float[np.ndarray, " rows"]
    blocks: tuple[slice, ...]

    @cached_property
    def depends(self) -> tuple[bool, ...]:
        """Which parameters enter."""
        return tuple(bool(self.linear.inputs[block].any()) for block in self.blocks)

    @property
    def constant_values(self) -> Float[np.ndarray, " rows"] | None:
        """The values where no parameter enters, else None."""
        return None if any(self.depends) else self.constant

    def apply(self, theta: Theta) -> Values:
        """Returns the values, with a leading axis of one where all items share them."""
        if not self.parts:
            return self.constant[None]
        count = 1 if all(theta.shared[index] for index in self.parts) else theta.batch
        rows = [theta.blocks[index][:count] for index in self.parts]
        if self._is_scattered and is_large(count * len(self.constant)):
            values = np.empty((count, len(self.constant)))
            values[:] = self.constant
            for part, block in zip(self.parts.values(), rows, strict=True):
                part.put(block, values)
            return values
        values = self._used.apply(rows[0] if len(rows) == 1 else np.concatenate(rows, axis=1))
        if values is rows[0]:
            # The caller's array may change before the backward pass.
            values = values.copy()
        if self._offset is not None:
            place, constants = self._offset
            part = values[:, place]
            np.add(part, constants, out=part)
        return values

    def tangent(self, dtheta: Vectors) -> Values:
        """Returns M dtheta."""
        return self.linear.apply(dtheta)

    def adjoint(self, dvalues: Values) -> Vectors:
        """Returns Mᵀ dvalues."""
        return self.linear.adjoint(dvalues)

    @cached_property
    def parts(self) -> dict[int, LinearMap]:
        """The columns of M for each parameter that enters."""
        entering = [index for index, enters in enumerate(self.depends) if enters]
        return {index: self.linear.columns(self.blocks[index]) for index in entering}

    @cached_property
    def _used(self) -> LinearMap:
        parts = [part.matrix for part in self.parts.values()]
        return LinearMap(sp.csr_array(sp.hstack(parts)))

    @cached_property
    def _is_scattered(self) -> bool:
        """Whether each row is a constant, or a multiple of one entry of one parameter; the rows of each are a view."""
        counts = np.diff(self.linear.matrix.indptr)
        apart = len(self.parts) > 1 and bool(counts.max() == 1 and not np.any(self.constant[counts > 0]))
        return apart and all(part.fills_view for part in self.parts.values())

    @cached_property
    def _offset(self) -> tuple[slice, Float[np.ndarray, " _count"]] | None:
        """The rows from the first constant that is not zero to the last, and theirs; None where all are zero."""
        filled = np.flatnonzero(self.constant)
        if not len(filled):
            return None
        place = slice(int(filled[0]), int(filled[-1]) + 1)
        return place, self.constant[place]


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


@dataclass(frozen=True, eq=False)
class CompiledProblem:
    """A problem in conic form, as maps from its parameters and to its variables.

    Attributes:
        structure: sizes, patterns and the cone.
        parameters: the user's values ↔ theta.
        variables: the program's x and y → the variables that the user listed.
        leaves: the program's x and y → all variables and dual variables.
        P: theta → stored entries of P.
        q: theta → q.
        A: theta → stored entries of A.
        b: theta → b.
        offset: theta → the constant of the objective.
        maximise: whether the program minimises the negated objective.
        gp: whether the problem is geometric: the program minimises the logarithm of the objective.
    """

    structure: Structure
    parameters: ParameterMap
    variables: VariableMap
    leaves: Leaves
    P: AffineMap
    q: AffineMap
    A: AffineMap
    b: AffineMap
    offset: AffineMap
    maximise: bool
    gp: bool

    def program(self, theta: Theta) -> ConeProgram:
        """Returns the cone program of each item."""
        data = (self.P.apply(theta), self.q.apply(theta), self.A.apply(theta), self.b.apply(theta))
        return ConeProgram(self.structure, theta.batch, *data)

    @property
    def names_in_costs(self) -> list[str]:
        """The parameters on which q depends."""
        return [name for name, enters in zip(self.parameters.names, self.q.depends, strict=True) if enters]

    @cached_property
    def depends(self) -> tuple[bool, bool, bool, bool]:
        """Whether any parameter enters P, q, A and b."""
        P, q, A, b = (any(affine.depends) for affine in (self.P, self.q, self.A, self.b))
        return P, q, A, b

    def tangent(self, dtheta: Vectors) -> tuple[Values, Vectors, Values, Vectors]:
        """Returns the tangents of P, q, A and b."""
        return self.P.tangent(dtheta), self.q.tangent(dtheta), self.A.tangent(dtheta), self.b.tangent(dtheta)

    def adjoint(self, P: Values, q: Vectors, A: Values, b: Vectors) -> Vectors:
        """Returns the cotangent of theta for cotangents of P, q, A and b."""
        out = np.zeros((len(q), self.parameters.width))
        self.pull(P, q, A, b, self.parameters.split(out))
        return out

    def pull(self, P: Values, q: Vectors, A: Values, b: Vectors, out: Sequence[Vectors]) -> None:
        """Writes the cotangents of theta's blocks for cotangents of P, q, A and b to `out`, arrays of zeros."""
        maps = (self.P, self.q, self.A, self.b)
        for affine, cotangent, alone in zip(maps, (P, q, A, b), self._alone, strict=True):
            for index, part in affine.parts.items():
                part.add_adjoint(cotangent, out[index], blank=alone[index])

    @cached_property
    def blocks_of_P(self) -> frozenset[int]:
        """The positive semidefinite parameters that are, but for a factor, principal submatrices of P.

        Where P is positive definite, so are they.
        """
        definite = [k for k, domain in enumerate(self.parameters.domains) if domain and domain.definite > 0]
        return frozenset(k for k in definite if k in self.P.parts and self._is_block_of_P(k))

    def _is_block_of_P(self, index: int) -> bool:
        """Whether P holds a multiple of the parameter, and nothing else in these entries. A random value tells."""
        part, order = self.P.parts[index].matrix, math.isqrt(self.parameters.sizes[index])
        touched = np.flatnonzero(np.diff(part.indptr))
        if self.P.constant[touched].any() or np.diff(self.P.linear.matrix.indptr - part.indptr)[touched].any():
            return False
        value = np.random.default_rng(0).uniform(1.0, 2.0, size=(order, order))
        value = value + value.T
        P = self.structure.P.dense((part @ value.ravel())[None])[0]
        rows = np.flatnonzero(np.diagonal(P))
        if len(rows) != order or np.count_nonzero(P) != order**2:
            return False
        factor = P[rows[0], rows[0]] / value[0, 0]
        return bool(factor > 0 and np.allclose(P[np.ix_(rows, rows)], factor * value, rtol=1e-12, atol=0.0))

    @cached_property
    def _alone(self) -> list[dict[int, bool]]:
        """For P, q, A and b: by parameter, whether the entries that enter there enter none of the others."""
        maps = (self.P, self.q, self.A, self.b)
        often = np.sum([affine.linear.inputs for affine in maps], axis=0) > 1
        blocks = self.parameters.blocks
        return [
            {index: not bool(np.any((affine.linear.inputs & often)[blocks[index]])) for index in affine.parts}
            for affine in maps
        ]

"""A compiled problem: plain arrays that map parameters to a cone program and its solution to variables.

Nothing here needs CVXPY. Every map is linear or affine, a sparse matrix with its transpose beside it, apart from the
logarithms and exponentials of geometric programs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from cvxlayers.errors import InputError, ShapeError
from cvxlayers.program import ConeProgram, Structure, Values, Vectors

Array = Float[np.ndarray, "..."]


@dataclass(frozen=True, eq=False)
class _Gather:
    """A sparse matrix with at most two entries in a row, as sums of gathered columns: faster than a sparse product.

    Attributes:
        filled: the rows that have entries; None where all have.
        columns: the column of each such row's first entry, and of its second where any row has two.
        coefficients: the entries' values, or one number where all are equal.
        count: the number of rows.
    """

    filled: Int[np.ndarray, " filled"] | slice | None
    columns: tuple[Int[np.ndarray, " filled"], ...]
    coefficients: tuple[Float[np.ndarray, " filled"], ...] | float
    count: int

    def product(self, v: Vectors) -> Vectors:
        """Returns the filled rows of M v for each item."""
        parts = [np.take(v, columns, axis=1) for columns in self.columns]
        if isinstance(self.coefficients, tuple):
            for part, coefficients in zip(parts, self.coefficients, strict=True):
                part *= coefficients
        if len(parts) == 2:
            parts[0] += parts[1]
        if isinstance(self.coefficients, float) and self.coefficients != 1.0:
            parts[0] *= self.coefficients
        return parts[0]


def _gather(matrix: sp.csr_array) -> _Gather | None:
    """Returns the matrix as a gather, or None where a row has more than two entries, or none has any."""
    counts = np.diff(matrix.indptr)
    filled = np.flatnonzero(counts)
    if not len(filled) or counts.max() > 2:
        return None
    first, double = matrix.indptr[filled], counts[filled] == 2
    second = np.where(double, first + 1, first)
    # A lone entry beside pairs counts as two halves.
    halves = np.where(double | ~double.any(), 1.0, 0.5)
    places = (first, second) if double.any() else (first,)
    values = [matrix.data[place] * halves for place in places]
    uniform = all(np.all(value == values[0][0]) for value in values)
    contiguous = filled[-1] - filled[0] + 1 == len(filled)
    place = slice(int(filled[0]), int(filled[-1]) + 1) if contiguous else filled
    return _Gather(
        filled=None if len(filled) == len(counts) else place,
        columns=tuple(matrix.indices[position] for position in places),
        coefficients=float(values[0][0]) if uniform else tuple(values),
        count=len(counts),
    )


@dataclass(frozen=True, eq=False)
class LinearMap:
    """A sparse matrix that acts on batches of row vectors, and its adjoint."""

    matrix: sp.csr_array

    def apply(self, v: Vectors) -> Vectors:
        """Returns M v for each item."""
        gather = self._forward
        if gather is not None and gather.filled is None:
            return gather.product(v)
        out = np.zeros((len(v), self.matrix.shape[0]))
        _accumulate(out, self.matrix, gather, v)
        return out

    def adjoint(self, w: Vectors) -> Vectors:
        """Returns Mᵀ w for each item."""
        out = np.zeros((len(w), self.matrix.shape[1]))
        self.add_adjoint(w, out)
        return out

    def add_adjoint(self, w: Vectors, out: Vectors) -> None:
        """Adds Mᵀ w to `out`."""
        _accumulate(out, self._transposed, self._backward, w)

    @cached_property
    def _transposed(self) -> sp.csr_array:
        return sp.csr_array(self.matrix.T)

    @cached_property
    def _forward(self) -> _Gather | None:
        return _gather(self.matrix)

    @cached_property
    def _backward(self) -> _Gather | None:
        return _gather(self._transposed)


def _accumulate(
    out: Vectors, matrix: sp.csr_array, gather: _Gather | None, v: Vectors
) -> None:
    if gather is not None:
        out[:, slice(None) if gather.filled is None else gather.filled] += gather.product(v)
    elif matrix.nnz:
        out += (matrix @ v.T).T


@dataclass(frozen=True, eq=False)
class Theta:
    """The values of all parameters of a call, one row an item; `shared` tells which have no batch axes of their own."""

    values: Vectors
    shared: tuple[bool, ...]


@dataclass(frozen=True, eq=False)
class AffineMap:
    """theta ↦ M theta + constant, evaluated once for the whole batch where only shared parameters enter."""

    linear: LinearMap
    constant: Float[np.ndarray, " rows"]
    depends: tuple[bool, ...]

    @property
    def constant_values(self) -> Float[np.ndarray, " rows"] | None:
        """The values where no parameter enters, else None."""
        return None if any(self.depends) else self.constant

    def apply(self, theta: Theta) -> Values:
        """Returns the values, with a leading axis of one where all items share them."""
        if not any(self.depends):
            return self.constant[None]
        shared = all(known for known, needed in zip(theta.shared, self.depends, strict=True) if needed)
        values = self.linear.apply(theta.values[:1] if shared else theta.values)
        return values + self.constant if self._has_constant else values

    def tangent(self, dtheta: Vectors) -> Values:
        """Returns M dtheta."""
        return self.linear.apply(dtheta)

    def adjoint(self, dvalues: Values) -> Vectors:
        """Returns Mᵀ dvalues."""
        return self.linear.adjoint(dvalues)

    @cached_property
    def _has_constant(self) -> bool:
        return bool(np.any(self.constant))


@dataclass(frozen=True, eq=False)
class ParameterMap:
    """The user's parameters as columns of theta: each raveled in C order, then the logarithms of those in `logs`.

    Attributes:
        names: the names of the parameters, in the order of a call.
        shapes: their shapes.
        logs: for geometric programs, whether the logarithm of the parameter enters.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    logs: tuple[bool, ...]

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """The number of entries of each parameter."""
        return tuple(int(np.prod(shape)) for shape in self.shapes)

    @cached_property
    def columns(self) -> list[slice]:
        """The columns of each parameter."""
        stops = np.cumsum(self.sizes).tolist()
        return [slice(stop - size, stop) for size, stop in zip(self.sizes, stops, strict=True)]

    @cached_property
    def log_columns(self) -> list[slice | None]:
        """The columns of each parameter's logarithm, None where it does not enter."""
        start, found = sum(self.sizes), []
        for size, log in zip(self.sizes, self.logs, strict=True):
            found.append(slice(start, start + size) if log else None)
            start += size if log else 0
        return found

    @property
    def width(self) -> int:
        """The number of columns of theta."""
        return sum(self.sizes) + sum(size for size, log in zip(self.sizes, self.logs, strict=True) if log)

    def flatten(self, values: Sequence[Array]) -> tuple[Theta, tuple[int, ...]]:
        """Stacks the values of a call into theta.

        Returns:
            theta, and the shape of the batch: the broadcast leading axes of the values.

        Raises:
            ShapeError: if the number of values, their shapes or their batch axes do not fit.
            InputError: if a parameter whose logarithm enters is not positive.
        """
        leads = self._leads(values)
        batch_shape = self._batch_shape(leads)
        batch = int(np.prod(batch_shape))
        theta = np.empty((batch, self.width))
        for value, lead, columns in zip(values, leads, self.columns, strict=True):
            theta[:, columns] = _fold(value, lead, batch_shape)
        for name, columns, logs in zip(self.names, self.columns, self.log_columns, strict=True):
            if logs is not None:
                theta[:, logs] = _log(name, theta[:, columns])
        return Theta(theta, tuple(int(np.prod(lead)) == 1 for lead in leads)), batch_shape

    def tangent(
        self, values: Sequence[Array], tangents: Sequence[Array | None], batch_shape: tuple[int, ...]
    ) -> Vectors:
        """Returns the tangent of theta for tangents of the values; None is zero."""
        dtheta = np.zeros((int(np.prod(batch_shape)), self.width))
        rows = zip(values, tangents, self.shapes, self.columns, self.log_columns, strict=True)
        for value, tangent, shape, columns, logs in rows:
            if tangent is None:
                continue
            lead = tangent.shape[: tangent.ndim - len(shape)]
            dtheta[:, columns] = _fold(tangent, lead, batch_shape)
            if logs is not None:
                dtheta[:, logs] = dtheta[:, columns] / _fold(value, lead, batch_shape)
        return dtheta

    def adjoint(self, values: Sequence[Array], dtheta: Vectors, batch_shape: tuple[int, ...]) -> list[Array]:
        """Returns the cotangent of each value, of its shape: summed over the axes along which it was broadcast."""
        gradients = []
        rows = zip(values, self.shapes, self.columns, self.log_columns, strict=True)
        for value, shape, columns, logs in rows:
            lead = value.shape[: value.ndim - len(shape)]
            gradient = dtheta[:, columns]
            if logs is not None:
                flat = _fold(value, lead, batch_shape)
                # A masked item's cotangent is exactly zero, also where its parameter is zero or NaN.
                masked = dtheta[:, logs] == 0
                gradient = gradient + np.where(masked, 0.0, dtheta[:, logs] / np.where(masked, 1.0, flat))
            gradients.append(_sum_to(gradient.reshape(batch_shape + shape), lead + shape, len(batch_shape)))
        return gradients

    def _leads(self, values: Sequence[Array]) -> list[tuple[int, ...]]:
        if len(values) != len(self.names):
            raise ShapeError(
                "A tensor must be provided for each CVXPY parameter: "
                f"received {len(values)}, expected {len(self.names)} ({', '.join(self.names) or 'none'})"
            )
        leads = []
        for index, (name, shape, value) in enumerate(zip(self.names, self.shapes, values, strict=True)):
            lead = value.ndim - len(shape)
            if lead < 0:
                raise ShapeError(
                    f"Invalid parameter dimensionality for parameter {name!r} (#{index}): got {value.ndim} axes, shape "
                    f"{value.shape}; expected at least {len(shape)}, shape {_described(shape)}"
                )
            if value.shape[lead:] != shape:
                hint = "; its last two axes look transposed" if _transposed(value.shape[lead:], shape) else ""
                raise ShapeError(
                    f"Invalid parameter shape for parameter {name!r} (#{index}): got {value.shape}, expected "
                    f"{_described(shape)}{hint}"
                )
            leads.append(value.shape[:lead])
        return leads

    def _batch_shape(self, leads: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
        try:
            return np.broadcast_shapes(*leads)
        except ValueError:
            found = ", ".join(f"{name!r}: {lead}" for name, lead in zip(self.names, leads, strict=True) if lead)
            raise ShapeError(
                f"Inconsistent batch sizes: the leading axes of the parameters do not broadcast ({found})"
            ) from None


@dataclass(frozen=True, eq=False)
class VariableMap:
    """The listed variables as linear maps of x and y, C order; exponentiated where `exps` says so.

    Attributes:
        names: the names of the variables.
        shapes: their shapes.
        x: rows of all variables, stacked, times the program's variables.
        y: the same rows times the program's dual variables.
        exps: for geometric programs, whether the variable is the exponential of its rows.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    x: LinearMap
    y: LinearMap
    exps: tuple[bool, ...]

    def recover(self, x: Vectors, y: Vectors) -> list[Array]:
        """Returns the value of each variable, of shape (batch, *shape)."""
        return [np.exp(part) if exp else part for part, exp in zip(self._parts(x, y), self.exps, strict=True)]

    def tangent(self, x: Vectors, y: Vectors, dx: Vectors, dy: Vectors) -> list[Array]:
        """Returns the tangent of each variable for tangents of x and y."""
        tangents = self._parts(dx, dy)
        if not any(self.exps):
            return tangents
        outputs = self.recover(x, y)
        return [out * part if exp else part for out, part, exp in zip(outputs, tangents, self.exps, strict=True)]

    def adjoint(self, x: Vectors, y: Vectors, cotangents: Sequence[Array | None]) -> tuple[Vectors, Vectors]:
        """Returns the cotangents of x and y for cotangents of the variables, of shape (batch, *shape); None is zero."""
        batch = len(x)
        outputs = self.recover(x, y) if any(self.exps) else [None] * len(self.exps)
        rows = []
        for cotangent, shape, exp, output in zip(cotangents, self.shapes, self.exps, outputs, strict=True):
            if cotangent is None:
                rows.append(np.zeros((batch, int(np.prod(shape)))))
            else:
                scaled = cotangent * output if exp else cotangent
                rows.append(scaled.reshape((batch, int(np.prod(shape)))))
        stacked = np.concatenate(rows, axis=1) if rows else np.zeros((batch, 0))
        return self.x.adjoint(stacked), self.y.adjoint(stacked)

    def _parts(self, x: Vectors, y: Vectors) -> list[Array]:
        stacked = self.x.apply(x)
        if self.y.matrix.nnz:
            stacked = stacked + self.y.apply(y)
        stops = np.cumsum([int(np.prod(shape)) for shape in self.shapes]).tolist()
        parts = np.split(stacked, stops[:-1], axis=1) if stops else []
        return [part.reshape((len(x), *shape)) for part, shape in zip(parts, self.shapes, strict=True)]


@dataclass(frozen=True, eq=False)
class CompiledProblem:
    """A problem in conic form, as maps from its parameters and to its variables.

    Attributes:
        structure: sizes, patterns and the cone.
        parameters: the user's values ↔ theta.
        variables: the program's x and y → the user's variables.
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
        return ConeProgram(self.structure, len(theta.values), *data)

    def tangent(self, dtheta: Vectors) -> tuple[Values, Vectors, Values, Vectors]:
        """Returns the tangents of P, q, A and b."""
        return self.P.tangent(dtheta), self.q.tangent(dtheta), self.A.tangent(dtheta), self.b.tangent(dtheta)

    def adjoint(self, P: Values, q: Vectors, A: Values, b: Vectors) -> Vectors:
        """Returns the cotangent of theta for cotangents of P, q, A and b."""
        total = np.zeros((len(q), self.parameters.width))
        for affine, cotangent in ((self.P, P), (self.q, q), (self.A, A), (self.b, b)):
            affine.linear.add_adjoint(cotangent, total)
        return total


def _fold(value: Array, lead: tuple[int, ...], batch_shape: tuple[int, ...]) -> Vectors:
    """Broadcasts the leading axes to the batch, makes them one, and ravels the rest."""
    size = int(np.prod(value.shape[len(lead) :]))
    flat = value.reshape((*lead, size))
    return np.broadcast_to(flat, (*batch_shape, size)).reshape((int(np.prod(batch_shape)), size))


def _sum_to(gradient: Array, shape: tuple[int, ...], batch_axes: int) -> Array:
    missing = gradient.ndim - len(shape)
    stretched = [
        missing + axis for axis in range(batch_axes - missing) if shape[axis] == 1 and gradient.shape[missing + axis] != 1
    ]
    axes = (*range(missing), *stretched)
    return gradient.sum(axis=axes, keepdims=True).reshape(shape) if axes else gradient


def _log(name: str, values: Vectors) -> Vectors:
    bad = np.flatnonzero((values <= 0).any(axis=1))
    if len(bad):
        raise InputError(
            f"parameter {name!r} of a geometric program must be positive: {len(bad)} of {len(values)} items have entries "
            f"down to {values[bad].min():.3g} (items {bad[:8].tolist()})"
        )
    return np.log(values)


def _transposed(got: tuple[int, ...], want: tuple[int, ...]) -> bool:
    return len(want) >= 2 and got == (*want[:-2], want[-1], want[-2])


def _described(shape: tuple[int, ...]) -> str:
    return f"{shape} or (*batch{''.join(f', {size}' for size in shape)})"

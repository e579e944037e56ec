"""The parameters of a call as rows of theta, and back: shapes, batch axes, and the logarithms of geometric programs."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float

from cvxlayers.batches import Vectors
from cvxlayers.domain import Domain
from cvxlayers.errors import DomainError, ShapeError

Array = Float[np.ndarray, "..."]

# Beside values below the second, what a logarithm moves may underflow: what is smaller than the first has lost digits.
UNDERFLOW = np.finfo(float).tiny
_FAINT = UNDERFLOW / np.finfo(float).eps


@dataclass(frozen=True, eq=False)
class Theta:
    """The values of all parameters of a call, a block for each, one row an item; they may be views of the caller's.

    Attributes:
        blocks: each parameter raveled in C order, then its logarithm where that enters.
        shared: which parameters have no batch axes of their own.
        batch: the number of rows.
    """

    blocks: tuple[Vectors, ...]
    shared: tuple[bool, ...]
    batch: int

    @property
    def values(self) -> Vectors:
        """All blocks side by side."""
        return np.concatenate([np.zeros((self.batch, 0)), *self.blocks], axis=1)


@dataclass(frozen=True, eq=False)
class ParameterMap:
    """The user's parameters as columns of theta: each raveled in C order, then its logarithm if it is one of `logs`.

    Attributes:
        names: the names of the parameters, in the order of a call.
        shapes: their shapes.
        logs: for geometric programs, whether the logarithm of the parameter enters.
        domains: the values that each allows; None where all are.
        complexes: whether it is complex: its last axis, of length two, then holds real and imaginary part.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    logs: tuple[bool, ...]
    domains: tuple[Domain | None, ...] = ()
    complexes: tuple[bool, ...] = ()

    @cached_property
    def user_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes as users see them: without the axis of real and imaginary parts."""
        return user_shapes(self.shapes, self.complexes)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """The number of entries of each parameter."""
        return tuple(int(np.prod(shape)) for shape in self.shapes)

    @cached_property
    def columns(self) -> list[slice]:
        """The columns of each parameter."""
        return [slice(b.start, b.start + size) for b, size in zip(self.blocks, self.sizes, strict=True)]

    @cached_property
    def log_columns(self) -> list[slice | None]:
        """The columns of each parameter's logarithm, None where it does not enter."""
        found = zip(self.columns, self.blocks, self.logs, strict=True)
        return [slice(raw.stop, block.stop) if log else None for raw, block, log in found]

    @cached_property
    def blocks(self) -> tuple[slice, ...]:
        """The columns of each parameter together with those of its logarithm."""
        widths = [size * (1 + log) for size, log in zip(self.sizes, self.logs, strict=True)]
        stops = np.cumsum(widths).tolist()
        return tuple(slice(stop - width, stop) for width, stop in zip(widths, stops, strict=True))

    @property
    def width(self) -> int:
        """The number of columns of theta."""
        return self.blocks[-1].stop if self.blocks else 0

    def split(self, theta: Vectors) -> list[Vectors]:
        """Returns views of the parameters' blocks."""
        return [theta[:, block] for block in self.blocks]

    def flatten(self, values: Sequence[Array]) -> tuple[Theta, tuple[int, ...]]:
        """Folds the values of a call into theta.

        Returns:
            theta, and the shape of the batch: the broadcast leading axes of the values.

        Raises:
            ShapeError: if the number of values, their shapes or their batch axes do not fit.
            DomainError: if a parameter whose logarithm enters is not positive.
        """
        leads = self.leads([value.shape for value in values])
        batch_shape = self.batch_shape(leads)
        blocks = [_fold(value, lead, batch_shape) for value, lead in zip(values, leads, strict=True)]
        if any(self.logs):
            blocks = [
                np.concatenate([block, _log(name, block)], axis=1) if log else block
                for name, block, log in zip(self.names, blocks, self.logs, strict=True)
            ]
        shared = tuple(math.prod(lead) == 1 for lead in leads)
        return Theta(tuple(blocks), shared, math.prod(batch_shape)), batch_shape

    def check(self, values: Sequence[Array], definite: Collection[int] = ()) -> None:
        """Checks the values of a call, whose shapes fit, against the attributes of the parameters.

        Args:
            values: the values.
            definite: parameters whose definiteness is known, or found out otherwise.

        Raises:
            DomainError: if a value is not allowed.
        """
        for index, domain in enumerate(self.domains):
            if domain is not None:
                known = domain.without_definite if index in definite else domain
                known.check(f"parameter {self.names[index]!r} (#{index})", values[index].reshape(-1, self.sizes[index]))

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
                dtheta[:, logs] = dtheta[:, columns] / self._flat(value, shape, batch_shape)
        return dtheta

    def second_tangent(
        self, values: Sequence[Array], first: Vectors, second: Vectors, batch_shape: tuple[int, ...]
    ) -> Vectors:
        """Returns the second derivative of theta along two tangents of the values, given as tangents of theta."""
        curvature = np.zeros(first.shape)
        for value, shape, columns, logs in zip(values, self.shapes, self.columns, self.log_columns, strict=True):
            if logs is not None:
                flat = self._flat(value, shape, batch_shape)
                curvature[:, logs] = -first[:, columns] * second[:, columns] / flat**2
        return curvature

    def adjoint_tangent(
        self, values: Sequence[Array], motion: Vectors, dtheta: Vectors, batch_shape: tuple[int, ...]
    ) -> Vectors:
        """Returns how the cotangents of the values change as theta moves and its cotangent stays, as columns."""
        change = np.zeros(dtheta.shape)
        for value, shape, columns, logs in zip(values, self.shapes, self.columns, self.log_columns, strict=True):
            if logs is not None:
                masked = dtheta[:, logs] == 0
                flat = np.where(masked, 1.0, self._flat(value, shape, batch_shape))
                change[:, columns] = np.where(masked, 0.0, -dtheta[:, logs] * motion[:, columns] / flat**2)
        return change

    def adjoint(self, values: Sequence[Array], dtheta: Sequence[Vectors], batch_shape: tuple[int, ...]) -> list[Array]:
        """Returns the cotangent of each value, of its shape: summed over the axes along which it was broadcast.

        Args:
            values: the values of the call.
            dtheta: the cotangents of the blocks of theta.
            batch_shape: the shape of the batch.
        """
        gradients = []
        for value, shape, block, size, log in zip(values, self.shapes, dtheta, self.sizes, self.logs, strict=True):
            lead = value.shape[: value.ndim - len(shape)]
            gradient = block
            if log:
                flat, gradient, by_log = self._flat(value, shape, batch_shape), block[:, :size], block[:, size:]
                # A masked item's cotangent is exactly zero, also where its parameter is zero or NaN.
                masked = by_log == 0
                gradient = gradient + np.where(masked, 0.0, by_log / np.where(masked, 1.0, flat))
            gradients.append(_sum_to(gradient.reshape(batch_shape + shape), lead + shape, len(batch_shape)))
        return gradients

    def faint(self, values: Sequence[Array], batch_shape: tuple[int, ...]) -> Bool[np.ndarray, "batch width"] | None:
        """Returns which columns are logarithms of values so small that terms of their size underflow; None if none."""
        if not any(log and value.min(initial=np.inf) < _FAINT for value, log in zip(values, self.logs, strict=True)):
            return None
        found = np.zeros((math.prod(batch_shape), self.width), dtype=bool)
        for value, shape, logs in zip(values, self.shapes, self.log_columns, strict=True):
            if logs is not None:
                found[:, logs] = self._flat(value, shape, batch_shape) < _FAINT
        return found

    def _flat(self, value: Array, shape: tuple[int, ...], batch_shape: tuple[int, ...]) -> Vectors:
        return _fold(value, value.shape[: value.ndim - len(shape)], batch_shape)

    def leads(self, shapes: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """Returns the batch axes of values of these shapes.

        Raises:
            ShapeError: if their number or the shapes do not fit the parameters.
        """
        if len(shapes) != len(self.names):
            raise ShapeError(
                "A tensor must be provided for each CVXPY parameter: "
                f"received {len(shapes)}, expected {len(self.names)} ({', '.join(self.names) or 'none'})"
            )
        leads = []
        for index, (got, shape) in enumerate(zip(shapes, self.shapes, strict=True)):
            lead = len(got) - len(shape)
            if lead < 0 or got[lead:] != shape:
                raise self._misfit(index, got)
            leads.append(got[:lead])
        return leads

    def _misfit(self, index: int, got: tuple[int, ...]) -> ShapeError:
        """Says how the shape of a value differs from what its parameter has."""
        label, want = f"parameter {self.names[index]!r} (#{index})", self.user_shapes[index]
        lead = len(got) - len(self.shapes[index])
        seen = got[: lead + len(want)]
        if lead < 0:
            return ShapeError(
                f"Invalid parameter dimensionality for {label}: got {len(seen)} axes, shape {seen}; expected at "
                f"least {len(want)}, shape {_described(want)}"
            )
        hint = "; its last two axes look transposed" if _transposed(seen[lead:], want) else ""
        return ShapeError(f"Invalid parameter shape for {label}: got {seen}, expected {_described(want)}{hint}")

    def batch_shape(self, leads: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
        """Returns the batch axes of a call: those of its values, broadcast.

        Raises:
            ShapeError: if they do not broadcast.
        """
        if leads and all(lead == leads[0] for lead in leads):
            return leads[0]
        try:
            return np.broadcast_shapes(*leads)
        except ValueError:
            found = ", ".join(f"{name!r}: {lead}" for name, lead in zip(self.names, leads, strict=True) if lead)
            raise ShapeError(
                f"Inconsistent batch sizes: the leading axes of the parameters do not broadcast ({found})"
            ) from None


def user_shapes(shapes: Sequence[tuple[int, ...]], complexes: Sequence[bool]) -> tuple[tuple[int, ...], ...]:
    """Returns shapes without the axis of real and imaginary parts; no flags stand for nothing complex."""
    flags = complexes or (False,) * len(shapes)
    return tuple(shape[:-1] if flag else shape for shape, flag in zip(shapes, flags, strict=True))


def _fold(value: Array, lead: tuple[int, ...], batch_shape: tuple[int, ...]) -> Vectors:
    """Broadcasts the leading axes to the batch, makes them one, and ravels the rest."""
    size = math.prod(value.shape[len(lead) :])
    if lead == batch_shape:
        return value.reshape((math.prod(lead), size))
    flat = value.reshape((*lead, size))
    return np.broadcast_to(flat, (*batch_shape, size)).reshape((int(np.prod(batch_shape)), size))


def _sum_to(gradient: Array, shape: tuple[int, ...], batch_axes: int) -> Array:
    missing = gradient.ndim - len(shape)
    stretched = [
        missing + axis
        for axis in range(batch_axes - missing)
        if shape[axis] == 1 and gradient.shape[missing + axis] != 1
    ]
    axes = (*range(missing), *stretched)
    return gradient.sum(axis=axes, keepdims=True).reshape(shape) if axes else gradient


def _log(name: str, values: Vectors) -> Vectors:
    bad = np.flatnonzero((values <= 0).any(axis=1))
    if len(bad):
        raise DomainError(
            f"parameter {name!r} of a geometric program must be positive: {len(bad)} of {len(values)} items have "
            f"entries down to {values[bad].min():.3g} (items {bad[:8].tolist()})"
        )
    return np.log(values)


def _transposed(got: tuple[int, ...], want: tuple[int, ...]) -> bool:
    return len(want) >= 2 and got == (*want[:-2], want[-1], want[-2])


def _described(shape: tuple[int, ...]) -> str:
    return f"{shape} or (*batch{''.join(f', {size}' for size in shape)})"

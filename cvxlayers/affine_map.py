"""Affine maps from parameters to the data of programs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float

from cvxlayers.batches import Values, Vectors, is_large
from cvxlayers.linear_map import LinearMap
from cvxlayers.parameter_map import Theta


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

"""The framework-neutral door: numpy arrays in and out, derivatives by explicit calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cvxlayers import artifact
from cvxlayers.arrays import common_dtype, read, written
from cvxlayers.base import BaseLayer
from cvxlayers.build import call_options
from cvxlayers.derivative import DerivativeInfo
from cvxlayers.errors import ShapeError
from cvxlayers.forward import Array, Forward
from cvxlayers.result import LayerResult, start_of
from cvxlayers.variable_map import VariableMap


class CvxpyLayer(BaseLayer):
    """A differentiable layer that solves a parametrised convex problem, on numpy arrays.

        layer = CvxpyLayer(problem, parameters=[A, b], variables=[x])
        (x_star,) = layer(A_value, b_value)
        (A_bar, b_bar), info = layer.vjp((A_value, b_value), (x_bar,))

    It takes whatever numpy makes an array of; `to_torch`, `to_jax` and `to_tensorflow` take it to their frameworks.
    """

    def __call__(
        self,
        *parameters: ArrayLike,
        solver_args: Mapping[str, object] | None = None,
        on_failure: str | None = None,
        warm_start: LayerResult | None = None,
    ) -> tuple[np.ndarray, ...]:
        """Solves the problem for each item of the batch.

        Args:
            parameters: one array per parameter, of shape (*batch, *parameter.shape); batch axes broadcast.
            solver_args: options of this call, over those of the layer.
            on_failure: as for the layer, for this call.
            warm_start: a result of `solve` with nearby parameters, for the same batch or for one item.

        Returns:
            One array per variable, of shape (*batch, *variable.shape): in single precision where all parameters are,
            else in double; complex where the variable is.

        Raises:
            InputError: if the number, shapes, dtypes or values of the arrays are wrong.
            SolverError: if items cannot be solved; it names them, their status, and the way out.
        """
        dtype = common_dtype(parameters)
        forward = self._forward(parameters, solver_args, on_failure, warm_start)
        return tuple(written(forward.outputs, forward.map.complexes, dtype))

    def solve(
        self,
        *parameters: ArrayLike,
        solver_args: Mapping[str, object] | None = None,
        on_failure: str | None = None,
        warm_start: LayerResult | None = None,
    ) -> LayerResult:
        """Solves as a call does, and returns all there is to know: duals, optimal values, statuses, residuals.

        Args:
            parameters: as in a call.
            solver_args: as in a call.
            on_failure: as in a call.
            warm_start: the result of an earlier call with nearby parameters, for the same batch or for one item.
        """
        dtype = common_dtype(parameters)
        forward = self._forward(parameters, solver_args, on_failure, warm_start, self.layer.compiled.leaves.map)
        leaves = written(forward.outputs, forward.map.complexes, dtype)
        objective = self.layer.objective(forward).astype(dtype, copy=False)
        return self.layer.result(forward, leaves, objective, np.asarray)

    def vjp(
        self, parameters: Sequence[ArrayLike], cotangents: Sequence[ArrayLike | None]
    ) -> tuple[tuple[np.ndarray, ...], DerivativeInfo]:
        """Pulls cotangents of the variables back to the parameters.

        A complex cotangent c of z stands for dL = Re(c* dz): it is ∂L/∂Re z + i ∂L/∂Im z, as PyTorch's gradients are.

        Args:
            parameters: as in a call.
            cotangents: one per variable, of the shape that a call returns; None is zero.

        Returns:
            One cotangent per parameter, of the shape passed, and per item how far to trust them.
        """
        forward = self._forward(parameters)
        checked = _matched("cotangent", cotangents, forward.outputs, forward.map.complexes)
        gradients, info = self.layer.vjp(forward, checked)
        return tuple(written(gradients, self.layer.compiled.parameters.complexes, np.float64)), info

    def jvp(
        self, parameters: Sequence[ArrayLike], tangents: Sequence[ArrayLike | None]
    ) -> tuple[tuple[np.ndarray, ...], DerivativeInfo]:
        """Pushes tangents of the parameters forward to the variables: the adjoint of `vjp`.

        Args:
            parameters: as in a call.
            tangents: one per parameter, of the shape passed; None is zero.

        Returns:
            One tangent per variable, of the shape that a call returns, and per item how far to trust them.
        """
        forward = self._forward(parameters)
        complexes = self.layer.compiled.parameters.complexes
        outputs, info = self.layer.jvp(forward, _matched("tangent", tangents, forward.values, complexes))
        return tuple(written(outputs, forward.map.complexes, np.float64)), info

    def jacobian(self, parameters: Sequence[ArrayLike]) -> tuple[tuple[tuple[Array, ...], ...], DerivativeInfo]:
        """Returns the derivative of every entry of the variables by every entry of the parameters, item by item.

        Args:
            parameters: as in a call.

        Returns:
            For each variable and each parameter an array of shape (*batch, *variable.shape, *parameter.shape), and per
            item how far to trust them.
        """
        forward = self._forward(parameters)
        maps, outputs = self.layer.compiled.parameters, self.layer.compiled.variables
        batch, axes = forward.batch_shape, len(forward.batch_shape)
        spread = [
            np.broadcast_to(value, batch + shape) for value, shape in zip(forward.values, maps.shapes, strict=True)
        ]
        sizes = [int(np.prod(shape)) for shape in outputs.shapes]
        starts, count = np.cumsum([0, *sizes]), sum(sizes)
        cotangents = [
            np.broadcast_to(
                np.eye(count)[:, start : start + size].reshape((count, *(1,) * axes, *shape)), (count, *batch, *shape)
            )
            for start, size, shape in zip(starts, sizes, outputs.shapes, strict=False)
        ]
        gradients, info = self.layer.vjp(replace(forward, values=spread), cotangents, directions=1)
        stacked = [np.moveaxis(gradient, 0, axes) for gradient in gradients]
        jacobians = tuple(
            tuple(
                gradient.take(range(start, start + size), axis=axes).reshape(batch + shape + parameter)
                for gradient, parameter in zip(stacked, maps.shapes, strict=True)
            )
            for start, size, shape in zip(starts, sizes, outputs.shapes, strict=False)
        )
        return jacobians, info

    def to_torch(self) -> Any:
        """Returns the same compiled problem as a PyTorch module."""
        from cvxlayers import torch

        return torch.CvxpyLayer.from_layer(self.layer)

    def to_jax(self) -> Any:
        """Returns the same compiled problem as a function of JAX arrays."""
        from cvxlayers import jax

        return jax.CvxpyLayer.from_layer(self.layer)

    def to_tensorflow(self) -> Any:
        """Returns the same compiled problem as a function of TensorFlow tensors."""
        from cvxlayers import tensorflow

        return tensorflow.CvxpyLayer.from_layer(self.layer)

    def _doubles(self, parameters: Sequence[ArrayLike]) -> list[Array]:
        names = self.layer.compiled.parameters.names
        labels = [f"parameter {name!r}" for name in names]
        labels += [f"parameter #{index}" for index in range(len(names), len(parameters))]
        return read(labels, parameters, self.layer.compiled.parameters.complexes)

    def _forward(
        self,
        parameters: Sequence[ArrayLike],
        solver_args: Mapping[str, object] | None = None,
        on_failure: str | None = None,
        warm_start: LayerResult | None = None,
        outputs: VariableMap | None = None,
    ) -> Forward:
        values = self._doubles(parameters)
        options = call_options(self.layer, solver_args, on_failure)
        return self.layer.forward(values, options, start_of(warm_start), outputs)


def load(path: object) -> CvxpyLayer:
    """Reads a layer that `save` has written; `to_torch`, `to_jax` and `to_tensorflow` take it to their frameworks.

    Args:
        path: the file.

    Raises:
        ArtifactError: if the file is no layer, is damaged, or was written by a newer version.
        FileNotFoundError: if there is none.
    """
    return CvxpyLayer.from_layer(artifact.load(path))


def _matched(
    what: str, arrays: Sequence[ArrayLike | None], like: Sequence[Array], complexes: Sequence[bool]
) -> list[Array | None]:
    """Checks the number and the shapes of tangents or cotangents, and returns complex ones as their parts."""
    if len(arrays) != len(like):
        raise ShapeError(f"expected {len(like)} {what}s, one each, got {len(arrays)}")
    checked: list[Array | None] = []
    flags = complexes or (False,) * len(like)
    for index, (array, reference, flag) in enumerate(zip(arrays, like, flags, strict=True)):
        want = reference.shape[:-1] if flag else reference.shape
        if array is not None and np.shape(array) != want:
            raise ShapeError(f"{what} #{index} has shape {np.shape(array)}, expected {want}")
        checked.append(None if array is None else read([f"{what} #{index}"], [array], [flag])[0])
    return checked

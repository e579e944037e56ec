"""The framework-neutral door: numpy arrays in and out, derivatives by explicit calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cvxlayers import artifact
from cvxlayers.arrays import common_dtype, read, written
from cvxlayers.build import build_layer, call_options
from cvxlayers.compiled import VariableMap
from cvxlayers.derivative import DerivativeInfo
from cvxlayers.describe import describe
from cvxlayers.errors import ShapeError
from cvxlayers.forward import Array, Forward
from cvxlayers.gradcheck import GradientCheck, gradcheck
from cvxlayers.layer import Layer
from cvxlayers.result import LayerResult, start_of
from cvxlayers.spy import spy


class CvxpyLayer:
    """A differentiable layer that solves a parametrised convex problem, on numpy arrays.

        layer = CvxpyLayer(problem, parameters=[A, b], variables=[x])
        (x_star,) = layer(A_value, b_value)
        (A_bar, b_bar), info = layer.vjp((A_value, b_value), (x_bar,))

    Args:
        problem: a disciplined parametrised (DPP) CVXPY problem.
        parameters: its `cvxpy.Parameter`s, in the order in which a call passes their values.
        variables: what a call returns, in order: variables, and dual variables of constraints.
        gp: whether the problem is a geometric program.
        freeze: parameters that are not listed, and stay at the values that they have when the layer is made.
        solver: a solver by name, in any case; by default chosen from the program's class and size.
        solver_args: options of every call: `eps`, `max_iters`, `time_limit`, `verbose`, and the solver's own names.
        on_failure: what a call does about items that cannot be solved: "raise" `SolverError`; "nan", return NaN for
            them; "mask", return their last finite iterate, or zeros, and an exactly zero gradient.
        strict: whether inaccurate solutions and doubtful derivatives raise instead of warning.
        threads: threads over the items of a batch; by default CVXLAYERS_THREADS, or the processors available.
        check: whether each call checks its values against the attributes of the parameters: sign, bounds, symmetry,
            definiteness, support.
        derivative: "exact"; "smoothed", the derivative of the point on the central path with s ∘ y = mu, and "lpgd",
            differences of solutions with perturbed costs: both inform also where the exact one is zero or undefined.
        mu: how strongly: the barrier parameter of "smoothed" (0.01), the size of lpgd's perturbation (0.1).
        ridge: weight of ½‖variables‖² that is added to the cost, in the solution and in its derivatives.
        recognise: whether programs of a form with a faster solution, such as a projection onto a simplex or a softmax,
            are solved and differentiated by it.
        cache: folder that keeps the compiled problem for the next process; by default CVXLAYERS_CACHE, none where that
            is unset.

    Raises:
        ProblemError: if the problem cannot become a layer; its subclass `DPPError` names the expression at fault.
        OptionError: if a solver or an option is unknown, or does not fit the problem.

    References:
        Agrawal, Amos, Barratt, Boyd, Diamond, Kolter, "Differentiable convex optimization layers" (2019); Agrawal,
        Barratt, Boyd, Busseti, Moursi, "Differentiating through a cone program" (2019); Healey, Nobel, Boyd,
        "Differentiating through a quadratic cone program" (2025), arXiv:2508.17522.
    """

    def __init__(
        self,
        problem: object,
        parameters: object,
        variables: object,
        *,
        gp: bool = False,
        freeze: object = (),
        solver: str | None = None,
        solver_args: Mapping[str, object] | None = None,
        on_failure: str = "raise",
        strict: bool = False,
        threads: int | None = None,
        check: bool = True,
        derivative: str = "exact",
        mu: float | None = None,
        ridge: float = 0.0,
        recognise: bool = True,
        cache: str | PathLike[str] | None = None,
    ) -> None:
        self.layer = build_layer(
            problem,
            parameters,
            variables,
            gp=gp,
            freeze=freeze,
            solver=solver,
            solver_args=solver_args,
            on_failure=on_failure,
            strict=strict,
            threads=threads,
            check=check,
            derivative=derivative,
            mu=mu,
            ridge=ridge,
            recognise=recognise,
            cache=cache,
        )

    @classmethod
    def from_layer(cls, layer: Layer) -> CvxpyLayer:
        """Returns the door over a layer that is compiled already."""
        made = cls.__new__(cls)
        made.layer = layer
        return made

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

    def describe(self) -> str:
        """Says what the layer is made of: the program's class, sizes and cones, what parameters change, the methods."""
        return describe(self.layer)

    def spy(self, axes: Any = None) -> Any:
        """Draws the sparsity of the KKT system on matplotlib axes, new ones by default, and returns them."""
        return spy(self.layer, axes)

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

    def gradcheck(self, *parameters: ArrayLike, tolerance: float = 1e-5, seed: int = 0) -> GradientCheck:
        """Compares the layer's derivatives with finite differences, per parameter and item of the batch.

        The step of the differences follows from the accuracy of the solutions, and their own error is known: the result
        tells which of the two sides is unreliable. Print it; its `ok` says whether a derivative is wrong.

        Args:
            parameters: as in a call.
            tolerance: relative error up to which derivatives and differences agree.
            seed: of the random directions.
        """
        return gradcheck(self.layer, self._read(parameters), tolerance, seed=seed)

    def save(self, path: object) -> None:
        """Writes the compiled layer to a file that `cvxlayers.load` reads, also where CVXPY is not installed.

        Raises:
            ArtifactError: if an option of the layer is neither a number nor a text.
        """
        artifact.save(self.layer, path)

    def _read(self, parameters: Sequence[ArrayLike]) -> list[Array]:
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
        values = self._read(parameters)
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

"""The TensorFlow door: `CvxpyLayer` on tensors, eagerly and in graphs, and `KerasLayer` for models of Keras."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any, Unpack, no_type_check

import numpy as np

from cvxlayers import artifact, standard
from cvxlayers.base import BaseLayer
from cvxlayers.build import call_options
from cvxlayers.errors import DtypeError, InputError, MissingDependencyError
from cvxlayers.host import Host
from cvxlayers.layer import Layer
from cvxlayers.result import LayerResult, WarmStart, start_of
from cvxlayers.standard import ConicSolution, Keywords, QPSolution, SolveKeywords

try:
    import tensorflow as tf
except ImportError:
    message = "cvxlayers.tensorflow needs TensorFlow: pip install 'cvxlayers[tensorflow]'"
    raise MissingDependencyError(message) from None
else:
    from cvxlayers.tensorflow_gradients import solve

__all__ = ["CvxpyLayer", "KerasLayer", "solve_conic", "solve_qp"]


class CvxpyLayer(BaseLayer):
    """A differentiable layer that solves a parametrised convex problem.

        layer = CvxpyLayer(problem, parameters=[A, b], variables=[x])
        (x_star,) = layer(A_tensor, b_tensor)

    It works eagerly and in `tf.function`, under `GradientTape` (nested where all cones are zero, nonnegative or
    second-order), `jacobian`, `batch_jacobian` and `ForwardAccumulator`. It runs on the host, so XLA cannot compile it:
    `jit_compile=True` raises an error that names it.
    """

    @tf.autograph.experimental.do_not_convert
    def __call__(
        self,
        *parameters: Any,
        solver_args: Mapping[str, object] | None = None,
        on_failure: str | None = None,
        warm_start: LayerResult | None = None,
    ) -> tuple[tf.Tensor, ...]:
        """Solves the problem for each item of the batch.

        Args:
            parameters: one tensor per parameter, of shape (*batch, *parameter.shape); batch axes broadcast.
            solver_args: options of this call, over those of the layer.
            on_failure: as for the layer, for this call.
            warm_start: a result of `solve` with nearby parameters, for the same batch or for one item.

        Returns:
            One tensor per variable, of shape (*batch, *variable.shape), in the parameters' dtype (computed in float64).

        Raises:
            InputError: if the number, shapes or dtypes of the tensors are wrong.
            SolverError: if items cannot be solved; it names them, their status, and the way out.
        """
        values = _values(self.layer, parameters)
        start = start_of(warm_start)
        host = Host(self.layer, call_options(self.layer, solver_args, on_failure), start)
        return _unparted(solve(host, values, _common_dtype(values)), self.layer.compiled.variables.complexes)

    @tf.autograph.experimental.do_not_convert
    def solve(
        self,
        *parameters: Any,
        solver_args: Mapping[str, object] | None = None,
        on_failure: str | None = None,
        warm_start: LayerResult | None = None,
    ) -> LayerResult:
        """Solves as a call does, and returns all there is to know: duals, optimal values, statuses, residuals.

        Its results are read in Python, so it runs outside `tf.function`, and has no derivative.

        Args:
            parameters: as in a call.
            solver_args: as in a call.
            on_failure: as in a call.
            warm_start: the result of an earlier call with nearby parameters, for the same batch or for one item.

        Returns:
            A `LayerResult` of tensors.
        """
        if not tf.executing_eagerly():
            raise InputError("solve cannot run inside a graph: call the layer itself, with duals among `variables`")
        values = _values(self.layer, parameters)
        dtype = _common_dtype(values)
        start = start_of(warm_start)
        options, leaves = call_options(self.layer, solver_args, on_failure), self.layer.compiled.leaves.map
        arrays = [np.asarray(value).astype(np.float64) for value in values]
        forward = self.layer.forward(arrays, options, start, leaves)
        outputs = _unparted([tf.constant(output, dtype) for output in forward.outputs], leaves.complexes)
        objective = tf.constant(self.layer.objective(forward), dtype)
        return self.layer.result(forward, outputs, objective, tf.convert_to_tensor)

    def _doubles(self, parameters: tuple[Any, ...]) -> list[np.ndarray]:
        return [value.numpy().astype(np.float64) for value in _values(self.layer, parameters)]


@tf.keras.utils.register_keras_serializable("cvxlayers")
class KerasLayer(tf.keras.layers.Layer):
    """A compiled problem as a layer of Keras, which models save and load with all that belongs to it.

    It has no weights: its inputs are the parameters, each with a leading batch axis or with none. Where the problem has
    one variable a call returns its tensor, else a tuple.

    Args:
        layer: what `cvxlayers.tensorflow.CvxpyLayer` has compiled.
        keywords: of every layer of Keras, as `name`.

    Raises:
        SolverError: by a call, as a call of the layer does; inside graphs TensorFlow wraps it.
    """

    @no_type_check  # Keras reads the signature, which a run-time check of types would hide.
    def __init__(self, layer: CvxpyLayer, **keywords: Any) -> None:
        tf.keras.layers.Layer.__init__(self, **{"autocast": False, **keywords})
        self.supports_jit = False
        self.compiled_layer = layer

    def call(self, *parameters: Any) -> Any:
        """Solves the problem for each item of the batch; one list of all parameters is taken too."""
        inputs = parameters[0] if len(parameters) == 1 and isinstance(parameters[0], list | tuple) else parameters
        outputs = self.compiled_layer(*inputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def get_config(self) -> dict[str, Any]:
        """Returns what makes the layer anew: the bytes of its file among it, as text."""
        data = base64.b64encode(artifact.dumps(self.compiled_layer.layer)).decode()
        return {**tf.keras.layers.Layer.get_config(self), "artifact": data}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> KerasLayer:
        """Makes the layer that `get_config` described."""
        rest = {key: value for key, value in config.items() if key not in ("artifact", "autocast")}
        return cls(CvxpyLayer.from_layer(artifact.loads(base64.b64decode(config["artifact"]))), **rest)


def solve_qp(
    P: Any,
    q: Any,
    *,
    A: Any = None,
    b: Any = None,
    G: Any = None,
    h: Any = None,
    lb: Any = None,
    ub: Any = None,
    **keywords: Unpack[SolveKeywords],
) -> QPSolution:
    """Solves quadratic programs by their data, differentiable in all of them: `cvxlayers.solve_qp` on tensors.

        x = solve_qp(P, q, G=G, h=h).x

    `result` is None: for statuses call the solve on arrays. In a graph a row whose bound is infinite cannot be left
    out: it is invalid data there.

    Args:
        P: positive semidefinite, of shape (*batch, n, n), both triangles; None for a linear program.
        q: of shape (*batch, n).
        A: of shape (*batch, equalities, n), or sparse, as pair (pattern, values); None without any, as all that follow.
        b: of shape (*batch, equalities).
        G: of shape (*batch, inequalities, n), or sparse, likewise.
        h: of shape (*batch, inequalities).
        lb: lower bounds of shape (*batch, n), or one number.
        ub: upper bounds, likewise.
        keywords: options of the solve, and `warm_start`.

    Returns:
        x, the dual variables y, z and z_box, and all else that a solve found out.

    Raises:
        InputError: if the blocks do not fit together.
        SolverError: if items cannot be solved; it names them, their status, and the way out.

    References:
        Amos, Kolter, "OptNet: differentiable optimization as a layer in neural networks" (2017); derivatives as of
        `CvxpyLayer`.
    """
    given = {"P": P, "q": q, "A": A, "b": b, "G": G, "h": h, "lb": lb, "ub": ub}
    return standard.solve_qp(given, Keywords(**keywords), _DOOR)


def solve_conic(
    P: Any,
    q: Any,
    A: Any,
    b: Any,
    cones: Mapping[str, Any],
    **keywords: Unpack[SolveKeywords],
) -> ConicSolution:
    """Solves cone programs by their data, differentiable in all of them: `cvxlayers.solve_conic` on tensors.

    `result` is None: for statuses call the solve on arrays. In a graph a row whose bound is infinite cannot be left
    out: it is invalid data there.

    Args:
        P: as of `solve_qp`.
        q: of shape (*batch, n).
        A: of shape (*batch, m, n), or sparse; its rows are ordered as the cones.
        b: of shape (*batch, m).
        cones: the sizes of the cones, as `cvxlayers.solve_conic` lists them.
        keywords: as of `solve_qp`.

    Returns:
        x, the dual variable y, and all else that a solve found out.

    Raises:
        OptionError: if a cone is unknown.
        InputError: if the blocks do not fit together.
        SolverError: if items cannot be solved; it names them, their status, and the way out.

    References:
        Healey, Nobel, Boyd, "Differentiating through a quadratic cone program" (2025), arXiv:2508.17522.
    """
    return standard.solve_conic({"P": P, "q": q, "A": A, "b": b}, cones, Keywords(**keywords), _DOOR)


def _run_standard(layer: Layer, values: Sequence[tf.Tensor], warm_start: WarmStart | None) -> standard.Run:
    return standard.Run(solve(Host(layer, layer.options, warm_start), values, _common_dtype(values)), None, None)


def _known(value: tf.Tensor) -> np.ndarray | None:
    return value.numpy() if hasattr(value, "numpy") else None


def _values(layer: Layer, parameters: Sequence[Any]) -> list[tf.Tensor]:
    maps = layer.compiled.parameters
    labels = [repr(name) for name in maps.names] + [f"#{index}" for index in range(len(maps.names), len(parameters))]
    complexes = [*maps.complexes, *(False,) * len(parameters)]
    values = [_real(*each) for each in zip(labels, parameters, complexes, strict=False)]
    shapes: list[Any] = [tuple(value.shape) for value in values if value.shape.is_fully_defined()]
    if len(shapes) == len(values):
        maps.batch_shape(maps.leads(shapes))
    return values


def _real(label: str, parameter: Any, parted: bool) -> tf.Tensor:
    """Returns a tensor of real numbers: of a complex parameter the real and imaginary parts, along a last axis."""
    try:
        tensor = tf.convert_to_tensor(parameter)
    except (TypeError, ValueError) as error:
        raise DtypeError(f"parameter {label} needs a tensor of real numbers: {error}") from None
    if parted and tensor.dtype.is_complex:
        return tf.stack([tf.math.real(tensor), tf.math.imag(tensor)], axis=-1)
    if tensor.dtype.is_integer:
        tensor = tf.cast(tensor, tf.float32)
    if tensor.dtype.is_floating:
        return tf.stack([tensor, tf.zeros_like(tensor)], axis=-1) if parted else tensor
    raise DtypeError(f"parameter {label} needs real numbers, got {tensor.dtype.name}")


def _unparted(tensors: Sequence[tf.Tensor], complexes: Sequence[bool]) -> tuple[tf.Tensor, ...]:
    """Returns those that are complex as complex tensors."""
    flags = complexes or (False,) * len(tensors)
    return tuple(
        tf.complex(*tf.unstack(tensor, axis=-1)) if flag else tensor
        for tensor, flag in zip(tensors, flags, strict=True)
    )


def _common_dtype(values: Sequence[tf.Tensor]) -> tf.DType:
    promote: Callable[[Any, Any], Any] = np.promote_types
    return tf.as_dtype(reduce(promote, [value.dtype.as_numpy_dtype for value in values] or [np.float32]))


_DOOR = standard.Door(lambda value: _real("of the program", value, parted=False), _known, _run_standard)

"""A layer as TensorFlow functions with gradients, which call one another: so nested tapes have them too.

They are the maps of `cvxlayers.rules`. A map's dependence on the parameters is kept apart from its linear part, as a
term that is zero: a gradient is computed for all inputs of a function at once, and the one in the parameters must not
be where nobody asked for it, since some cones do not offer it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import record

from cvxlayers.errors import DerivativeError
from cvxlayers.host import Host

Tensors = Sequence[tf.Tensor]
# What a function returns: shapes and dtypes.
Specs = Sequence[tuple[Any, tf.DType]]

# The names of registered gradients are global.
_NUMBERS = count()
# XLA's error shows this name.
_NAME = "cvxlayers_runs_on_the_host_so_it_needs_jit_compile_False"


def solve(host: Host, values: Tensors, dtype: tf.DType) -> list[tf.Tensor]:
    """Returns the variables of a layer at the parameters' values."""
    batch = _batch_shape(host, values)
    variables = [(batch.concatenate(shape), dtype) for shape in host.layer.compiled.variables.shapes]
    derivatives = _Derivatives(host, variables)

    def outputs(values: Tensors, _: Tensors) -> list[tf.Tensor]:
        return _on_host(host.solve_flat, values, [*variables, (batch.concatenate([host.width]), tf.float64)])

    def gradient(values: Tensors, _: Tensors, results: Tensors, back: Tensors) -> list[tf.Tensor]:
        return derivatives.pull([*values, results[-1]], back[:-1])

    return _with_gradient(outputs, gradient, values, [])[:-1]


@dataclass(frozen=True, eq=False)
class _Derivatives:
    """The derivatives of a layer at the parameters' values and the state of a call, which come as one list, `at`."""

    host: Host
    variables: Specs

    def push(self, at: Tensors, tangents: Tensors) -> list[tf.Tensor]:
        linear = self._linear("push", at, tangents, self.variables, self.pull)
        return self._curved(linear, at, [tangents], lambda at, groups, back: self.push_pull(at, back, groups[0]))

    def pull(self, at: Tensors, cotangents: Tensors) -> list[tf.Tensor]:
        linear = self._linear("pull", at, cotangents, _specs(at[:-1]), self.push)
        return self._curved(linear, at, [cotangents], lambda at, groups, back: self.push_pull(at, groups[0], back))

    def push_push(self, at: Tensors, first: Tensors, others: Tensors) -> list[tf.Tensor]:
        def gradient(at: Tensors, first: Tensors, others: Tensors, back: Tensors) -> list[tf.Tensor]:
            return [*self.push_pull(at, back, others), *self.push_pull(at, back, first)]

        return self._bilinear("push_push", at, first, others, self.variables, gradient)

    def push_pull(self, at: Tensors, cotangents: Tensors, tangents: Tensors) -> list[tf.Tensor]:
        def gradient(at: Tensors, cotangents: Tensors, tangents: Tensors, back: Tensors) -> list[tf.Tensor]:
            return [*self.push_push(at, back, tangents), *self.push_pull(at, cotangents, back)]

        return self._bilinear("push_pull", at, cotangents, tangents, _specs(at[:-1]), gradient)

    def _linear(
        self,
        kind: str,
        at: Tensors,
        group: Tensors,
        specs: Specs,
        transposed: Callable[[Tensors, Tensors], list[tf.Tensor]],
    ) -> list[tf.Tensor]:
        return _with_gradient(
            lambda group, at: _evaluate(self.host, kind, at, [group], specs),
            lambda group, at, results, back: transposed(at, back),
            group,
            at,
        )

    def _bilinear(
        self,
        kind: str,
        at: Tensors,
        first: Tensors,
        others: Tensors,
        specs: Specs,
        gradient: Callable[..., list[tf.Tensor]],
    ) -> list[tf.Tensor]:
        width = len(first)
        results = _with_gradient(
            lambda both, at: _evaluate(self.host, kind, at, [both[:width], both[width:]], specs),
            lambda both, at, results, back: gradient(at, both[:width], both[width:], back),
            [*first, *others],
            at,
        )
        return self._curved(results, at, [], lambda at, groups, back: _no_third(at[:-1]))

    def _curved(
        self,
        results: Tensors,
        at: Tensors,
        groups: Sequence[Tensors],
        gradient: Callable[[Tensors, Sequence[Tensors], Tensors], list[tf.Tensor]],
    ) -> list[tf.Tensor]:
        """Returns the results, on whose dependence on the parameters' values `gradient` tells."""
        zeros = [tf.zeros_like(result) for result in results]
        flat = [tensor for group in groups for tensor in group]
        none = _with_gradient(
            lambda values, constants: zeros,
            lambda values, constants, _, back: gradient([*values, constants[0]], [constants[1:]], back),
            at[:-1],
            [at[-1], *flat],
        )
        return [a + b for a, b in zip(results, none, strict=True)]


def _with_gradient(
    function: Callable[[Tensors, Tensors], list[tf.Tensor]],
    gradient: Callable[[Tensors, Tensors, Tensors, Tensors], list[tf.Tensor]],
    inputs: Tensors,
    constants: Tensors,
) -> list[tf.Tensor]:
    """Calls a function of inputs and constants in such a way that tapes and accumulators use its gradient.

    In graphs `tf.custom_gradient` does not do: forward accumulators see through it, to what has no tangent and counts
    as zero, and what its gradient closes over is lost in the graphs of further gradients.

    Args:
        function: returns the results for inputs and constants.
        gradient: returns the cotangents of the inputs, for inputs, constants, results and the cotangents of these.
        inputs: with respect to which it is differentiated.
        constants: what else it takes.
    """
    if tf.executing_eagerly():

        @tf.custom_gradient
        def differentiable(*inputs: tf.Tensor) -> Any:
            results = function(inputs, constants)
            return results, lambda *back: gradient(inputs, constants, results, back)

        return list(differentiable(*inputs))
    name = f"CvxlayersGradient{next(_NUMBERS)}"
    with record.stop_recording():
        results = function(inputs, constants)
        size, width = len(results), len(results) + len(inputs)

        def registered(operation: tf.Operation, *back: tf.Tensor) -> list[Any]:
            tensors = list(operation.inputs)
            cotangents = gradient(tensors[size:width], tensors[width:], tensors[:size], back[:size])
            return [None] * size + list(cotangents) + [None] * len(constants)

        tf.RegisterGradient(name)(registered)
        with tf.compat.v1.get_default_graph().gradient_override_map({"IdentityN": name}):
            passed = tf.identity_n([*results, *inputs, *constants])[:size]
    record.record_operation(
        "cvxlayers", passed, list(inputs), lambda *back: list(gradient(inputs, constants, passed, back))
    )
    return passed


def _evaluate(host: Host, kind: str, at: Tensors, groups: Sequence[Tensors], specs: Specs) -> list[tf.Tensor]:
    """Calls a derivative of the host."""
    size, width = len(at), len(groups[0])

    def compute(*arrays: np.ndarray) -> list[np.ndarray]:
        cut = [arrays[size : size + width], arrays[size + width :]][: len(groups)]
        return host.derive(kind, arrays[: size - 1], arrays[size - 1], cut)

    return _on_host(compute, [*at, *(tensor for group in groups for tensor in group)], specs)


def _no_third(values: Tensors) -> list[tf.Tensor]:
    def refuse(*_: np.ndarray) -> list[np.ndarray]:
        raise DerivativeError("third derivatives of a layer are not offered")

    return _on_host(refuse, values, _specs(values))


def _specs(tensors: Tensors) -> Specs:
    return [(tensor.shape, tensor.dtype) for tensor in tensors]


def _on_host(compute: Callable[..., list[np.ndarray]], tensors: Tensors, specs: Specs) -> list[tf.Tensor]:
    """Computes with float64 arrays: at once where tensors have values, which lets errors through, else in the graph.

    What a graph computes and does not use it leaves out, so that only what is asked for can fail.
    """

    def call(*arrays: Any) -> list[np.ndarray]:
        found = compute(*(np.asarray(array).astype(np.float64, copy=False) for array in arrays))
        return [array.astype(kind.as_numpy_dtype, copy=False) for array, (_, kind) in zip(found, specs, strict=True)]

    if tf.executing_eagerly():
        return [tf.convert_to_tensor(array) for array in call(*(tensor.numpy() for tensor in tensors))]
    results = tf.numpy_function(call, tensors, [kind for _, kind in specs], stateful=False, name=_NAME)
    for result, (shape, _) in zip(results, specs, strict=True):
        result.set_shape(shape)
    return results


def _batch_shape(host: Host, values: Tensors) -> tf.TensorShape:
    """Returns what is known of the batch axes before the graph runs."""
    batch = tf.TensorShape([])
    for value, shape in zip(values, host.layer.compiled.parameters.shapes, strict=True):
        if value.shape.rank is None:
            return value.shape
        batch = tf.broadcast_static_shape(batch, value.shape[: value.shape.rank - len(shape)])
    return batch

"""The doors behind one face, for tests that run in all of them: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from cvxlayers import CvxpyLayer

Arrays = Sequence[np.ndarray]
Gradients = tuple[list[np.ndarray], list[np.ndarray]]


def numpy_door(layer: CvxpyLayer, values: Arrays, cotangents: Arrays) -> Gradients:
    """Outputs and gradients of the neutral layer."""
    outputs = layer(*values)
    weights = [np.asarray(c, dtype=float) for c in cotangents]
    return list(outputs), list(layer.vjp(values, weights)[0])


def torch_door(layer: CvxpyLayer, values: Arrays, cotangents: Arrays) -> Gradients:
    """Outputs and gradients by autograd."""
    torch = pytest.importorskip("torch")
    tensors = [torch.tensor(value, requires_grad=True) for value in values]
    outputs = layer.to_torch()(*tensors)
    weights = [torch.tensor(c, dtype=output.dtype) for c, output in zip(cotangents, outputs, strict=True)]
    gradients = torch.autograd.grad(outputs, tensors, weights)
    return [output.detach().numpy() for output in outputs], [gradient.numpy() for gradient in gradients]


def jax_door(layer: CvxpyLayer, values: Arrays, cotangents: Arrays) -> Gradients:
    """Outputs and gradients by jax.vjp, compiled."""
    jax = pytest.importorskip("jax")
    with jax.enable_x64(np.asarray(values[0]).dtype == np.float64):
        arrays = [jax.numpy.asarray(value) for value in values]
        door = layer.to_jax()

        def both(arrays: Any, cotangents: Any) -> Any:
            outputs, pull = jax.vjp(door, *arrays)
            weights = tuple(c.astype(output.dtype) for c, output in zip(cotangents, outputs, strict=True))
            return outputs, pull(weights)

        outputs, gradients = jax.jit(both)(arrays, [jax.numpy.asarray(c) for c in cotangents])
        return [np.asarray(output) for output in outputs], [np.asarray(gradient) for gradient in gradients]


def tensorflow_door(layer: CvxpyLayer, values: Arrays, cotangents: Arrays) -> Gradients:
    """Outputs and gradients by a tape."""
    tf = pytest.importorskip("tensorflow")
    tensors = [tf.constant(value) for value in values]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        outputs = layer.to_tensorflow()(*tensors)
    weights = [tf.constant(c, output.dtype) for c, output in zip(cotangents, outputs, strict=True)]
    gradients = tape.gradient(list(outputs), tensors, weights)
    return [output.numpy() for output in outputs], [gradient.numpy() for gradient in gradients]


DOORS: dict[str, Callable[[CvxpyLayer, Arrays, Arrays], Gradients]] = {
    "numpy": numpy_door,
    "torch": torch_door,
    "jax": jax_door,
    "tensorflow": tensorflow_door,
}

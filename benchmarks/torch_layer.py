"""A PyTorch layer as a contender."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from types import ModuleType

import numpy as np
import torch

from benchmarks.contest import Answer, Array, Contender

Layer = Callable[..., tuple[torch.Tensor, ...]]


def layer_contender(name: str, layer: Layer, parameters: Mapping[str, Array], weights: Array) -> Contender:
    """Returns a layer as a contender: every parameter requires a gradient, of the solution's product with `weights`."""
    tensors = {key: torch.tensor(value, requires_grad=True) for key, value in parameters.items()}
    return Contender(name, partial(layer, *tensors.values()), partial(_step, layer, tensors, torch.tensor(weights)))


def peer_door() -> ModuleType:
    """Returns cvxpylayers' door to PyTorch. To be called after our layers are built: it replaces parts of CVXPY."""
    return import_module("cvxpylayers.torch")


def _step(layer: Layer, tensors: dict[str, torch.Tensor], weights: torch.Tensor) -> Callable[[], Answer]:
    (x,) = layer(*tensors.values())
    gradients = torch.autograd.grad(x, list(tensors.values()), weights)
    return partial(_answer, x, dict(zip(tensors, gradients, strict=True)))


def _answer(x: torch.Tensor, gradients: dict[str, torch.Tensor]) -> Answer:
    arrays = {name: gradient.numpy() for name, gradient in gradients.items()}
    if "Q" in arrays:
        # Q is symmetric: only the symmetric part of its gradient means anything.
        arrays["Q"] = (arrays["Q"] + np.swapaxes(arrays["Q"], -1, -2)) / 2
    return Answer(x.detach().numpy(), arrays)

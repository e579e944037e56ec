"""A PyTorch layer, or any function of tensors, as a contender."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch

from benchmarks.contest import Answer, Array, Contender

Layer = Callable[..., tuple[torch.Tensor, ...]]

# Parameters that are symmetric matrices: only the symmetric part of their gradient means anything.
SYMMETRIC = ("C", "Q", "R")


def layer_contender(layer: Layer, parameters: Mapping[str, Array], weights: Array) -> Contender:
    """Returns a layer as a contender: every parameter requires a gradient, of the solution's product with `weights`."""
    tensors = {key: torch.tensor(value, requires_grad=True) for key, value in parameters.items()}
    return Contender(partial(layer, *tensors.values()), partial(_step, layer, tensors, torch.tensor(weights)))


def _step(layer: Layer, tensors: dict[str, torch.Tensor], weights: torch.Tensor) -> Callable[[], Answer]:
    x = layer(*tensors.values())[0]
    gradients = torch.autograd.grad(x, list(tensors.values()), weights)
    return partial(_answer, x, dict(zip(tensors, gradients, strict=True)))


def _answer(x: torch.Tensor, gradients: dict[str, torch.Tensor]) -> Answer:
    return make_answer(x.detach().numpy(), {name: gradient.numpy() for name, gradient in gradients.items()})


def make_answer(solution: Array, gradients: Mapping[str, Array]) -> Answer:
    """Returns the answer, with gradients of symmetric parameters made symmetric."""
    symmetrised = {
        name: (value + np.swapaxes(value, -1, -2)) / 2 if name in SYMMETRIC else value
        for name, value in gradients.items()
    }
    return Answer(solution, symmetrised)

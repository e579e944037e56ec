"""A layer as operators of PyTorch's dispatcher: what `torch.compile` and `torch.export` put into their graphs.

A graph holds no Python objects: the layer stands in it as the text of its file (see `cvxlayers.artifact`), so that an
exported program is complete.
"""

from __future__ import annotations

import base64
from functools import lru_cache
from typing import Any

import torch

from cvxlayers import artifact
from cvxlayers.host import Host
from cvxlayers.layer import Layer
from cvxlayers.torch_function import promoted, to_numpy

Tensors = list[torch.Tensor]

_SOLVE = "(str layer, Tensor[] parameters) -> Tensor[]"
_PULL = "(str layer, Tensor[] parameters, Tensor state, Tensor[] cotangents) -> Tensor[]"


def encode(layer: Layer) -> str:
    """Returns a layer as text."""
    return base64.b64encode(artifact.dumps(layer)).decode()


@lru_cache(maxsize=64)
def _decode(text: str) -> Host:
    layer = artifact.loads(base64.b64decode(text))
    return Host(layer, layer.options)


@torch.library.custom_op("cvxlayers::solve", mutates_args=(), schema=_SOLVE)
def solve(layer: str, parameters: Tensors) -> Tensors:
    """Returns the variables, and behind them the state of the call."""
    *outputs, state = _decode(layer).solve_flat(*(to_numpy(parameter) for parameter in parameters))
    dtype, device = promoted(parameters), _device(parameters)
    return [*(torch.tensor(output, dtype=dtype, device=device) for output in outputs), torch.tensor(state)]


@torch.library.custom_op("cvxlayers::pull", mutates_args=(), schema=_PULL)
def pull(layer: str, parameters: Tensors, state: torch.Tensor, cotangents: Tensors) -> Tensors:
    """Returns the cotangents of the parameters."""
    values = [to_numpy(parameter) for parameter in parameters]
    gradients = _decode(layer).derive("pull", values, state.numpy(), [[to_numpy(c) for c in cotangents]])
    return [
        torch.tensor(gradient, dtype=parameter.dtype, device=parameter.device)
        for gradient, parameter in zip(gradients, parameters, strict=True)
    ]


def _solve_fake(layer: str, parameters: Tensors) -> Tensors:
    host = _decode(layer)
    maps = host.layer.compiled.parameters
    leads = maps.leads([tuple(parameter.shape) for parameter in parameters])
    batch = torch.broadcast_shapes(*leads)
    dtype, device = promoted(parameters), _device(parameters)
    shapes = host.layer.compiled.variables.shapes
    outputs = [torch.empty((*batch, *shape), dtype=dtype, device=device) for shape in shapes]
    return [*outputs, torch.empty((*batch, host.width), dtype=torch.float64)]


def _pull_fake(layer: str, parameters: Tensors, state: torch.Tensor, cotangents: Tensors) -> Tensors:
    return [torch.empty_like(parameter, memory_format=torch.contiguous_format) for parameter in parameters]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensors) -> None:
    ctx.layer, parameters = inputs
    ctx.save_for_backward(*parameters, output[-1])


def _solve_backward(ctx: Any, cotangents: Tensors) -> tuple[None, Tensors]:
    *parameters, state = ctx.saved_tensors
    return None, pull(ctx.layer, parameters, state, [cotangent.contiguous() for cotangent in cotangents[:-1]])


def _device(parameters: Tensors) -> torch.device:
    return parameters[0].device if parameters else torch.device("cpu")


solve.register_fake(_solve_fake)
pull.register_fake(_pull_fake)
solve.register_autograd(_solve_backward, setup_context=_keep)

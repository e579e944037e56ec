"""A layer as autograd functions: one that solves, and one for its derivatives, with the rules of `cvxlayers.rules`.

What a derivative needs is the record of the call, which travels with it as one of its results.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.autograd import Function, forward_ad

from cvxlayers import envelope, rules
from cvxlayers.errors import DerivativeError
from cvxlayers.forward import Forward
from cvxlayers.layer import Layer
from cvxlayers.result import WarmStart
from cvxlayers.solve import CallOptions
from cvxlayers.variable_map import VariableMap

Group = list[Any]


@dataclass(frozen=True, eq=False)
class Request:
    """A layer with what is asked of one call.

    Attributes:
        layer: what is called.
        options: what the call asks for.
        warm_start: where it starts from.
        outputs: what it returns; the layer's variables by default.
        with_objective: whether the optimal value comes behind them.
    """

    layer: Layer
    options: CallOptions
    warm_start: WarmStart | None = None
    outputs: VariableMap | None = None
    with_objective: bool = False

    def shapes(self) -> list[tuple[int, ...]]:
        """Returns the shapes of the results, without batch axes."""
        chosen = self.layer.compiled.variables if self.outputs is None else self.outputs
        return [*chosen.shapes, ()] if self.with_objective else list(chosen.shapes)


def solve(request: Request, parameters: Sequence[torch.Tensor]) -> tuple[Any, ...]:
    """Returns the record of the call, and the results as tensors."""
    if _nothing_is_recorded():
        return _Solve.forward(request, *parameters)
    run = _Solve if torch._C._are_functorch_transforms_active() else _Recorded
    return run.apply(request, *parameters)


def derive(
    kind: str, request: Request, call: Forward, values: rules.Group, groups: Sequence[rules.Group], directions: int
) -> tuple[Any, ...]:
    """Returns a derivative of a layer; None in a group is zero."""
    run = _Derive.forward if _nothing_is_recorded() else _Derive.apply
    return run(kind, request, call, directions, *values, *(array for group in groups for array in group))


def _nothing_is_recorded() -> bool:
    """Whether no derivative is taken of what is computed now, and no transformation is under way."""
    return not (
        torch.is_grad_enabled() or torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
    )


class _Solve(Function):
    @staticmethod
    def forward(request: Request, *parameters: torch.Tensor) -> tuple[Any, ...]:
        values = [to_numpy(parameter) for parameter in parameters]
        call = request.layer.forward(values, request.options, request.warm_start, request.outputs)
        arrays = [*call.outputs, request.layer.objective(call)] if request.with_objective else call.outputs
        return call, *_tensors(arrays, [promoted(parameters)] * len(arrays), parameters)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        ctx.request, ctx.call = inputs[0], output[0]
        ctx.save_for_backward(*inputs[1:])
        ctx.save_for_forward(*inputs[1:])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        return None, *derive("pull", ctx.request, ctx.call, ctx.saved_tensors, [cotangents[1:]], 0)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return None, *derive("push", ctx.request, ctx.call, ctx.saved_tensors, [tangents[1:]], 0)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> Any:
        request, *parameters = arguments
        leads = _leads(request, parameters, in_dims[1:])
        depth = max((len(lead) for lead in leads), default=0)
        aligned = [
            value if axis is None else _aligned(value.movedim(axis, 0), 0, depth - len(lead))
            for value, axis, lead in zip(parameters, in_dims[1:], leads, strict=True)
        ]
        results = _Solve.apply(request, *aligned)
        return results, (None, *[0] * (len(results) - 1))


class _Recorded(Function):
    """The same without transformations, in whose favour each call would look up its own signature."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Any, ...]:
        output = _Solve.forward(*inputs)
        _Solve.setup_context(ctx, inputs, output)
        return output

    backward, jvp = staticmethod(_Solve.backward), staticmethod(_Solve.jvp)


class _Derive(Function):
    @staticmethod
    def forward(kind: str, request: Request, call: Forward, directions: int, *tensors: Any) -> tuple[Any, ...]:
        values, groups = _split(kind, request, tensors)
        if any(value.shape != known.shape for value, known in zip(values, call.values, strict=True)):
            # A vmap over the derivative alone has given a parameter the batch axes of the others.
            call = replace(call, values=[to_numpy(value) for value in values])
        arrays = [[None if tensor is None else to_numpy(tensor) for tensor in group] for group in groups]
        results = _compute(kind, request, call, arrays, directions)
        dtypes = [value.dtype for value in values]
        if rules.RETURNS[kind] == "v":
            dtypes = [promoted(values)] * len(results)
        return tuple(_tensors(results, dtypes, values))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        ctx.kind, ctx.request, ctx.call, ctx.directions, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *back: Any) -> Any:
        values, groups = _split(ctx.kind, ctx.request, ctx.saved_tensors)
        needed, needed_groups = _split(ctx.kind, ctx.request, ctx.needs_input_grad[4:])
        gradients: Group = [None] * len(values)
        if any(needed):
            rules.require_second(ctx.request.layer, ctx.kind)
            order = [groups[0], back] if ctx.kind == "pull" else [back, groups[0]]
            curved = derive("push_pull", ctx.request, ctx.call, values, order, ctx.directions)
            gradients = [_summed(gradient, ctx.directions) for gradient in curved]
        for index, group in enumerate(groups):
            if any(needed_groups[index]):
                kind, order = rules.transpose(ctx.kind, index, groups, back)
                found = derive(kind, ctx.request, ctx.call, values, order, ctx.directions)
                # A cotangent that nobody passed, of an output that is not used, takes none.
                gradients += [one if need else None for one, need in zip(found, needed_groups[index], strict=True)]
            else:
                gradients += [None] * len(group)
        return None, None, None, None, *gradients

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        values, groups = _split(ctx.kind, ctx.request, ctx.saved_tensors)
        dvalues, dgroups = _split(ctx.kind, ctx.request, tangents[4:])
        parts = []
        for index, dgroup in enumerate(dgroups):
            if any(tangent is not None for tangent in dgroup):
                varied = [dgroup if index == other else group for other, group in enumerate(groups)]
                parts.append(derive(ctx.kind, ctx.request, ctx.call, values, varied, ctx.directions))
        if any(tangent is not None for tangent in dvalues):
            lead = next(t.shape[: ctx.directions] for group in groups for t in group if t is not None)
            spread = [None if d is None else d.expand(lead + d.shape) for d in dvalues]
            kind, order = rules.moving(ctx.request.layer, ctx.kind, groups, spread)
            parts.append(derive(kind, ctx.request, ctx.call, values, order, ctx.directions))
        return tuple(sum(column[1:], start=column[0]) for column in zip(*parts, strict=True))

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> Any:
        kind, request, call, directions, *tensors = arguments
        values, groups = _split(kind, request, tensors)
        value_axes, group_axes = _split(kind, request, in_dims[4:])
        size = info.batch_size
        if all(axis is None for axis in value_axes):
            moved = [
                [_front(tensor, axis, 0, size) for tensor, axis in zip(group, axes, strict=True)]
                for group, axes in zip(groups, group_axes, strict=True)
            ]
            results = derive(kind, request, call, values, moved, directions + 1)
            return results, (0,) * len(results)
        leads = _leads(request, values, value_axes)
        depth = max(len(lead) for lead in leads)
        pads = {"p": [depth - len(lead) for lead in leads], "v": [0] * len(request.shapes())}
        aligned = [
            _aligned(_front(value, axis, 0, size), 0, pad)
            for value, axis, pad in zip(values, value_axes, pads["p"], strict=True)
        ]
        moved = [
            [
                _aligned(_front(tensor, axis, directions, size), directions, pad)
                for tensor, axis, pad in zip(group, axes, pads[letter], strict=True)
            ]
            for group, axes, letter in zip(groups, group_axes, rules.TAKES[kind], strict=True)
        ]
        results = derive(kind, request, call, aligned, moved, directions)
        squeezed = [
            result.squeeze(tuple(range(directions + 1, directions + 1 + pad))) if pad else result
            for result, pad in zip(results, pads[rules.RETURNS[kind]], strict=True)
        ]
        return tuple(squeezed), (directions,) * len(squeezed)


def _compute(
    kind: str, request: Request, call: Forward, groups: Sequence[rules.Group], directions: int
) -> list[np.ndarray]:
    """Computes a derivative, with the optimal value as the last of the variables where the call has it."""
    layer, takes = request.layer, rules.TAKES[kind]
    if not request.with_objective:
        return rules.derive(layer, call, kind, groups, directions)
    if kind == "pull":
        *cotangents, objective = groups[0]
        return layer.vjp(call, cotangents, objective, directions)[0]
    if kind == "push" and not directions:
        (dtheta,) = layer.theta_tangents(call, groups[0], 0)[1]
        return [*layer.jvp(call, groups[0])[0], envelope.tangent(layer.compiled, call, dtheta)]
    if takes == ("v", "p") and groups[0][-1] is None:
        return rules.derive(layer, call, kind, [groups[0][:-1], groups[1]], directions)
    raise DerivativeError(
        "second derivatives of the optimal value, and several tangents of it at once, are not offered by `solve`: call "
        "the layer, and write the objective as an expression of its variables"
    )


def _split(kind: str, request: Request, tensors: Sequence[Any]) -> tuple[Group, list[Group]]:
    """Takes what follows the static arguments apart: values and groups."""
    count = len(request.layer.compiled.parameters.names)
    widths = {"p": count, "v": len(request.shapes())}
    rest: Iterator[Any] = iter(tensors[count:])
    return list(tensors[:count]), [[next(rest) for _ in range(widths[letter])] for letter in rules.TAKES[kind]]


def _leads(request: Request, values: Sequence[Any], axes: Sequence[Any]) -> list[tuple[int, ...]]:
    shapes = [
        tuple(value.shape) if axis is None else (*value.shape[:axis], *value.shape[axis + 1 :])
        for value, axis in zip(values, axes, strict=True)
    ]
    return request.layer.compiled.parameters.leads(shapes)


def _front(tensor: Any, axis: int | None, position: int, size: int) -> Any:
    """Moves the axis to a position; a tensor that has none gets one."""
    if tensor is None or axis is not None:
        return tensor if tensor is None else tensor.movedim(axis, position)
    shape = tensor.shape
    return tensor.unsqueeze(position).expand(*shape[:position], size, *shape[position:])


def _aligned(tensor: Any, position: int, pad: int) -> Any:
    """Puts axes of one behind the axis at a position, so that batch axes before them broadcast as they should."""
    if tensor is None or not pad:
        return tensor
    return tensor.reshape(*tensor.shape[: position + 1], *(1,) * pad, *tensor.shape[position + 1 :])


def _summed(tensor: torch.Tensor, directions: int) -> torch.Tensor:
    return tensor.sum(tuple(range(directions))) if directions else tensor


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """Returns the values as float64."""
    values = tensor.detach()
    # `to` returns such a tensor as it is, in as much time as all the rest takes.
    plain = values.dtype is torch.float64 and values.is_cpu
    return values.numpy() if plain else values.to("cpu", torch.float64).numpy()


def promoted(tensors: Sequence[torch.Tensor]) -> torch.dtype:
    """Returns the dtype that holds all of them."""
    if not tensors:
        return torch.get_default_dtype()
    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def _tensors(
    arrays: Sequence[np.ndarray], dtypes: Sequence[torch.dtype], like: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    tensors = [torch.from_numpy(np.asarray(array)) for array in arrays]
    if all(tensor.is_cpu for tensor in like) and all(dtype is torch.float64 for dtype in dtypes):
        return tensors  # `to` takes several times as long to find this out
    device = like[0].device if like else torch.device("cpu")
    return [tensor.to(device, dtype) for tensor, dtype in zip(tensors, dtypes, strict=True)]

"""A layer as JAX primitives: one that solves, and one for its derivatives, with the rules of `cvxlayers.rules`.

All is computed on the host in float64; the state of a call (see `cvxlayers.host`) crosses as pairs of uint32, so that
nothing of it is lost where JAX has no float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from cvxlayers import rules
from cvxlayers.host import Host

Group = list[Any]

solve_p = Primitive("cvxlayers_solve")
solve_p.multiple_results = True
derive_p = Primitive("cvxlayers_derive")
derive_p.multiple_results = True


def solve(host: Host, values: Sequence[jax.Array]) -> list[jax.Array]:
    """Returns the variables of a layer at the parameters' values."""
    return solve_p.bind(*values, host=host)[:-1]


def derive(
    kind: str, host: Host, values: Group, state: Any, groups: Sequence[rules.Group], directions: int
) -> list[Any]:
    """Returns a derivative of a layer; None in a group is zero."""
    given = tuple(tuple(array is not None for array in group) for group in groups)
    arrays = [array for group in groups for array in group if array is not None]
    return derive_p.bind(*values, state, *arrays, kind=kind, host=host, directions=directions, given=given)


def _split(arguments: Sequence[Any], host: Host, given: Sequence[Sequence[bool]]) -> tuple[Group, Any, list[Group]]:
    """Takes the arguments of the derivatives apart: values, state, and groups with None where nothing is given."""
    count = len(host.layer.compiled.parameters.names)
    rest: Iterator[Any] = iter(arguments[count + 1 :])
    groups = [[next(rest) if there else None for there in group] for group in given]
    return list(arguments[:count]), arguments[count], groups


def _leads(host: Host, values: Sequence[Any]) -> list[tuple[int, ...]]:
    return host.layer.compiled.parameters.leads([value.shape for value in values])


def _variable_avals(host: Host, values: Sequence[Any], lead: tuple[int, ...]) -> list[jax.ShapeDtypeStruct]:
    dtype = jnp.result_type(*(value.dtype for value in values)) if values else jnp.result_type(float)
    batch = host.layer.compiled.parameters.batch_shape(_leads(host, values))
    return [jax.ShapeDtypeStruct(lead + batch + shape, dtype) for shape in host.layer.compiled.variables.shapes]


def _solve_avals(*values: Any, host: Host) -> list[jax.ShapeDtypeStruct]:
    batch = host.layer.compiled.parameters.batch_shape(_leads(host, values))
    return [*_variable_avals(host, values, ()), jax.ShapeDtypeStruct((*batch, 2 * host.width), np.uint32)]


def _derive_avals(*arguments: Any, kind: str, host: Host, directions: int, given: Any) -> list[jax.ShapeDtypeStruct]:
    values, _, groups = _split(arguments, host, given)
    lead = next(array.shape[:directions] for group in groups for array in group if array is not None)
    if rules.RETURNS[kind] == "v":
        return _variable_avals(host, values, lead)
    return [jax.ShapeDtypeStruct(lead + value.shape, value.dtype) for value in values]


def _solve_numpy(host: Host, *arrays: Any) -> list[np.ndarray]:
    outputs, state = host.solve([_float64(array) for array in arrays])
    return _cast([*outputs, state.view(np.uint32)], _solve_avals(*arrays, host=host))


def _derive_numpy(kind: str, host: Host, directions: int, given: Any, *arrays: Any) -> list[np.ndarray]:
    values, state, groups = _split(arrays, host, given)
    bits = np.ascontiguousarray(state).view(np.float64)
    converted = [[None if array is None else _float64(array) for array in group] for group in groups]
    results = host.derive(kind, [_float64(value) for value in values], bits, converted, directions)
    return _cast(results, _derive_avals(*arrays, kind=kind, host=host, directions=directions, given=given))


def _float64(array: Any) -> np.ndarray:
    return np.asarray(array).astype(np.float64, copy=False)


def _cast(arrays: Sequence[np.ndarray], avals: Sequence[jax.ShapeDtypeStruct]) -> list[np.ndarray]:
    return [array.astype(aval.dtype, copy=False) for array, aval in zip(arrays, avals, strict=True)]


def _register(
    primitive: Primitive, compute: Callable[..., Callable[..., list[np.ndarray]]], avals: Callable[..., list[Any]]
) -> None:
    """Gives a primitive its two implementations: a direct call, and a callback where a program is compiled."""

    def eager(*arguments: Any, **static: Any) -> list[jax.Array]:
        return [jnp.asarray(array) for array in compute(**static)(*arguments)]

    def compiled(*arguments: Any, **static: Any) -> Any:
        results = jax.pure_callback(compute(**static), avals(*arguments, **static), *arguments)
        # A callback's result has no sharding that other computations take, where nothing stands behind it.
        return jax.lax.optimization_barrier(results)

    def lower(context: Any, *operands: Any, **static: Any) -> Any:
        where = context.module_context.axis_context
        if not isinstance(where, mlir.ShardingContext) or where.num_devices > 1:
            return mlir.lower_fun(compiled, multiple_results=True)(context, *operands, **static)
        results, _, _ = mlir.emit_python_callback(
            context,
            lambda *arrays: tuple(compute(**static)(*arrays)),
            None,
            operands,
            context.avals_in,
            context.avals_out,
            has_side_effect=False,
            returns_token=False,
        )
        return results

    def abstract(*arguments: Any, **static: Any) -> list[Any]:
        return [jax.core.ShapedArray(aval.shape, aval.dtype) for aval in avals(*arguments, **static)]

    primitive.def_impl(eager)
    primitive.def_abstract_eval(abstract)
    mlir.register_lowering(primitive, lower)


def _solve_jvp(values: Sequence[Any], tangents: Sequence[Any], *, host: Host) -> tuple[list[Any], list[Any]]:
    *outputs, state = solve_p.bind(*values, host=host)
    moved = [None if _is_zero(tangent) else tangent for tangent in tangents]
    pushed = derive("push", host, list(values), state, [moved], 0)
    still = ad.Zero(jax.core.ShapedArray(state.shape, jax.dtypes.float0))
    return [*outputs, state], [*pushed, still]


def _derive_jvp(
    primals: Sequence[Any], tangents: Sequence[Any], *, kind: str, host: Host, directions: int, given: Any
) -> tuple[list[Any], list[Any]]:
    values, state, groups = _split(primals, host, given)
    dvalues, _, dgroups = _split(tangents, host, given)
    primal = derive(kind, host, values, state, groups, directions)
    parts = []
    for index, dgroup in enumerate(dgroups):
        moved = [None if array is None or _is_zero(array) else array for array in dgroup]
        if any(array is not None for array in moved):
            varied = [moved if index == other else group for other, group in enumerate(groups)]
            parts.append(derive(kind, host, values, state, varied, directions))
    if not all(_is_zero(tangent) for tangent in dvalues):
        lead = next(array.shape[:directions] for group in groups for array in group if array is not None)
        spread = [None if _is_zero(d) else jnp.broadcast_to(d, lead + d.shape) for d in dvalues]
        second, taken = rules.moving(host.layer, kind, groups, spread)
        parts.append(derive(second, host, values, state, taken, directions))
    return primal, [sum(column[1:], start=column[0]) for column in zip(*parts, strict=True)]


def _derive_transpose(
    results: Sequence[Any], *arguments: Any, kind: str, host: Host, directions: int, given: Any
) -> list[Any]:
    values, state, groups = _split(arguments, host, given)
    back = [None if _is_zero(result) else result for result in results]
    linear = next(i for i, group in enumerate(groups) if any(ad.is_undefined_primal(array) for array in group))
    opposite, order = rules.transpose(kind, linear, groups, back)
    pulled = derive(opposite, host, values, state, order, directions)
    blank: list[Any] = [None] * (len(values) + 1)
    for index, group in enumerate(groups):
        for array, cotangent in zip(group, pulled if index == linear else [None] * len(group), strict=True):
            blank += [] if array is None else [cotangent]
    return blank


def _solve_batch(arguments: Sequence[Any], axes: Sequence[Any], *, host: Host) -> tuple[list[Any], list[int]]:
    leads = _leads(host, [_without(array, axis) for array, axis in zip(arguments, axes, strict=True)])
    depth = max((len(lead) for lead in leads), default=0)
    values = [
        value if axis is None else _aligned(jnp.moveaxis(value, axis, 0), 0, depth - len(lead))
        for value, axis, lead in zip(arguments, axes, leads, strict=True)
    ]
    results = solve_p.bind(*values, host=host)
    return results, [0] * len(results)


def _derive_batch(
    arguments: Sequence[Any], axes: Sequence[Any], *, kind: str, host: Host, directions: int, given: Any
) -> tuple[list[Any], list[int]]:
    values, state, groups = _split(arguments, host, given)
    value_axes, state_axis, group_axes = _split(axes, host, given)
    size = next(a.shape[axis] for a, axis in zip(arguments, axes, strict=True) if axis is not None)
    if state_axis is None and all(axis is None for axis in value_axes):
        moved = [
            [None if a is None else _front(a, axis, 0, size) for a, axis in zip(group, group_axis, strict=True)]
            for group, group_axis in zip(groups, group_axes, strict=True)
        ]
        results = derive(kind, host, values, state, moved, directions + 1)
        return results, [0] * len(results)
    leads = _leads(host, [_without(array, axis) for array, axis in zip(values, value_axes, strict=True)])
    depth = max(len(lead) for lead in leads)
    pads = {"p": [depth - len(lead) for lead in leads], "v": [0] * len(host.layer.compiled.variables.names)}

    def align(array: Any, axis: Any, position: int, pad: int) -> Any:
        return None if array is None else _aligned(_front(array, axis, position, size), position, pad)

    aligned = [align(a, axis, 0, pad) for a, axis, pad in zip(values, value_axes, pads["p"], strict=True)]
    moved = [
        [align(a, axis, directions, pad) for a, axis, pad in zip(group, group_axis, pads[letter], strict=True)]
        for group, group_axis, letter in zip(groups, group_axes, rules.TAKES[kind], strict=True)
    ]
    results = derive(kind, host, aligned, _front(state, state_axis, 0, size), moved, directions)
    pad_of = pads[rules.RETURNS[kind]]
    squeezed = [
        jnp.squeeze(result, tuple(range(directions + 1, directions + 1 + pad)))
        for result, pad in zip(results, pad_of, strict=True)
    ]
    return squeezed, [directions] * len(squeezed)


def _front(array: Any, axis: int | None, position: int, size: int) -> Any:
    """Moves the axis to a position; an array that has none gets one."""
    if axis is not None:
        return jnp.moveaxis(array, axis, position)
    shape = array.shape
    return jnp.broadcast_to(jnp.expand_dims(array, position), (*shape[:position], size, *shape[position:]))


def _aligned(array: Any, position: int, pad: int) -> Any:
    """Puts axes of one behind the axis at a position, so that batch axes before them broadcast as they should."""
    return jnp.expand_dims(array, tuple(range(position + 1, position + 1 + pad))) if pad else array


def _without(array: Any, axis: int | None) -> Any:
    shape = array.shape if axis is None else array.shape[:axis] + array.shape[axis + 1 :]
    return jax.ShapeDtypeStruct(shape, array.dtype)


def _is_zero(tangent: Any) -> bool:
    return isinstance(tangent, ad.Zero)


_register(solve_p, lambda host: partial(_solve_numpy, host), _solve_avals)
_register(
    derive_p,
    lambda kind, host, directions, given: partial(_derive_numpy, kind, host, directions, given),
    _derive_avals,
)
ad.primitive_jvps[solve_p] = _solve_jvp
ad.primitive_jvps[derive_p] = _derive_jvp
ad.primitive_transposes[derive_p] = _derive_transpose
batching.primitive_batchers[solve_p] = _solve_batch
batching.primitive_batchers[derive_p] = _derive_batch

"""Derivatives compared with finite differences whose own error is known.

Along a curve through each parameter's value, a random function of the outputs is differenced to fourth order,

    f' ≈ (8 (f(h) − f(−h)) − (f(2h) − f(−2h))) / 12h,

for steps from large to small. Truncation falls with h⁴ and noise grows with 1/h; the step at which neighbouring steps
agree best is taken, and by how much they disagree, together with the accuracy of the solves, is the error of the
difference. Where that error is larger than what is asked for, the difference proves nothing: there is a kink nearby,
or too much noise.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from jaxtyping import Float, Int

from cvxlayers.directions import curve, random_direction
from cvxlayers.errors import DerivativeWarning, OptionError
from cvxlayers.forward import Array, Forward
from cvxlayers.layer import Layer
from cvxlayers.parameter_map import ParameterMap

_STEPS = 10.0 ** -np.arange(1.0, 6.5, 0.5)
_STENCIL = np.array([-2.0, -1.0, 1.0, 2.0])
_WEIGHTS = np.array([1.0, -8.0, 8.0, -1.0]) / 12.0
# Derivatives below this part of the parameter's whole gradient are compared with it.
_SMALL = 1e-3
# Nor does a derivative mean anything that moves the function by less than this part of it, along the value itself.
_NOTHING = 1e-6
# The step at which a kink shows, as a position among the steps, and the bend that is one.
_FINE, _BENT = 4, 1e-3
# What rounding alone does to a solution.
_ROUNDING = 1e-15


class Verdict(IntEnum):
    """What the comparison says of one parameter of one item, from good to bad."""

    AGREES = 0
    NOT_SOLVED = 1
    DIFFERENCES_UNRELIABLE = 2
    DERIVATIVE_UNRELIABLE = 3
    DIFFERS = 4


@dataclass(frozen=True, eq=False)
class GradientCheck:
    """Derivatives compared with differences, per parameter (the first axis) and item.

    Attributes:
        names: the parameters.
        verdict: a `Verdict`, as an integer: DERIVATIVE_UNRELIABLE where the layer itself says so (see
            `DerivativeInfo.reliable`), DIFFERENCES_UNRELIABLE where the differences have too large an error.
        error: how far the derivative is from the difference, relative to the larger of both.
        difference_error: how far the difference may itself be off, relative to the same.
        tolerance: up to which they agree.
    """

    names: tuple[str, ...]
    verdict: Int[np.ndarray, "parameters *batch"]
    error: Float[np.ndarray, "parameters *batch"]
    difference_error: Float[np.ndarray, "parameters *batch"]
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether no derivative differs from a difference while both count as reliable."""
        return not bool((self.verdict == Verdict.DIFFERS).any())

    def __str__(self) -> str:
        """One line for each parameter."""
        rows = zip(self.names, self.verdict, self.error, self.difference_error, strict=True)
        return "\n".join(_line(name, *map(np.ravel, columns)) for name, *columns in rows) or "there are no parameters"


def _line(
    name: str,
    verdict: Int[np.ndarray, " items"],
    error: Float[np.ndarray, " items"],
    noise: Float[np.ndarray, " items"],
) -> str:
    if not len(verdict):
        return f"{name}: no items"
    counts = {kind.name.lower().replace("_", " "): np.sum(verdict == kind) for kind in Verdict}
    found = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    worst = int(np.lexsort((np.nan_to_num(error), verdict))[-1])
    where = f" (item {worst})" if len(verdict) > 1 else ""
    return (
        f"{name}: {found}; worst{where}: relative error {error[worst]:.1e}, of the difference itself {noise[worst]:.1e}"
    )


def gradcheck(
    layer: Layer, values: Sequence[Array], tolerance: float = 1e-5, directions: int = 2, seed: int = 0
) -> GradientCheck:
    """Compares a layer's vjp with differences, along random directions for each parameter.

    Args:
        layer: the layer.
        values: one array per parameter, of shape (*batch, *parameter.shape).
        tolerance: relative error up to which they agree.
        directions: how many for each parameter.
        seed: of the random numbers.

    Raises:
        OptionError: if the layer's derivative is lpgd's, which is the derivative of nothing.
    """
    if layer.differentiation.kind == "lpgd":
        raise OptionError('lpgd\'s differences are no derivative: check the same layer with derivative="exact"')
    layer = replace(layer, check=False, strict=False, options=replace(layer.options, on_failure="nan"))
    maps, rng = layer.compiled.parameters, np.random.default_rng(seed)
    _, batch_shape = maps.flatten(values)
    spread = [
        np.ascontiguousarray(np.broadcast_to(value, batch_shape + shape)).reshape((-1, *shape))
        for value, shape in zip(values, maps.shapes, strict=True)
    ]
    call = layer.forward(spread, layer.options)
    weights = [rng.normal(size=(1, *shape)) for shape in layer.compiled.variables.shapes]
    size = _function(layer, call, [np.abs(weight) for weight in weights], np.abs)
    cotangents = [np.broadcast_to(weight, output.shape) for weight, output in zip(weights, call.outputs, strict=True)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DerivativeWarning)  # its words are in the verdict
        gradients, info = layer.vjp(call, cotangents)
    size, start = np.where(size > 0, size, 1.0), _function(layer, call, weights)
    noise = np.maximum(call.point.accuracy(call.program), _ROUNDING) * size
    columns = []
    for slot in range(len(spread)):
        errors = [
            _compare(layer, spread, slot, gradients[slot], weights, (start, size, noise), rng)
            for _ in range(directions)
        ]
        error, own, kinked = (np.max(column, axis=0) for column in zip(*errors, strict=True))
        columns.append((_judge(error, own, kinked, info.reliable, call.ok, tolerance), error, own))
    shape = (len(columns), *batch_shape)
    kinds = (np.int64, np.float64, np.float64)
    stacked = [np.array([c[k] for c in columns], dtype=kind).reshape(shape) for k, kind in enumerate(kinds)]
    return GradientCheck(tuple(maps.names), *stacked, tolerance=tolerance)


def _compare(
    layer: Layer,
    values: Sequence[Array],
    slot: int,
    gradient: Array,
    weights: Sequence[Array],
    sizes: tuple[Array, Array, Array],
    rng: np.random.Generator,
) -> tuple[Array, Array, np.ndarray]:
    """Returns the relative errors of the derivative and of the difference along one direction, and where is a kink."""
    maps, (start, size, noise) = layer.compiled.parameters, sizes
    steps = _STEPS[:, None] * _STENCIL
    points, tangent = _curve(maps, slot, values[slot], steps, rng)
    moved = [points if index == slot else value for index, value in enumerate(values)]
    f = _function(layer, layer.forward(moved, layer.options), weights)
    slopes = np.einsum("s,hsb->hb", _WEIGHTS, f) / _STEPS[:, None]
    got = np.sum((gradient * tangent).reshape((len(gradient), -1)), axis=1)
    gaps = np.abs(np.diff(slopes, axis=0))
    gaps = np.maximum(gaps[:-1], gaps[1:]) + noise / _STEPS[1:-1, None]
    gaps = np.where(np.isnan(gaps), np.inf, gaps)
    best = np.argmin(gaps, axis=0)
    items = np.arange(len(best))
    want, off = slopes[1 + best, items], gaps[best, items]
    whole = np.sqrt(
        np.sum(gradient.reshape((len(gradient), -1)) ** 2, axis=1)
        * np.sum(tangent.reshape((len(tangent), -1)) ** 2, axis=1)
    )
    scale = np.maximum(np.maximum(np.abs(got), np.abs(want)), np.maximum(_SMALL * whole, _NOTHING * size))
    # f(h) − 2 f(0) + f(−h) falls with h² where f is smooth, and with h only at a kink, whose mean the difference sees.
    bend = np.abs(f[:, 1] + f[:, 2] - 2.0 * start) / _STEPS[:, None]
    kinked = (bend[_FINE] > 0.3 * bend[0]) & (bend[_FINE] > _BENT * scale) & (bend[_FINE] > 10 * noise / _STEPS[_FINE])
    with np.errstate(invalid="ignore"):
        return np.abs(got - want) / scale, off / scale, kinked


def _curve(maps: ParameterMap, slot: int, value: Array, steps: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Returns the values of a parameter along a curve, of shape (*steps, items, *shape), and its tangent."""
    is_complex = bool(maps.complexes) and maps.complexes[slot]
    domain = maps.domains[slot] if maps.domains else None
    numbers = value[..., 0] + 1j * value[..., 1] if is_complex else value
    draw = np.empty_like(numbers)
    for item in range(len(draw)):
        draw[item] = random_direction(maps.user_shapes[slot], is_complex, domain, rng)
    points, tangent = curve(numbers, draw, domain, steps)
    if not is_complex:
        return points, tangent
    return np.stack([points.real, points.imag], axis=-1), np.stack([tangent.real, tangent.imag], axis=-1)


def _function(
    layer: Layer, call: Forward, weights: Sequence[Array], of: Callable[[Array], Array] = np.asarray
) -> Array:
    """Returns ⟨weights, outputs⟩ of each item, of the outputs that are differentiated; NaN without a solution."""
    point = layer.solution_maps(call).forward.point
    outputs = call.map.recover(point.x, point.y)
    total = sum(
        np.sum((of(output) * weight).reshape((len(output), -1)), axis=1)
        for output, weight in zip(outputs, weights, strict=True)
    )
    return np.where(call.ok, total, np.nan).reshape(call.batch_shape)


def _judge(
    error: Array, own: Array, kinked: np.ndarray, reliable: np.ndarray, ok: np.ndarray, tolerance: float
) -> Int[np.ndarray, " items"]:
    agrees = ((error <= tolerance) | ((error <= tolerance + own) & (own <= tolerance))) & ~kinked
    doubts = [~ok, agrees, ~reliable, kinked | ~(own <= tolerance)]
    kinds = [
        Verdict.NOT_SOLVED,
        Verdict.AGREES,
        Verdict.DERIVATIVE_UNRELIABLE,
        Verdict.DIFFERENCES_UNRELIABLE,
    ]
    return np.select(doubts, [int(kind) for kind in kinds], int(Verdict.DIFFERS))

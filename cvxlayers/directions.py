"""Random directions, and curves along them, on which parameters keep what their attributes say."""

from __future__ import annotations

import numpy as np
from jaxtyping import Complex, Float

from cvxlayers.domain import Domain
from cvxlayers.parameter_map import ParameterMap

Array = Float[np.ndarray, "..."]
Numbers = Float[np.ndarray, "..."] | Complex[np.ndarray, "..."]


def random_directions(parameters: ParameterMap, rng: np.random.Generator) -> list[Numbers]:
    """Returns for each parameter a random direction along which it keeps its symmetry and its zeros."""
    nothing = (None,) * len(parameters.shapes)
    rows = zip(parameters.user_shapes, parameters.complexes or nothing, parameters.domains or nothing, strict=True)
    return [random_direction(shape, bool(is_complex), domain, rng) for shape, is_complex, domain in rows]


def random_direction(
    shape: tuple[int, ...], is_complex: bool, domain: Domain | None, rng: np.random.Generator
) -> Numbers:
    """Returns a random direction along which a parameter keeps its symmetry and its zeros."""
    draw = np.asarray(rng.normal(size=shape) + (1j * rng.normal(size=shape) if is_complex else 0.0))
    if domain is None:
        return draw
    if domain.imaginary:
        draw = 1j * draw.imag
    if domain.symmetric:
        draw = 0.5 * (draw + draw.swapaxes(-1, -2).conj())
    return draw if domain.support is None else np.where(domain.support.reshape(shape), draw, 0.0)


def curve(value: Numbers, draw: Numbers, domain: Domain | None, step: Array) -> tuple[Numbers, Numbers]:
    """Returns points of a curve through a value that stays inside the domain, and its tangent at the value.

    It is a line, along which entries move by their distance to a bound at most; and for definite matrices the curve
    (I + hD) V (I + hD)*, which stays definite also where V is singular.

    Args:
        value: the values of all items, of shape (items, *shape).
        draw: a random direction of entries of order one, of the same shape.
        domain: what the parameter allows.
        step: the steps h, up to one half, of any shape.
    """
    h = step.reshape((*step.shape, *(1,) * value.ndim))
    if domain is not None and domain.definite:
        moved = draw @ value
        tangent = moved + moved.swapaxes(-1, -2).conj()
        return value + h * tangent + h * h * (moved @ draw.swapaxes(-1, -2).conj()), tangent
    size = np.abs(value).reshape((len(value), -1)).max(axis=1, initial=0.0)
    size = np.where(size > 0, size, 1.0).reshape((-1, *(1,) * (value.ndim - 1)))
    reach = np.broadcast_to(size / max(1.0, float(np.abs(draw).max(initial=0.0))), value.shape)
    for bound in (None if domain is None else domain.lower, None if domain is None else domain.upper):
        if bound is not None:
            away = np.abs(value - bound.reshape(value.shape[1:]))
            reach = np.minimum(reach, away / max(1.0, float(np.abs(draw).max(initial=0.0))))
    tangent = reach * draw
    return value + h * tangent, tangent

"""Values and directions that the attributes of parameters allow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from cvxlayers.domain import Domain
from cvxlayers.parameter_map import ParameterMap

Array = Float[np.ndarray, "..."]


def sample(parameters: ParameterMap, given: Sequence[object], rng: np.random.Generator) -> list[Array]:
    """Returns the value that each parameter has, and random numbers of order one where it has none."""
    pairs = zip(given, parameters.shapes, parameters.domains, strict=True)
    return [
        _drawn(shape, domain, rng) if value is None else np.asarray(value, dtype=float)
        for value, shape, domain in pairs
    ]


def direction(shape: tuple[int, ...], domain: Domain | None, rng: np.random.Generator) -> Array:
    """Returns a random direction along which a parameter keeps its symmetry and its zeros."""
    draw = np.asarray(rng.normal(size=shape))
    if domain is None:
        return draw
    if domain.symmetric:
        draw = 0.5 * (draw + draw.swapaxes(-1, -2))
    return draw if domain.support is None else np.where(domain.support.reshape(shape), draw, 0.0)


def _drawn(shape: tuple[int, ...], domain: Domain | None, rng: np.random.Generator) -> Array:
    draw = direction(shape, domain, rng)
    if domain is None:
        return draw
    if domain.definite:
        order = shape[-1]
        return domain.definite * (draw @ draw.swapaxes(-1, -2) / order + 0.5 * np.eye(order))
    lower = np.full(draw.size, -np.inf) if domain.lower is None else domain.lower
    upper = np.full(draw.size, np.inf) if domain.upper is None else domain.upper
    inside = _between(np.abs(draw).ravel() + 0.5, draw.ravel(), lower, upper)
    return (inside if domain.support is None else np.where(domain.support, inside, 0.0)).reshape(shape)


def _between(size: Array, draw: Array, lower: Array, upper: Array) -> Array:
    """Returns `size` away from a bound that stands alone, in the middle half between two, and `draw` without any."""
    share = 0.25 + 0.5 / (1 + size)
    both, below, above = np.isfinite(lower) & np.isfinite(upper), np.isfinite(lower), np.isfinite(upper)
    start, stop = np.where(below, lower, 0.0), np.where(above, upper, 0.0)
    choices = [start + share * (stop - start), start + size, stop - size]
    return np.select([both, below, above], choices, draw)

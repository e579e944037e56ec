"""Values and directions that the attributes of parameters allow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Complex, Float

from cvxlayers.directions import random_directions
from cvxlayers.domain import Domain
from cvxlayers.parameter_map import ParameterMap

Array = Float[np.ndarray, "..."]
Numbers = Float[np.ndarray, "..."] | Complex[np.ndarray, "..."]


def sample(parameters: ParameterMap, given: Sequence[object], rng: np.random.Generator) -> list[Numbers]:
    """Returns the value that each parameter has, and random numbers of order one where it has none."""
    directions = random_directions(parameters, rng)
    return [
        _inside(along, domain) if value is None else np.asarray(value, dtype=along.dtype)
        for value, along, domain in zip(given, directions, parameters.domains, strict=True)
    ]


def _inside(draw: Numbers, domain: Domain | None) -> Numbers:
    """Returns an allowed value made of a direction."""
    if domain is None or (domain.complex and not domain.definite):
        return draw
    if domain.definite:
        order = draw.shape[-1]
        return domain.definite * (draw @ draw.swapaxes(-1, -2).conj() / order + 0.5 * np.eye(order))
    lower = np.full(draw.size, -np.inf) if domain.lower is None else domain.lower
    upper = np.full(draw.size, np.inf) if domain.upper is None else domain.upper
    inside = _between(np.abs(draw).ravel() + 0.5, draw.ravel(), lower, upper)
    if domain.support is not None:
        inside = np.where(domain.support, inside, 0.0)
    return _whole(inside, domain, lower, upper).reshape(draw.shape)


def _whole(inside: Array, domain: Domain, lower: Array, upper: Array) -> Array:
    """Replaces entries that must be zero, one or whole by the nearest such number within the bounds."""
    if domain.integer is not None:
        inside = np.where(domain.integer, np.clip(np.rint(inside), np.ceil(lower), np.floor(upper)), inside)
    if domain.boolean is not None:
        inside = np.where(domain.boolean, np.clip(inside > 0.5, lower, upper), inside)
    return inside


def _between(size: Array, draw: Array, lower: Array, upper: Array) -> Array:
    """Returns `size` away from a bound that stands alone, in the middle half between two, and `draw` without any."""
    share = 0.25 + 0.5 / (1 + size)
    both, below, above = np.isfinite(lower) & np.isfinite(upper), np.isfinite(lower), np.isfinite(upper)
    start, stop = np.where(below, lower, 0.0), np.where(above, upper, 0.0)
    choices = [start + share * (stop - start), start + size, stop - size]
    return np.select([both, below, above], choices, draw)

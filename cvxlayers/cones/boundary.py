"""What the three-dimensional cones share: a monotone scalar equation, and the derivative on a curved boundary."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

Scalars = Float[np.ndarray, "*batch"]
Points = Float[np.ndarray, "*batch 3"]

# The bracket halves at least every second time: from 1400 to rounding in some 130.
_ITERATIONS = 200
# Before that, so many times, a bracket is cut into so many sections: what costs time is the number of calls.
_ROUNDS, _SECTIONS = 2, 12
_EPSILON = np.finfo(float).eps


def increasing_root(
    function: Callable[..., tuple[Scalars, Scalars, Scalars]],
    low: Scalars,
    high: Scalars,
    *data: np.ndarray,
    start: Scalars | None = None,
) -> Float[np.ndarray, "*batch"]:
    """Returns the root of an increasing function in [low, high], to rounding: Newton, bisected where it leaves.

    Args:
        function: maps a trial and the data to the value, the slope and the rounding of the value there, elementwise.
            Where the value has one sign on the whole interval, the end nearest to a root is returned.
        low: lower ends of the brackets.
        high: upper ends of the brackets.
        *data: arrays with one entry (or row) for each root. Roots that are found are not computed again.
        start: first trials in the brackets; their middles by default.
    """
    low, high = (low.copy(), high.copy()) if start is not None else _narrowed(function, low, high, data)
    found, width = 0.5 * (low + high) if start is None else start.copy(), high - low
    last = np.full(low.shape, np.inf)
    active = np.arange(low.size)
    for _ in range(_ITERATIONS):
        root = found[active]
        mine = data if active.size == low.size else [entries[active] for entries in data]
        value, slope, rounding = function(root, *mine)
        low[active] = np.where(value <= 0, root, low[active])
        high[active] = np.where(value >= 0, root, high[active])
        left, right = low[active], high[active]
        step = np.divide(value, slope, out=np.full(value.shape, np.nan), where=slope > 0)
        spacing = _EPSILON * (1.0 + np.abs(root))
        # Newton may crawl from a flat side: where neither the bracket nor the step is halved, it is bisected.
        halved = (right - left <= 0.5 * width[active]) | (np.abs(step) <= 0.5 * last[active])
        width[active], last[active] = right - left, np.abs(step)
        trial = root - step
        newton = (trial > left) & (trial < right) & halved
        done = (np.abs(value) <= rounding) | (np.abs(step) <= spacing) | (width[active] <= spacing)
        found[active] = np.where(done, root, np.where(newton, trial, 0.5 * (left + right)))
        active = active[~done]
        if active.size == 0:
            break
    return found


def _narrowed(
    function: Callable[..., tuple[Scalars, Scalars, Scalars]], low: Scalars, high: Scalars, data: tuple[np.ndarray, ...]
) -> tuple[Scalars, Scalars]:
    """Returns smaller brackets: the function is tried at points that are dense around zero, of all brackets at once."""
    shares = np.linspace(0.0, 1.0, _SECTIONS + 1)[1:-1, None]
    for _ in range(_ROUNDS):
        left, right = np.arcsinh(low), np.arcsinh(high)
        trials = np.sinh(left + shares * (right - left))
        repeated = (np.concatenate([entries] * len(trials)) for entries in data)
        values = function(trials.ravel(), *repeated)[0].reshape(trials.shape)
        low = np.maximum(low, np.max(np.where(values <= 0, trials, -np.inf), axis=0))
        high = np.maximum(low, np.minimum(high, np.min(np.where(values >= 0, trials, np.inf), axis=0)))
    return low, high


def boundary_frame(
    p: Points, normal: Points, curvature: Scalars, a: Points
) -> tuple[Points, Float[np.ndarray, "*batch 3 3"]]:
    """Returns eigenvalues and eigenvectors of DΠ where Π(v) = p lies on the smooth boundary ψ = 0 of a cone in R³.

    By the implicit function theorem on p + λ∇ψ(p) = v, ψ(p) = 0, the derivative is the inverse of I + λ∇²ψ on the
    tangent plane. The ray through p is flat (eigenvalue 1), the normal is lost (0), and across both the eigenvalue is
    1 / (1 + c (aᵀt)²), since λ∇²ψ = c a aᵀ for both cones that use this.

    Args:
        p: the projection, up to a positive factor.
        normal: the gradient of ψ there, up to a positive factor.
        curvature: c.
        a: the direction a.
    """
    ray = _unit(p)
    normal = _unit(normal)
    across = _unit(np.cross(normal, ray))
    bend = np.sum(a * across, axis=-1)
    eigenvalue = 1.0 / (1.0 + curvature * bend * bend)
    ones = np.ones(eigenvalue.shape)
    return np.stack([ones, eigenvalue, 0.0 * ones], axis=-1), np.stack([ray, across, normal], axis=-1)


def _unit(w: Points) -> Points:
    w = w / np.max(np.abs(w), axis=-1, keepdims=True)
    return w / np.sqrt(np.sum(w * w, axis=-1, keepdims=True))

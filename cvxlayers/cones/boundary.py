"""What the three-dimensional cones share: a monotone scalar equation, and the derivative on a curved boundary."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

Scalars = Float[np.ndarray, "*batch"]
Points = Float[np.ndarray, "*batch 3"]

_ITERATIONS = 200


def increasing_root(
    function: Callable[[Scalars], tuple[Scalars, Scalars]], low: Scalars, high: Scalars
) -> Float[np.ndarray, "*batch"]:
    """Returns the root of an increasing function in [low, high], to rounding: Newton, bisected where it leaves.

    Args:
        function: returns the value and the slope, elementwise. Where the value has one sign on the whole interval, the
            end nearest to a root is returned.
        low: lower ends of the brackets.
        high: upper ends of the brackets.
    """
    low, high = low.copy(), high.copy()
    root = 0.5 * (low + high)
    width = high - low
    for _ in range(_ITERATIONS):
        value, slope = function(root)
        np.copyto(high, root, where=value >= 0)
        np.copyto(low, root, where=value <= 0)
        step = np.divide(value, slope, out=np.full(value.shape, np.nan), where=slope > 0)
        trial = root - step
        # Newton on an exponential crawls from its flat side: a bracket that is not halved by a step is bisected.
        shrunk, width = high - low <= 0.5 * width, high - low
        newton = (trial > low) & (trial < high) & (shrunk | (np.abs(step) < 1e-3 * width))
        done = (np.abs(step) <= 2e-16 * np.abs(root)) | (value == 0) | (width <= 2e-16 * np.abs(root))
        if done.all():
            break
        root = np.where(done, root, np.where(newton, trial, 0.5 * (low + high)))
    return root


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

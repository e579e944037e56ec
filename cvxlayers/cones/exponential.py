"""The exponential cone.

References: Friberg, "Projection onto the exponential cone: a univariate root-finding problem" (2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float

from cvxlayers.cones.basis import BlockBasis
from cvxlayers.cones.boundary import Points, Scalars, increasing_root
from cvxlayers.cones.cone import Cone, Derivative, Vector, no_second_derivative

# exp(±_LARGEST) is finite and not denormal.
_LARGEST = 700.0


@final
@dataclass(frozen=True)
class Exponential(Cone):
    """`count` cones cl {(x, y, z) : y exp(x/y) ≤ z, y > 0}, one after the other.

    A boundary point is α (ρ, 1, e^ρ) with ρ = x/y, a boundary point of the polar cone β (1, 1 − ρ, −e^−ρ), and the two
    are orthogonal: so v outside both cones is their sum for the one root ρ of its last coordinate.
    """

    count: int = 1

    @property
    def dim(self) -> int:
        """The dimension of the space."""
        return 3 * self.count

    def project(self, v: Vector, near: Vector | None = None) -> Vector:
        """Returns the projection, to rounding; the search for it starts `near` a point of the cone's boundary."""
        points, scale = _normalised(v)
        inside, _, face, curved = _regions(points)
        guess = None if near is None else _ratio(near.reshape(points.shape))
        if curved.all():
            return (_on_boundary(points, _root(points, guess)) * scale).reshape(v.shape)
        projected = np.zeros(points.shape)
        projected[inside] = points[inside]
        projected[face] = points[face]
        projected[face, 1:] = np.maximum(points[face, 1:], 0.0)
        bent = points[curved]
        projected[curved] = _on_boundary(bent, _root(bent, None if guess is None else guess[curved]))
        projected = projected * scale
        projected[np.isnan(points).any(axis=-1)] = np.nan
        return projected.reshape(v.shape)

    def derivative(self, v: Vector, projected: Vector | None = None) -> Derivative:
        """On the curved boundary: 1 along the ray, 0 along the normal, 1/(1 + β/α (aᵀt)²) across, a = (1, −ρ, 0).

        Where the projection is known, ρ is too.
        """
        points, _ = _normalised(v)
        inside, _, face, curved = _regions(points)
        known = None if projected is None else projected.reshape(points.shape)
        if curved.all():
            eigenvalues, vectors = _frame(points, _known_root(points, known))
        else:
            eigenvalues = np.zeros(points.shape)
            vectors = np.broadcast_to(np.eye(3), (*points.shape, 3)).copy()
            eigenvalues[inside] = 1.0
            x, y, z = points[face].T
            eigenvalues[face] = np.stack([np.heaviside(-x, 0.5), np.heaviside(y, 0.5), np.heaviside(z, 0.5)], axis=-1)
            bent = points[curved]
            rho = _known_root(bent, None if known is None else known[curved])
            eigenvalues[curved], vectors[curved] = _frame(bent, rho)
        return Derivative(eigenvalues.reshape(v.shape), BlockBasis(vectors.reshape((*v.shape[:-1], self.count, 3, 3))))

    def second_derivative(self, v: Vector, dv: Vector, w: Vector) -> Vector:
        """Is not offered."""
        raise no_second_derivative(self)


def _normalised(v: Vector) -> tuple[Float[np.ndarray, "k 3"], Float[np.ndarray, "k 1"]]:
    points = v.reshape((-1, 3))
    scale = np.max(np.abs(points), axis=-1, keepdims=True)
    scale = np.where((scale > 0) & np.isfinite(scale), scale, 1.0)
    return points / scale, scale


def _regions(points: Points) -> tuple[np.ndarray, ...]:
    """Returns which points are inside, inside the polar cone, over a flat part of the boundary, and over its curve.

    The flat parts are the face y = 0 and, to rounding, z = 0 where exp(x/y) vanishes.
    """
    x, y, z = points.T
    finite = np.isfinite(points).all(axis=-1)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        inside = ((y > 0) & (y * np.exp(x / y) <= z)) | ((y == 0) & (x <= 0) & (z >= 0))
        # K° = {x > 0, x exp(y/x − 1) ≤ −z} ∪ {x = 0, y ≤ 0, z ≤ 0}
        polar = ((x > 0) & (x * np.exp(y / x - 1.0) <= -z)) | ((x == 0) & (y <= 0) & (z <= 0))
    inside &= finite
    polar &= finite & ~inside
    face = finite & ~inside & ~polar & (x <= 0) & (x <= -_LARGEST * y)
    return inside, polar, face, finite & ~inside & ~polar & ~face


def _coefficients(points: Points, rho: Scalars) -> tuple[Scalars, Scalars, Scalars]:
    """Returns the numerators of α and β, and their denominator ρ² − ρ + 1."""
    x, y, _ = points.T
    alpha = np.maximum((rho - 1.0) * x + y, 0.0)
    beta = np.maximum(x - rho * y, 0.0)
    return alpha, beta, rho * rho - rho + 1.0


def _ratio(points: Points) -> Scalars:
    """Returns ρ = x/y of points on the boundary; NaN where that is not known."""
    x, y, _ = points.T
    with np.errstate(all="ignore"):
        return np.where(y > 0, x / y, np.nan)


def _known_root(points: Points, projected: Points | None) -> Scalars:
    """Returns ρ, from the projection where that is known."""
    if projected is None:
        return _root(points)
    rho = _ratio(projected)
    unknown = np.flatnonzero(~(np.abs(rho) <= _LARGEST))
    if len(unknown):
        rho[unknown] = _root(points[unknown])
    return rho


def _root(points: Points, guess: Scalars | None = None) -> Scalars:
    """Returns ρ: the root of α e^ρ − β e^−ρ − z, between the zeros of α and β."""
    x, y, _ = points.T
    with np.errstate(divide="ignore", over="ignore"):
        alpha_zero, beta_zero = 1.0 - y / np.where(x == 0, 1.0, x), x / np.where(y == 0, 1.0, y)
    low = np.where(x > 0, alpha_zero, -_LARGEST)
    high = np.where(x < 0, alpha_zero, _LARGEST)
    low = np.where(y < 0, np.maximum(low, beta_zero), low)
    high = np.where(y > 0, np.minimum(high, beta_zero), high)
    low, high = np.clip(low, -_LARGEST, _LARGEST), np.clip(high, -_LARGEST, _LARGEST)

    def balance(rho: Scalars, points: Points) -> tuple[Scalars, Scalars, Scalars]:
        x, y, z = points.T
        alpha, beta, size = _coefficients(points, rho)
        grown, shrunk = np.exp(rho), np.exp(-rho)
        up, down = alpha * grown / size, beta * shrunk / size
        value = up - down - z
        # α' = (x − α(2ρ − 1)) / size and β' = (−y − β(2ρ − 1)) / size, with α and β already divided
        tilt = (2.0 * rho - 1.0) / size
        rise = grown * (x + alpha - alpha * tilt) / size
        fall = shrunk * (y + beta + beta * tilt) / size
        terms = grown * (np.abs((rho - 1.0) * x) + np.abs(y)) + shrunk * (np.abs(x) + np.abs(rho * y))
        # Newton's method crawls on exponentials: the logarithms of both sides of left = right are nearly straight, but
        # for where α, on the left, or β, on the right, is about to vanish.
        left, right = up + np.maximum(-z, 0.0), down + np.maximum(z, 0.0)
        step = np.log(left / right) / (rise / left + fall / right)
        vanishing = np.where(value < 0, np.abs(x) > alpha, np.abs(y) > beta)
        slope = np.where(np.isfinite(step) & (step != 0) & ~vanishing, value / step, rise + fall)
        return value, slope, np.finfo(float).eps * (terms / size + np.abs(z))

    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        high = np.maximum(low, high)
        # Next to the cone, or to its polar, the root is next to the zero of β, or of α.
        start = np.where(y > 0, high, np.where(x > 0, low, 0.5 * (low + high)))
        if guess is not None:
            start = np.where((guess >= low) & (guess <= high), guess, start)
        return increasing_root(balance, low, high, points, start=start)


def _on_boundary(points: Points, rho: Scalars) -> Points:
    """Returns α (ρ, 1, e^ρ); for ρ > 0 from the last coordinate z + β e^−ρ, which does not amplify α's rounding."""
    alpha, beta, size = _coefficients(points, rho)
    steep = rho > 0
    decay = np.exp(-np.abs(rho))
    top = np.where(steep, np.maximum(points[:, 2] + beta / size * decay, 0.0), alpha / size * decay)
    middle = np.where(steep, top * decay, alpha / size)
    return np.stack([rho * middle, middle, top], axis=-1)


def _frame(points: Points, rho: Scalars) -> tuple[Points, Float[np.ndarray, "k 3 3"]]:
    """Returns the eigenvalues and eigenvectors of the derivative: along the ray r, across, and along the normal n.

    With n × r, of length |n| |r| and product |r|² with a, the one across is 1 / (1 + β/α |r|² / |n|²).
    """
    _, beta, size = _coefficients(points, rho)
    decay, steep = np.exp(-np.abs(rho)), rho > 0
    # r ~ (ρ, 1, e^ρ) and n ~ (1, 1 − ρ, −e^−ρ), of ordinary size.
    low, high, fall = np.where(steep, decay, 1.0), np.where(steep, 1.0, decay), 1.0 - rho
    ray2, normal2 = low * low * (1.0 + rho * rho) + high * high, high * high * (1.0 + fall * fall) + low * low
    ray, normal = 1.0 / np.sqrt(ray2), 1.0 / np.sqrt(normal2)
    eigenvalues, vectors = np.empty(points.shape), np.empty((*points.shape, 3))
    ratio = (beta / size) / np.maximum(_on_boundary(points, rho)[:, 1], np.finfo(float).tiny)
    eigenvalues[:, 0], eigenvalues[:, 2] = 1.0, 0.0
    np.divide(normal2, normal2 + ratio * ray2, out=eigenvalues[:, 1])
    for column, scale, entries in (
        (0, ray, (rho * low, low, high)),
        (1, ray * normal, (fall * high * high + low * low, -rho * low * low - high * high, high * low * size)),
        (2, normal, (high, fall * high, -low)),
    ):
        for row, entry in enumerate(entries):
            np.multiply(scale, entry, out=vectors[:, row, column])
    return eigenvalues, vectors

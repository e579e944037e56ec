"""The three-dimensional power cone.

References: Hien, "Differential properties of Euclidean projection onto power cone" (2015).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float

from cvxlayers.cones.basis import BlockBasis
from cvxlayers.cones.boundary import Points, Scalars, boundary_frame, increasing_root
from cvxlayers.cones.cone import Cone, Derivative, Vector, no_second_derivative

# Logits of r/|z| beyond this are r = 0 or r = |z| to rounding.
_LARGEST = 700.0


@final
@dataclass(frozen=True)
class Power(Cone):
    """Cones {(x, y, z) : x^α y^(1−α) ≥ |z|, x, y ≥ 0}, one after the other, one for each exponent in `alphas`."""

    alphas: tuple[float, ...]

    @property
    def dim(self) -> int:
        """The dimension of the space."""
        return 3 * len(self.alphas)

    def project(self, v: Vector) -> Vector:
        """Returns the projection, to rounding."""
        points, scale, alpha = self._normalised(v)
        inside, _, flat, curved = _regions(points, alpha)
        projected = np.zeros(points.shape)
        projected[inside] = points[inside]
        projected[flat, :2] = np.maximum(points[flat, :2], 0.0)
        bent, exponent = points[curved], alpha[curved]
        root = _root(bent, exponent)
        r, _ = _heights(bent, root)
        x, y, _ = _legs(bent, exponent, root)
        projected[curved] = np.stack([x, y, np.copysign(r, bent[:, 2])], axis=-1)
        projected = projected * scale
        projected[np.isnan(points).any(axis=-1)] = np.nan
        return projected.reshape(v.shape)

    def derivative(self, v: Vector) -> Derivative:
        """On the curved boundary: 1 along the ray, 0 along the normal, and by the surface's curvature across both."""
        points, _, alpha = self._normalised(v)
        inside, _, flat, curved = _regions(points, alpha)
        eigenvalues = np.zeros(points.shape)
        vectors = np.broadcast_to(np.eye(3), (*points.shape, 3)).copy()
        eigenvalues[inside] = 1.0
        eigenvalues[flat] = _flat_eigenvalues(points[flat], alpha[flat])
        bent, exponent = points[curved], alpha[curved]
        root = _root(bent, exponent)
        r, rest = _heights(bent, root)
        x, y, _ = _legs(bent, exponent, root)
        tiny = np.finfo(float).tiny
        x, y, r = np.maximum(x, tiny), np.maximum(y, tiny), np.maximum(r, tiny)
        sign = np.sign(bent[:, 2])
        # ψ = |z| − x^α y^(1−α); both its gradient and the direction a are scaled by the smaller leg.
        leg = np.minimum(np.minimum(x, y), r)
        normal = np.stack([-exponent * r * (leg / x), -(1 - exponent) * r * (leg / y), sign * leg], axis=-1)
        a = np.stack([leg / x, -leg / y, 0.0 * x], axis=-1)
        curvature = exponent * (1 - exponent) * (r / leg) * (rest / leg)
        eigenvalues[curved], vectors[curved] = boundary_frame(np.stack([x, y, sign * r], -1), normal, curvature, a)
        blocks = vectors.reshape((*v.shape[:-1], len(self.alphas), 3, 3))
        return Derivative(eigenvalues.reshape(v.shape), BlockBasis(blocks))

    def second_derivative(self, v: Vector, dv: Vector, w: Vector) -> Vector:
        """Is not offered."""
        raise no_second_derivative(self)

    def _normalised(
        self, v: Vector
    ) -> tuple[Float[np.ndarray, "k 3"], Float[np.ndarray, "k 1"], Float[np.ndarray, " k"]]:
        points = v.reshape((-1, 3))
        scale = np.max(np.abs(points), axis=-1, keepdims=True)
        scale = np.where((scale > 0) & np.isfinite(scale), scale, 1.0)
        alpha = np.broadcast_to(np.asarray(self.alphas, dtype=float), (*v.shape[:-1], len(self.alphas)))
        return points / scale, scale, alpha.reshape(-1)


def _geometric_mean(x: Scalars, y: Scalars, alpha: Scalars) -> Scalars:
    return np.power(np.maximum(x, 0.0), alpha) * np.power(np.maximum(y, 0.0), 1.0 - alpha)


def _regions(points: Points, alpha: Scalars) -> tuple[np.ndarray, ...]:
    """Returns which points are inside, inside the polar cone, outside both with z = 0, and over the curved boundary."""
    x, y, z = points.T
    finite = np.isfinite(points).all(axis=-1)
    inside = finite & (x >= 0) & (y >= 0) & (_geometric_mean(x, y, alpha) >= np.abs(z))
    dual = _geometric_mean(-x / alpha, -y / (1.0 - alpha), alpha)
    polar = finite & ~inside & (x <= 0) & (y <= 0) & (dual >= np.abs(z))
    flat = finite & ~inside & ~polar & (z == 0)
    return inside, polar, flat, finite & ~inside & ~polar & ~flat


def _heights(points: Points, logit: Scalars) -> tuple[Scalars, Scalars]:
    """Returns r = |z_p| and |z| − r, both without cancellation, for r/|z| = 1/(1 + e^−logit)."""
    height = np.abs(points[:, 2])
    decay = np.exp(-np.abs(logit))
    larger, smaller = height / (1.0 + decay), height * decay / (1.0 + decay)
    return np.where(logit > 0, larger, smaller), np.where(logit > 0, smaller, larger)


def _legs(points: Points, alpha: Scalars, logit: Scalars) -> tuple[Scalars, Scalars, tuple[Scalars, Scalars]]:
    """Returns the projection's x and y, the positive roots of t² − v t − weight r (|z| − r), with the discriminants."""
    r, rest = _heights(points, logit)
    legs, roots = [], []
    for v, weight in ((points[:, 0], alpha), (points[:, 1], 1.0 - alpha)):
        product = weight * r * rest
        root = np.hypot(v, 2.0 * np.sqrt(weight) * np.sqrt(r) * np.sqrt(rest))
        larger = 0.5 * (np.abs(v) + root)
        legs.append(np.where(v >= 0, larger, np.divide(product, larger, out=np.zeros(v.shape), where=larger > 0)))
        roots.append(root)
    return legs[0], legs[1], (roots[0], roots[1])


def _root(points: Points, alpha: Scalars) -> Scalars:
    """Returns the logit of r/|z| at which log r − α log x − (1 − α) log y, increasing in it, vanishes."""
    tiny = np.finfo(float).tiny

    def excess(logit: Scalars, points: Points, alpha: Scalars) -> tuple[Scalars, Scalars, Scalars]:
        r, rest = _heights(points, logit)
        x, y, (root_x, root_y) = _legs(points, alpha, logit)
        logs = [np.log(np.maximum(term, tiny)) for term in (r, x, y)]
        value = logs[0] - alpha * logs[1] - (1.0 - alpha) * logs[2]
        # dr/dlogit = r (|z| − r)/|z|, and x' = α(|z| − 2r)/(2x − v) dr
        speed = rest / np.abs(points[:, 2])
        bend = r * speed * (rest - r)
        slope = speed - bend * (
            alpha * alpha / np.maximum(x * root_x, tiny) + (1.0 - alpha) ** 2 / np.maximum(y * root_y, tiny)
        )
        terms = 1.0 + np.abs(logs[0]) + np.abs(alpha * logs[1]) + np.abs((1.0 - alpha) * logs[2])
        return value, slope, np.finfo(float).eps * terms

    bound = np.full(alpha.shape, _LARGEST)
    with np.errstate(over="ignore", invalid="ignore"):
        return increasing_root(excess, -bound, bound, points, alpha)


def _flat_eigenvalues(points: Points, alpha: Scalars) -> Points:
    """At z = 0 with one of x, y negative: how |z_p| starts to grow with |z|, by the exponent of the positive side."""
    x, y, _ = points.T
    weight = np.where(x > 0, alpha, 1.0 - alpha)
    positive, negative = np.maximum(x, y), np.maximum(-np.minimum(x, y), np.finfo(float).tiny)
    balanced = 0.5 * positive / negative
    growth = np.where(weight > 0.5, 1.0, np.where(weight < 0.5, 0.0, balanced / (1.0 + balanced)))
    return np.stack([np.heaviside(x, 0.5), np.heaviside(y, 0.5), growth], axis=-1)

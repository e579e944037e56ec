"""Projections smoothed by a barrier: the central path as the zero of a residual map.

With a barrier F of K, the proximal map Π_μ(v) = argmin_s ½‖s − v‖² + μ F(s) lies inside K and tends to the projection
as μ → 0. By Moreau's decomposition with v = y − s, the equation s = Π_μ(−v) says y = −μ∇F(s): in every cone
complementarity sᵀy = 0 becomes s ∘ y = μ e. So the residual map with Π_μ vanishes exactly on the central path, and
DΠ_μ = (I + μ∇²F)⁻¹ has eigenvalues strictly between 0 and 1, in the orthant and in symmetric cones in the eigenbasis
of the projection itself.

References: Nesterov, Nemirovskii, "Interior-point polynomial algorithms in convex programming" (1994); Chares, "Cones
and interior-point algorithms for structured convex optimization involving powers and exponentials" (2009).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from cvxlayers.cones.barrier import exponential_barrier, power_barrier, proximal_point
from cvxlayers.cones.basis import BlockBasis, IdentityBasis, svec, triangle
from cvxlayers.cones.cone import Cone, Derivative, Vector, no_second_derivative
from cvxlayers.cones.nonnegative import NonNegative
from cvxlayers.cones.power import Power
from cvxlayers.cones.product import Product
from cvxlayers.cones.second_order import SecondOrder
from cvxlayers.cones.semidefinite import Semidefinite
from cvxlayers.cones.zero import Zero


@final
@dataclass(frozen=True)
class Smoothed(Cone):
    """A product of cones whose projection is smoothed with the barrier parameter `mu`."""

    product: Product
    mu: float

    @property
    def dim(self) -> int:
        """The dimension of the space."""
        return self.product.dim

    def project(self, v: Vector) -> Vector:
        """Returns Π_μ(v), block by block."""
        return self.product.by_group(v, lambda cone, rows: _project(cone, v[..., rows], self.mu))

    def derivative(self, v: Vector) -> Derivative:
        """Stacks the derivatives of the blocks."""
        parts = [(rows, _derivative(cone, v[..., rows], self.mu)) for cone, rows in self.product.groups]
        return self.product.stack(v, parts)

    def second_derivative(self, v: Vector, dv: Vector, w: Vector) -> Vector:
        """Is not offered."""
        raise no_second_derivative(self)


def _project(cone: Cone, v: Vector, mu: float) -> Vector:
    match cone:
        case Zero():
            return np.zeros(v.shape)
        case NonNegative():
            return _lifted(v, mu)
        case SecondOrder():
            t, z, norm = cone.split(v)
            high, low = _lifted(t + norm, mu), _lifted(t - norm, mu)
            # (f(t + ‖z‖) − f(t − ‖z‖)) / 2‖z‖, the slope of f between the two, needs no division by ‖z‖.
            tail = _slope(t + norm, t - norm, mu)[..., None] * z
            return np.concatenate([0.5 * (high + low)[..., None], tail], axis=-1).reshape(v.shape)
        case Semidefinite():
            eigenvalues, Q = cone.eigh(v)
            return svec((Q * _lifted(eigenvalues, mu)[..., None, :]) @ np.swapaxes(Q, -1, -2)).reshape(v.shape)
        case _:
            return _proximal(cone, v, mu)[0].reshape(v.shape)


def _derivative(cone: Cone, v: Vector, mu: float) -> Derivative:
    match cone:
        case Zero():
            return Derivative(np.zeros(v.shape), IdentityBasis(cone.dim))
        case NonNegative():
            return Derivative(_slope(v, v, mu), IdentityBasis(cone.dim))
        case SecondOrder():
            t, _, norm = cone.split(v)
            high, low = t + norm, t - norm
            if cone.size == 1:
                return Derivative(_slope(t, t, mu).reshape(v.shape), IdentityBasis(cone.dim))
            across = _slope(high, low, mu)[..., None]
            rays = np.stack([_slope(high, high, mu), _slope(low, low, mu)], axis=-1)
            eigenvalues = np.concatenate([rays, np.broadcast_to(across, (*t.shape, cone.size - 2))], axis=-1)
            return Derivative(eigenvalues.reshape(v.shape), cone.derivative(v).basis)
        case Semidefinite():
            eigenvalues, _ = cone.eigh(v)
            rows, cols = triangle(cone.order)
            slopes = _slope(eigenvalues[..., rows], eigenvalues[..., cols], mu)
            return Derivative(slopes.reshape(v.shape), cone.derivative(v).basis)
    curvature, vectors = np.linalg.eigh(_proximal(cone, v, mu)[1])
    blocks = vectors.reshape((*v.shape[:-1], cone.dim // 3, 3, 3))
    return Derivative((1.0 / (1.0 + mu * np.maximum(curvature, 0.0))).reshape(v.shape), BlockBasis(blocks))


def _proximal(cone: Cone, v: Vector, mu: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the proximal points of three-dimensional cones, and the Hessians of their barriers there."""
    start, points = cone.project(v).reshape(-1, 3), v.reshape(-1, 3)
    if not isinstance(cone, Power):
        return proximal_point(exponential_barrier, start, points, mu, (-1.0, 1.0, 1.0))
    alphas = np.broadcast_to(np.asarray(cone.alphas, dtype=float), (*v.shape[:-1], len(cone.alphas)))
    return proximal_point(power_barrier(alphas.reshape(-1)), start, points, mu, (1.0, 1.0, 0.0))


def _lifted(a: np.ndarray, mu: float) -> np.ndarray:
    """Returns f(a) = (a + √(a² + 4μ)) / 2, the positive root of f² − a f − μ, without cancellation."""
    larger = 0.5 * (np.abs(a) + np.hypot(a, 2.0 * np.sqrt(mu)))
    return np.where(a >= 0, larger, mu / larger)


def _slope(a: np.ndarray, b: np.ndarray, mu: float) -> np.ndarray:
    """Returns (f(a) − f(b)) / (a − b), and f'(a) where they are equal: f(a) + f(b) over √(a²+4μ) + √(b²+4μ)."""
    size = np.hypot(a, 2.0 * np.sqrt(mu)) + np.hypot(b, 2.0 * np.sqrt(mu))
    return (_lifted(a, mu) + _lifted(b, mu)) / size

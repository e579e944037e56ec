"""The second-order cone.

References: Bauschke, "Projection algorithms and monotone operators" (1996) for the projection; Ali, Wong, Kolter, "A
semismooth Newton method for fast, generic convex programming" (2017) for its derivative.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from cvxlayers.cones.basis import ConeRayBasis, IdentityBasis
from cvxlayers.cones.cone import Cone, Derivative, Vector

# Squares below this, or above its inverse, may have lost digits.
TINY = 1e-250


@final
@dataclass(frozen=True)
class SecondOrder(Cone):
    """`count` cones {(t, z) : ‖z‖ ≤ t} of `size` coordinates each, one after the other. Each is its own dual."""

    size: int
    count: int = 1

    @property
    def dim(self) -> int:
        """The dimension of the space."""
        return self.size * self.count

    def project(self, v: Vector) -> Vector:
        """Returns v inside, 0 inside the polar cone, else ½(1 + t/‖z‖)(‖z‖, z)."""
        t, z, norm = self.split(v)
        outside = norm > np.abs(t)
        # ½(1 + t/‖z‖) where the point is outside both cones; 1 or 0 where it is not.
        share = np.divide(t, norm, out=np.sign(t), where=outside)
        scale = 0.5 * (1.0 + share)
        projected = np.empty((*t.shape, self.size))
        projected[..., 0] = np.where(outside, scale * norm, np.maximum(t, 0.0))
        np.multiply(scale[..., None], z, out=projected[..., 1:])
        return projected.reshape(v.shape)

    def derivative(self, v: Vector) -> Derivative:
        """Outside both cones: eigenvalue 1 on (1, ẑ), 0 on (1, −ẑ), ½(1 + t/‖z‖) across; at the origin ½."""
        t, z, norm = self.split(v)
        # clip(t/‖z‖) is 1 inside and −1 inside the polar cone; on a boundary it is the limit from outside.
        apart = norm > 0
        regular = bool(apart.all())
        share = t / norm if regular else np.divide(t, norm, out=np.sign(t), where=apart)
        across = 0.5 * (1.0 + np.minimum(np.maximum(share, -1.0), 1.0))
        if self.size == 1:
            return Derivative(across.reshape(v.shape), IdentityBasis(self.dim))
        eigenvalues = np.empty((*across.shape, self.size))
        eigenvalues[..., 0], eigenvalues[..., 1], eigenvalues[..., 2:] = t >= -norm, t > norm, across[..., None]
        if not regular:
            # At the tip the cone's rays have no direction: all eigenvalues are ½, as `across` is.
            eigenvalues[(norm == 0) & (t == 0)] = 0.5
        return Derivative(eigenvalues.reshape(v.shape), self._basis(z, norm, regular))

    def second_derivative(self, v: Vector, dv: Vector, w: Vector) -> Vector:
        """Returns the derivative of v ↦ D(v) w along dv; zero inside either cone, where D is constant.

        Outside, D(v) w = ½ (w₀ + ẑᵀw_z ; w₀ẑ + (1 + ρ) w_z − ρ ẑ ẑᵀw_z) with ρ = t/‖z‖, ẑ = z/‖z‖.
        """
        t, z, norm = self.split(v)
        dt, dz, _ = self.split(dv)
        head, tail, _ = self.split(w)
        outside = (norm > np.abs(t))[..., None]
        safe = np.where(norm > 0, norm, 1.0)[..., None]
        unit, rho = z / safe, t[..., None] / safe
        along = np.sum(unit * dz, axis=-1, keepdims=True)
        dunit = (dz - along * unit) / safe
        drho = dt[..., None] / safe - rho * along / safe
        component = np.sum(unit * tail, axis=-1, keepdims=True)
        dcomponent = np.sum(dunit * tail, axis=-1, keepdims=True)
        dhead = dcomponent
        dtail = head[..., None] * dunit + drho * (tail - component * unit)
        dtail = dtail - rho * (component * dunit + dcomponent * unit)
        out = 0.5 * np.concatenate([dhead, dtail], axis=-1)
        return np.where(outside, out, 0.0).reshape(v.shape)

    def split(self, v: Vector) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns t, z and ‖z‖ of each cone; the norm neither overflows nor underflows."""
        stacked = v.reshape((*v.shape[:-1], self.count, self.size))
        t, z = stacked[..., 0], stacked[..., 1:]
        squared = np.einsum("...n,...n->...", z, z)
        norm = np.sqrt(squared)
        if not (squared.min(initial=1.0) > TINY and squared.max(initial=1.0) < 1.0 / TINY):
            extreme = ~((squared > TINY) & (squared < 1.0 / TINY))
            norm[extreme] = _norm(z[extreme])
        return t, z, norm

    def _basis(self, z: np.ndarray, norm: np.ndarray, regular: bool) -> ConeRayBasis:
        """Returns the basis of the rays (1, ±ẑ), with ẑ = e₁ where z is zero, which it is nowhere if `regular`."""
        if regular:
            h = z / norm[..., None]
        else:
            h = np.divide(z, norm[..., None], out=np.zeros(z.shape), where=norm[..., None] > 0)
            h[..., 0] = np.where(norm > 0, h[..., 0], 1.0)
        sigma = np.where(h[..., 0] > 0, -1.0, 1.0)
        h *= -sigma[..., None]
        h[..., 0] += 1.0
        h /= np.sqrt(np.add.reduce(h * h, axis=-1, keepdims=True))
        return ConeRayBasis(h, sigma)


def _norm(z: np.ndarray) -> np.ndarray:
    """Returns the norms of rows of any size."""
    largest = np.max(np.abs(z), axis=-1, initial=0.0, keepdims=True)
    unit = np.divide(z, largest, out=np.zeros(z.shape), where=largest > 0)
    return largest[..., 0] * np.sqrt(np.sum(unit * unit, axis=-1))

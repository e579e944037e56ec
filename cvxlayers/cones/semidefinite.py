"""The cone of positive semidefinite matrices.

References: Malick, Sendov, "Clarke generalized Jacobian of the projection onto the cone of positive semidefinite
matrices" (2006).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from cvxlayers.cones.basis import CongruenceBasis, smat, svec, triangle
from cvxlayers.cones.cone import Cone, Derivative, Vector, no_second_derivative


@final
@dataclass(frozen=True)
class Semidefinite(Cone):
    """`count` cones of positive semidefinite matrices of an order, each as svec. Each is its own dual."""

    order: int
    count: int = 1

    @property
    def dim(self) -> int:
        """The dimension of the space."""
        return self.count * self.order * (self.order + 1) // 2

    def project(self, v: Vector) -> Vector:
        """Returns Q max(Λ, 0) Qᵀ for V = Q Λ Qᵀ."""
        eigenvalues, Q = self.eigh(v)
        # Of the two parts of V the smaller one is computed, so that a matrix inside either cone keeps its bits.
        positive = np.maximum(eigenvalues, 0.0)
        negative = np.maximum(-eigenvalues, 0.0)
        few = (np.count_nonzero(positive, axis=-1) <= self.order // 2)[..., None]
        part = (Q * np.where(few, positive, negative)[..., None, :]) @ np.swapaxes(Q, -1, -2)
        stacked = svec(part)
        projected = np.where(few, stacked, v.reshape(stacked.shape) + stacked)
        return projected.reshape(v.shape)

    def derivative(self, v: Vector) -> Derivative:
        """In the eigenbasis: (max(λᵢ, 0) + max(λⱼ, 0)) / (|λᵢ| + |λⱼ|) on the entry (i, j), ½ where both vanish."""
        eigenvalues, Q = self.eigh(v)
        rows, cols = triangle(self.order)
        a, b = eigenvalues[..., rows], eigenvalues[..., cols]
        scale = np.max(np.abs(eigenvalues), axis=-1, keepdims=True)
        scale = np.where(scale > 0, scale, 1.0)
        a, b = a / scale, b / scale
        size = np.abs(a) + np.abs(b)
        share = np.divide(np.maximum(a, 0) + np.maximum(b, 0), size, out=np.full(size.shape, 0.5), where=size > 0)
        return Derivative(share.reshape(v.shape), CongruenceBasis(Q))

    def second_derivative(self, v: Vector, dv: Vector, w: Vector) -> Vector:
        """Is not offered."""
        raise no_second_derivative(self)

    def eigh(self, v: Vector) -> tuple[np.ndarray, np.ndarray]:
        """Returns the eigenvalues and eigenvectors of each matrix."""
        V, finite = self._matrices(v)
        eigenvalues, Q = np.linalg.eigh(V)
        return np.where(finite, eigenvalues, np.nan), Q

    def spectrum(self, v: Vector) -> np.ndarray:
        """Returns the eigenvalues of each matrix."""
        V, finite = self._matrices(v)
        return np.where(finite, np.linalg.eigvalsh(V), np.nan)

    def _matrices(self, v: Vector) -> tuple[np.ndarray, np.ndarray]:
        """Returns the matrices, zero where one is not finite, and which are."""
        size = self.order * (self.order + 1) // 2
        V = smat(v.reshape((*v.shape[:-1], self.count, size)), self.order)
        finite = np.all(np.isfinite(V), axis=(-1, -2), keepdims=True)[..., 0]
        return np.where(finite[..., None], V, 0.0), finite

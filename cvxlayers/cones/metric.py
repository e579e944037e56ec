"""The central path y ∘ s = μ e of symmetric cones, and its metric.

On the path y = f(v) and s = y − v with f(a) = (a + √(a² + 4μ)) / 2 of the eigenvalues of v = y − s. Moving along v
changes y and s by dy = D dv and ds = (D − I) dv, so that dy = −H ds with H = D (I − D)⁻¹ = P(y) / μ: P(y) is the
quadratic representation of the cone's Jordan algebra, w ↦ Y W Y for matrices.

References: Faraut, Korányi, "Analysis on symmetric cones" (1994).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from jaxtyping import Float

from cvxlayers.cones.basis import CongruenceBasis, IdentityBasis, ProductBasis, Rows, smat, svec, triangle
from cvxlayers.cones.cone import Basis, Vector
from cvxlayers.cones.semidefinite import Semidefinite

Strength = Float[np.ndarray, "batch 1"]
Matrices = Float[np.ndarray, "#batch rows n"]
Array = Float[np.ndarray, "..."]


class Metric(ABC):
    """The points y = f(v) of the central path, and the metric H there."""

    y: Vector

    @abstractmethod
    def apply(self, w: Vector) -> Vector:
        """Returns H w."""

    @abstractmethod
    def factor(self, A: Matrices) -> tuple[Vector, Array]:
        """Returns weights c and a matrix B with Aᵀ H A = Aᵀ diag(c) A + Bᵀ B."""

    @abstractmethod
    def spectrum(self) -> tuple[Vector, Basis]:
        """Returns the eigenvalues of H, and their basis."""


@final
@dataclass(frozen=True, eq=False)
class LineMetric(Metric):
    """That of half-lines."""

    y: Vector
    values: Vector

    @classmethod
    def of(cls, v: Vector, mu: Strength) -> LineMetric:
        """Returns the points y = f(v)."""
        y = lifted(v, mu)[0]
        return cls(y, y * y / mu)

    def apply(self, w: Vector) -> Vector:
        """Returns H w."""
        return self.values * w

    def factor(self, A: Matrices) -> tuple[Vector, Array]:
        """Returns the diagonal of H."""
        return self.values, np.empty((len(self.y), 0, A.shape[-1]))

    def spectrum(self) -> tuple[Vector, Basis]:
        """Returns the diagonal of H."""
        return self.values, IdentityBasis(self.y.shape[-1])


@final
@dataclass(frozen=True, eq=False)
class MatrixMetric(Metric):
    """That of semidefinite cones, by eigenvectors, the eigenvalues of y, and y as matrices."""

    cone: Semidefinite
    y: Vector
    matrices: Array
    lifts: Array
    vectors: Array
    mu: Strength

    @classmethod
    def of(cls, cone: Semidefinite, eigenvalues: Array, vectors: Array, mu: Strength) -> MatrixMetric:
        """Returns the points y = f(v)."""
        lifts = lifted(eigenvalues, mu[..., None])[0]
        Y = (vectors * lifts[..., None, :]) @ np.swapaxes(vectors, -1, -2)
        return cls(cone, svec(Y).reshape((len(mu), cone.dim)), Y, lifts, vectors, mu)

    def apply(self, w: Vector) -> Vector:
        """Returns svec(Y W Y) / μ."""
        order = self.cone.order
        W = smat(w.reshape((len(w), self.cone.count, order * (order + 1) // 2)), order)
        return svec(self.matrices @ W @ self.matrices).reshape(w.shape) / self.mu

    def factor(self, A: Matrices) -> tuple[Vector, Array]:
        """Returns the root of H in its eigenbasis."""
        values, basis = self.spectrum()
        turned = basis.rotate(np.broadcast_to(A, (len(values), *A.shape[1:])))
        return np.zeros(values.shape), np.sqrt(values)[..., None] * np.ascontiguousarray(turned)

    def spectrum(self) -> tuple[Vector, Basis]:
        """Returns the products of the eigenvalues of y, over μ."""
        rows, cols = triangle(self.cone.order)
        h = self.lifts.take(rows, axis=-1) * self.lifts.take(cols, axis=-1)
        return h.reshape((len(h), self.cone.dim)) / self.mu, CongruenceBasis(self.vectors)


@final
@dataclass(frozen=True, eq=False)
class StackedMetric(Metric):
    """The metrics of several cones, each on its own rows."""

    parts: Sequence[tuple[Rows, Metric]]
    y: Vector

    @classmethod
    def of(cls, parts: Sequence[tuple[Rows, Metric]], shape: tuple[int, ...]) -> StackedMetric:
        """Stacks metrics."""
        y = np.empty(shape)
        for rows, part in parts:
            y[:, rows] = part.y
        return cls(parts, y)

    def apply(self, w: Vector) -> Vector:
        """Returns H w."""
        return self._gather([part.apply(w[:, rows]) for rows, part in self.parts])

    def factor(self, A: Matrices) -> tuple[Vector, Array]:
        """Returns the weights of all parts, and their matrices one below the other."""
        weights, extra = zip(*(part.factor(A[:, rows]) for rows, part in self.parts), strict=True)
        return self._gather(weights), np.concatenate(extra, axis=1)

    def spectrum(self) -> tuple[Vector, Basis]:
        """Returns the eigenvalues of all parts, and their bases."""
        values, bases = zip(*(part.spectrum() for _, part in self.parts), strict=True)
        return self._gather(values), ProductBasis([rows for rows, _ in self.parts], bases)

    def _gather(self, found: Any) -> Vector:
        out = np.empty(self.y.shape)
        for (rows, _), part in zip(self.parts, found, strict=True):
            out[:, rows] = part
        return out


def lifted(a: Array, mu: Array) -> tuple[Array, Array]:
    """Returns f(a), the positive root of f² − a f − μ, without cancellation, and √(a² + 4μ); a of ordinary size."""
    root = np.sqrt(a * a + 4.0 * mu)
    larger = 0.5 * (np.abs(a) + root)
    return np.where(a >= 0, larger, mu / larger), root

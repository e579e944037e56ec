"""Points of symmetric cones in the frame of their eigenvectors, and the central path y ∘ s = μ e there.

On the path y = f(v) and s = y − v with f(a) = (a + √(a² + 4μ)) / 2 of the eigenvalues of v = y − s. Moving along v
changes y and s by dy = D dv and ds = (D − I) dv, so that dy = −H ds with H = D (I − D)⁻¹ = P(y) / μ: P(y) is the
quadratic representation of the cone's Jordan algebra, w ↦ Y W Y for matrices.

References: Faraut, Korányi, "Analysis on symmetric cones" (1994).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from jaxtyping import Float, Int

from cvxlayers.cones.basis import (
    CongruenceBasis,
    IdentityBasis,
    ProductBasis,
    Rows,
    places,
    smat,
    svec,
    together,
    triangle,
)
from cvxlayers.cones.cone import Basis, Cone, Vector
from cvxlayers.cones.nonnegative import NonNegative
from cvxlayers.cones.product import Product
from cvxlayers.cones.second_order import SecondOrder
from cvxlayers.cones.semidefinite import Semidefinite
from cvxlayers.cones.zero import Zero

Strength = Float[np.ndarray, "batch 1"]
Matrices = Float[np.ndarray, "#batch rows n"]
Array = Float[np.ndarray, "..."]
Index = Int[np.ndarray, " _count"]


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


@dataclass(frozen=True, eq=False)
class _Line(Metric):
    y: Vector
    values: Vector

    @classmethod
    def of(cls, v: Vector, mu: Strength) -> _Line:
        y = _lifted(v, mu)[0]
        return cls(y, y * y / mu)

    def apply(self, w: Vector) -> Vector:
        return self.values * w

    def factor(self, A: Matrices) -> tuple[Vector, Array]:
        return self.values, np.empty((len(self.y), 0, A.shape[-1]))

    def spectrum(self) -> tuple[Vector, Basis]:
        return self.values, IdentityBasis(self.y.shape[-1])


@dataclass(frozen=True, eq=False)
class _Rays(Metric):
    """Second-order cones, with the eigenvalues of y, and its determinants over μ."""

    cone: SecondOrder
    v: Vector
    y: Vector
    high: Array
    low: Array
    determinant: Array
    mu: Strength

    @classmethod
    def of(cls, cone: SecondOrder, v: Vector, ends: Array, mu: Strength) -> _Rays:
        lifts, roots = _lifted(ends, mu[..., None])
        high, low = lifts[:, 0], lifts[:, 1]
        total = high + low
        # (f(t + ‖z‖) − f(t − ‖z‖)) / 2‖z‖, the slope of f between the two, needs no division by ‖z‖.
        stacked = (total / (roots[:, 0] + roots[:, 1]))[..., None] * v.reshape((len(v), cone.count, cone.size))
        stacked[..., 0] = 0.5 * total
        return cls(cone, v, stacked.reshape(v.shape), high, low, high * low / mu, mu)

    def apply(self, w: Vector) -> Vector:
        stacked, moved, det = self._stack(self.y), self._stack(w), self.determinant
        along = np.einsum("bcs,bcs->bc", stacked, moved)
        turned = (2.0 / self.mu * along)[..., None] * stacked + det[..., None] * moved
        turned[..., 0] -= 2.0 * det * moved[..., 0]
        return turned.reshape(w.shape)

    def factor(self, A: Matrices) -> tuple[Vector, Array]:
        size = self.cone.size
        weights = np.repeat(self.determinant, size, axis=-1)
        weights[..., ::size] *= -1.0
        blocks = A.reshape((len(A), self.cone.count, size, A.shape[-1]))
        scaled = np.sqrt(2.0 / self.mu)[..., None] * self._stack(self.y)
        return weights, np.matmul(scaled[..., None, :], blocks)[..., 0, :]

    def spectrum(self) -> tuple[Vector, Basis]:
        high, low = self.high, self.low
        across = np.broadcast_to((high * low)[..., None], (*high.shape, self.cone.size - 2))
        values = np.concatenate([(high * high)[..., None], (low * low)[..., None], across], axis=-1)
        return values.reshape(self.v.shape) / self.mu, self.cone.derivative(self.v).basis

    def _stack(self, w: Vector) -> Array:
        return w.reshape((len(w), self.cone.count, self.cone.size))


@dataclass(frozen=True, eq=False)
class _Matrices(Metric):
    """Semidefinite cones, by eigenvectors, the eigenvalues of y, and y as matrices."""

    cone: Semidefinite
    y: Vector
    matrices: Array
    lifts: Array
    vectors: Array
    mu: Strength

    @classmethod
    def of(cls, cone: Semidefinite, eigenvalues: Array, vectors: Array, mu: Strength) -> _Matrices:
        lifts = _lifted(eigenvalues, mu[..., None])[0]
        Y = (vectors * lifts[..., None, :]) @ np.swapaxes(vectors, -1, -2)
        return cls(cone, svec(Y).reshape((len(mu), cone.dim)), Y, lifts, vectors, mu)

    def apply(self, w: Vector) -> Vector:
        order = self.cone.order
        W = smat(w.reshape((len(w), self.cone.count, order * (order + 1) // 2)), order)
        return svec(self.matrices @ W @ self.matrices).reshape(w.shape) / self.mu

    def factor(self, A: Matrices) -> tuple[Vector, Array]:
        values, basis = self.spectrum()
        turned = basis.rotate(np.broadcast_to(A, (len(values), *A.shape[1:])))
        return np.zeros(values.shape), np.sqrt(values)[..., None] * np.ascontiguousarray(turned)

    def spectrum(self) -> tuple[Vector, Basis]:
        rows, cols = triangle(self.cone.order)
        h = self.lifts.take(rows, axis=-1) * self.lifts.take(cols, axis=-1)
        return h.reshape((len(h), self.cone.dim)) / self.mu, CongruenceBasis(self.vectors)


@dataclass(frozen=True, eq=False)
class _Stacked(Metric):
    """The metrics of several cones, each on its own rows."""

    parts: list[tuple[Rows, Metric]]
    y: Vector

    @classmethod
    def of(cls, parts: list[tuple[Rows, Metric]], shape: tuple[int, int]) -> _Stacked:
        y = np.empty(shape)
        for rows, part in parts:
            y[:, rows] = part.y
        return cls(parts, y)

    def apply(self, w: Vector) -> Vector:
        return self._gather([part.apply(w[:, rows]) for rows, part in self.parts])

    def factor(self, A: Matrices) -> tuple[Vector, Array]:
        weights, extra = zip(*(part.factor(A[:, rows]) for rows, part in self.parts), strict=True)
        return self._gather(weights), np.concatenate(extra, axis=1)

    def spectrum(self) -> tuple[Vector, Basis]:
        values, bases = zip(*(part.spectrum() for _, part in self.parts), strict=True)
        return self._gather(values), ProductBasis([rows for rows, _ in self.parts], bases)

    def _gather(self, found: Any) -> Vector:
        out = np.empty(self.y.shape)
        for (rows, _), part in zip(self.parts, found, strict=True):
            out[:, rows] = part
        return out


@final
@dataclass(frozen=True, eq=False)
class Frame:
    """A batch of points v of a product of symmetric cones, decomposed."""

    v: Vector
    parts: list[tuple[Rows, Cone, tuple[Array, ...]]]

    @classmethod
    def of(cls, cone: Product, v: Vector) -> Frame:
        """Decomposes points: of the rows behind those of the zero cone."""
        parts: list[tuple[Rows, Cone, tuple[Array, ...]]] = []
        for one, index in cone.groups:
            if not isinstance(one, Zero):
                rows = together(places(index) - cone.zero)
                parts.append((rows, one, _decompose(one, v[:, rows])))
        return cls(v, parts)

    def item(self, index: Index) -> Frame:
        """Returns the points of some items."""
        return Frame(self.v[index], [(rows, cone, tuple(a[index] for a in found)) for rows, cone, found in self.parts])

    def put(self, index: Index, values: Frame) -> Frame:
        """Returns the points with those of some items replaced."""
        parts: list[tuple[Rows, Cone, tuple[Array, ...]]] = []
        for (rows, cone, mine), (_, _, theirs) in zip(self.parts, values.parts, strict=True):
            pairs = zip(mine, theirs, strict=True)
            parts.append((rows, cone, tuple(_put(one, index, other) for one, other in pairs)))
        return Frame(_put(self.v, index, values.v), parts)

    def at(self, mu: Strength) -> Metric:
        """Returns the points of the central path."""
        found = [(rows, _metric(cone, self.v[:, rows], parts, mu)) for rows, cone, parts in self.parts]
        return found[0][1] if len(found) == 1 else _Stacked.of(found, self.v.shape)


def _put(array: Array, index: Index, values: Array) -> Array:
    changed = array.copy()
    changed[index] = values
    return changed


def is_symmetric(cone: Product) -> bool:
    """Whether a product has symmetric cones alone, of which frames are offered."""
    return not (cone.exponential or cone.power)


def _decompose(cone: Cone, v: Vector) -> tuple[Array, ...]:
    match cone:
        case SecondOrder(size=1) | NonNegative():
            return ()
        case SecondOrder():
            t, _, norm = cone.split(v)
            ends = np.empty((len(v), 2, cone.count))
            np.add(t, norm, out=ends[:, 0])
            np.subtract(t, norm, out=ends[:, 1])
            return (ends,)
        case Semidefinite():
            return cone.eigh(v)
    raise TypeError(f"{type(cone).__name__} is no symmetric cone")


def _metric(cone: Cone, v: Vector, parts: tuple[Any, ...], mu: Strength) -> Metric:
    if not parts:
        return _Line.of(v, mu)
    if isinstance(cone, Semidefinite):
        return _Matrices.of(cone, parts[0], parts[1], mu)
    assert isinstance(cone, SecondOrder)
    return _Rays.of(cone, v, parts[0], mu)


def _lifted(a: Array, mu: Array) -> tuple[Array, Array]:
    """Returns f(a), the positive root of f² − a f − μ, without cancellation, and √(a² + 4μ); a of ordinary size."""
    root = np.sqrt(a * a + 4.0 * mu)
    larger = 0.5 * (np.abs(a) + root)
    return np.where(a >= 0, larger, mu / larger), root

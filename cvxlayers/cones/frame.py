"""Points of symmetric cones in the frame of their eigenvectors, and the central path y ∘ s = μ e there.

On the path y = f(v) and s = y − v with f(a) = (a + √(a² + 4μ)) / 2 of the eigenvalues of v = y − s. Moving along v
changes y and s by dy = D dv and ds = (D − I) dv, so that dy = −H ds with H = D (I − D)⁻¹ = P(y) / μ: P(y) is the
quadratic representation of the cone's Jordan algebra, w ↦ Y W Y for matrices.

References: Faraut, Korányi, "Analysis on symmetric cones" (1994).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float, Int

from cvxlayers.cones.basis import CongruenceBasis, IdentityBasis, ProductBasis, smat, svec, triangle
from cvxlayers.cones.cone import Basis, Cone, Vector
from cvxlayers.cones.nonnegative import NonNegative
from cvxlayers.cones.product import Product
from cvxlayers.cones.second_order import SecondOrder
from cvxlayers.cones.semidefinite import Semidefinite
from cvxlayers.cones.smoothing import lifted

Strength = Float[np.ndarray, "batch 1"]
Rows = slice | Int[np.ndarray, " _rows"]
Matrices = Float[np.ndarray, "#batch rows n"]


class Frame(ABC):
    """A batch of points v of one cone, decomposed."""

    @abstractmethod
    def lift(self, mu: Strength) -> Vector:
        """Returns y = f(v)."""

    @abstractmethod
    def apply(self, y: Vector, mu: Strength, w: Vector) -> Vector:
        """Returns H w."""

    @abstractmethod
    def factor(self, y: Vector, mu: Strength, A: Matrices) -> tuple[Vector, Float[np.ndarray, "batch extra n"]]:
        """Returns weights c and a matrix B with Aᵀ H A = Aᵀ diag(c) A + Bᵀ B."""

    @abstractmethod
    def spectrum(self, mu: Strength) -> tuple[Vector, Basis]:
        """Returns the eigenvalues of H, and their basis."""


@dataclass(frozen=True, eq=False)
class _Line(Frame):
    v: Vector

    def lift(self, mu: Strength) -> Vector:
        return lifted(self.v, mu)

    def apply(self, y: Vector, mu: Strength, w: Vector) -> Vector:
        return y * y / mu * w

    def factor(self, y: Vector, mu: Strength, A: Matrices) -> tuple[Vector, np.ndarray]:
        return y * y / mu, np.empty((len(y), 0, A.shape[-1]))

    def spectrum(self, mu: Strength) -> tuple[Vector, Basis]:
        y = lifted(self.v, mu)
        return y * y / mu, IdentityBasis(self.v.shape[-1])


@dataclass(frozen=True, eq=False)
class _Rays(Frame):
    """Eigenvalues t ± ‖z‖ of second-order cones."""

    cone: SecondOrder
    v: Vector
    t: np.ndarray
    z: np.ndarray
    norm: np.ndarray

    def lift(self, mu: Strength) -> Vector:
        high, low = self._lifted(mu)
        size = np.hypot(self.t + self.norm, 2.0 * np.sqrt(mu)) + np.hypot(self.t - self.norm, 2.0 * np.sqrt(mu))
        tail = ((high + low) / size)[..., None] * self.z
        return np.concatenate([0.5 * (high + low)[..., None], tail], axis=-1).reshape(self.v.shape)

    def apply(self, y: Vector, mu: Strength, w: Vector) -> Vector:
        stacked, moved, det = self._stack(y), self._stack(w), self._determinant(mu)
        along = np.sum(stacked * moved, axis=-1, keepdims=True)
        turned = 2.0 * along * stacked + det[..., None] * moved
        turned[..., 0] -= 2.0 * det * moved[..., 0]
        return turned.reshape(y.shape) / mu

    def factor(self, y: Vector, mu: Strength, A: Matrices) -> tuple[Vector, np.ndarray]:
        det, size = self._determinant(mu) / mu, self.cone.size
        weights = np.repeat(det, size, axis=-1)
        weights[..., ::size] *= -1.0
        blocks = A.reshape((len(A), self.cone.count, size, A.shape[-1]))
        along = np.matmul(self._stack(y)[..., None, :], blocks)[..., 0, :]
        return weights, np.sqrt(2.0 / mu)[..., None] * along

    def spectrum(self, mu: Strength) -> tuple[Vector, Basis]:
        high, low = self._lifted(mu)
        across = np.broadcast_to((high * low)[..., None], (*high.shape, self.cone.size - 2))
        values = np.concatenate([(high * high)[..., None], (low * low)[..., None], across], axis=-1)
        return values.reshape(self.v.shape) / mu, self.cone.derivative(self.v).basis

    def _lifted(self, mu: Strength) -> tuple[np.ndarray, np.ndarray]:
        return lifted(self.t + self.norm, mu), lifted(self.t - self.norm, mu)

    def _determinant(self, mu: Strength) -> np.ndarray:
        high, low = self._lifted(mu)
        return high * low

    def _stack(self, w: Vector) -> np.ndarray:
        return w.reshape((len(w), self.cone.count, self.cone.size))


@dataclass(frozen=True, eq=False)
class _Matrices(Frame):
    """Eigenvalues and eigenvectors of semidefinite cones."""

    cone: Semidefinite
    values: np.ndarray
    Q: np.ndarray

    def lift(self, mu: Strength) -> Vector:
        positive = lifted(self.values, mu[..., None])
        Y = (self.Q * positive[..., None, :]) @ np.swapaxes(self.Q, -1, -2)
        return svec(Y).reshape((len(Y), self.cone.dim))

    def apply(self, y: Vector, mu: Strength, w: Vector) -> Vector:
        Y, W = self._stack(y), self._stack(w)
        return svec(Y @ W @ Y).reshape(w.shape) / mu

    def factor(self, y: Vector, mu: Strength, A: Matrices) -> tuple[Vector, np.ndarray]:
        values, basis = self.spectrum(mu)
        turned = basis.rotate(np.broadcast_to(A, (len(y), *A.shape[1:])))
        return np.zeros(y.shape), np.sqrt(values)[..., None] * turned

    def spectrum(self, mu: Strength) -> tuple[Vector, Basis]:
        y = lifted(self.values, mu[..., None])
        rows, cols = triangle(self.cone.order)
        h = (y[..., rows] * y[..., cols]).reshape((len(y), self.cone.dim))
        return h / mu, CongruenceBasis(self.Q)

    def _stack(self, w: Vector) -> np.ndarray:
        order = self.cone.order
        return smat(w.reshape((len(w), self.cone.count, order * (order + 1) // 2)), order)


@final
@dataclass(frozen=True, eq=False)
class ProductFrame(Frame):
    """The frames of the curved and the nonnegative cones of a product, side by side; of zero cones there is none."""

    parts: list[tuple[Rows, Frame]]
    dim: int

    def lift(self, mu: Strength) -> Vector:
        """Returns y = f(v)."""
        return self._gather(len(mu), [(rows, frame.lift(mu)) for rows, frame in self.parts])

    def apply(self, y: Vector, mu: Strength, w: Vector) -> Vector:
        """Returns H w."""
        return self._gather(len(mu), [(rows, frame.apply(y[:, rows], mu, w[:, rows])) for rows, frame in self.parts])

    def factor(self, y: Vector, mu: Strength, A: Matrices) -> tuple[Vector, Float[np.ndarray, "batch extra n"]]:
        """Returns weights c and a matrix B with Aᵀ H A = Aᵀ diag(c) A + Bᵀ B."""
        found = [(rows, *frame.factor(y[:, rows], mu, A[:, rows])) for rows, frame in self.parts]
        weights = self._gather(len(mu), [(rows, part) for rows, part, _ in found])
        return weights, np.concatenate([extra for *_, extra in found], axis=1)

    def spectrum(self, mu: Strength) -> tuple[Vector, Basis]:
        """Returns the eigenvalues of H, and their basis."""
        found = [(rows, *frame.spectrum(mu)) for rows, frame in self.parts]
        values = self._gather(len(mu), [(rows, part) for rows, part, _ in found])
        if len(found) == 1:
            return values, found[0][2]
        every = [np.arange(self.dim)[rows] for rows, *_ in found]
        return values, ProductBasis(every, [basis for *_, basis in found])

    def _gather(self, batch: int, parts: list[tuple[Rows, Vector]]) -> Vector:
        if len(parts) == 1:
            return parts[0][1]
        out = np.empty((batch, self.dim))
        for rows, part in parts:
            out[:, rows] = part
        return out


def frame_of(cone: Product, v: Vector) -> ProductFrame:
    """Decomposes points of the rows of a product of symmetric cones that lie behind those of the zero cone."""
    parts: list[tuple[Rows, Frame]] = []
    for one, index in cone.groups:
        if index[0] >= cone.zero:
            low, high = int(index[0]) - cone.zero, int(index[-1]) + 1 - cone.zero
            rows: Rows = slice(low, high) if high - low == len(index) else index - cone.zero
            parts.append((rows, _frame(one, v[:, rows])))
    return ProductFrame(parts, v.shape[1])


def is_symmetric(cone: Product) -> bool:
    """Whether a product has symmetric cones alone, of which frames are offered."""
    return not (cone.exponential or cone.power)


def _frame(cone: Cone, v: Vector) -> Frame:
    match cone:
        case NonNegative():
            return _Line(v)
        case SecondOrder(size=1):
            return _Line(v)
        case SecondOrder():
            return _Rays(cone, v, *cone.split(v))
        case Semidefinite():
            return _Matrices(cone, *cone.eigh(v))
    raise TypeError(f"{type(cone).__name__} is no symmetric cone")

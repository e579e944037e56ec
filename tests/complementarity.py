"""Complementarity of the cones as smooth equations in s and y, near a strictly complementary point.

Symmetric cones: s ∘ y = 0, by the Jordan product. Exponential and power cones {g ≤ 0}: on the boundary g(s) = 0 and
y = −λ ∇g(s), with λ as one more unknown; inside, y = 0. None of it is shared with the library.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray
# g, its gradient and its Hessian at a point.
Surface = Callable[[Array], tuple[float, Array, Array]]
# The matrix of y ↦ s ∘ y, and the eigenvalues of s.
Multiply = Callable[[Array], Array]
Spectrum = Callable[[Array], Array]

_SLACK = 1e-5


class Linearised(NamedTuple):
    """Equations with their derivatives in s, y and λ."""

    value: Array
    ds: Array
    dy: Array
    dmultipliers: Array


class Face(ABC):
    """The equations that hold at s and y, of one cone."""

    rows: slice
    multipliers: int

    @abstractmethod
    def linearise(self, s: Array, y: Array, multipliers: Array) -> Linearised:
        """Returns the equations and their derivatives."""

    @abstractmethod
    def start(self, s: Array, y: Array) -> Array:
        """Returns the multipliers that fit a point best."""

    @abstractmethod
    def violation(self, s: Array, y: Array) -> float:
        """Returns how far s and y are from the cone, its dual, and complementarity."""

    @abstractmethod
    def margin(self, s: Array, y: Array) -> float:
        """Returns how far s and y are from a point at which the equations are not smooth, or not enough."""


@dataclass(frozen=True)
class Zero(Face):
    """s = 0 in the zero cone."""

    rows: slice
    multipliers: int = 0

    def linearise(self, s: Array, y: Array, multipliers: Array) -> Linearised:
        """s = 0."""
        return Linearised(s, np.eye(len(s)), np.zeros((len(s), len(s))), np.zeros((len(s), 0)))

    def start(self, s: Array, y: Array) -> Array:
        """None."""
        return np.zeros(0)

    def violation(self, s: Array, y: Array) -> float:
        """The size of s."""
        return float(np.abs(s).max())

    def margin(self, s: Array, y: Array) -> float:
        """Always smooth."""
        return np.inf


@dataclass(frozen=True)
class Jordan(Face):
    """s ∘ y = 0 in a symmetric cone."""

    rows: slice
    multiply: Multiply
    spectrum: Spectrum
    multipliers: int = 0

    def linearise(self, s: Array, y: Array, multipliers: Array) -> Linearised:
        """s ∘ y, bilinear and symmetric."""
        return Linearised(self.multiply(s) @ y, self.multiply(y), self.multiply(s), np.zeros((len(s), 0)))

    def start(self, s: Array, y: Array) -> Array:
        """None."""
        return np.zeros(0)

    def violation(self, s: Array, y: Array) -> float:
        """Negative eigenvalues and the product."""
        return float(max(-self.spectrum(s).min(), -self.spectrum(y).min(), np.abs(self.multiply(s) @ y).max(), 0.0))

    def margin(self, s: Array, y: Array) -> float:
        """The smallest eigenvalue of s + y: zero where both have an eigenvalue zero in one direction."""
        return float(self.spectrum(s + y).min())


@dataclass(frozen=True)
class Boundary(Face):
    """g(s) = 0 and y = −λ ∇g(s)."""

    rows: slice
    surface: Surface
    multipliers: int = 1

    def linearise(self, s: Array, y: Array, multipliers: Array) -> Linearised:
        """One more equation than rows."""
        g, gradient, hessian = self.surface(s)
        size = len(s)
        ds = np.vstack([gradient[None], multipliers[0] * hessian])
        dy = np.vstack([np.zeros((1, size)), np.eye(size)])
        return Linearised(np.append(g, y + multipliers[0] * gradient), ds, dy, np.append(0.0, gradient)[:, None])

    def start(self, s: Array, y: Array) -> Array:
        """The least-squares multiplier."""
        gradient = self.surface(s)[1]
        return np.array([-(gradient @ y) / (gradient @ gradient)])

    def violation(self, s: Array, y: Array) -> float:
        """The equations at the best multiplier, and a negative multiplier."""
        best = self.start(s, y)
        return float(max(np.abs(self.linearise(s, y, best).value).max(), -best[0], 0.0))

    def margin(self, s: Array, y: Array) -> float:
        """The size of the multiplier and of the point."""
        return float(min(self.start(s, y)[0], np.linalg.norm(s)))


@dataclass(frozen=True)
class Inside(Face):
    """y = 0, since s is inside {g ≤ 0}."""

    rows: slice
    surface: Surface
    multipliers: int = 0

    def linearise(self, s: Array, y: Array, multipliers: Array) -> Linearised:
        """y = 0."""
        return Linearised(y, np.zeros((len(s), len(s))), np.eye(len(s)), np.zeros((len(s), 0)))

    def start(self, s: Array, y: Array) -> Array:
        """None."""
        return np.zeros(0)

    def violation(self, s: Array, y: Array) -> float:
        """The size of y, and how far s is outside."""
        return float(max(np.abs(y).max(), self.surface(s)[0], 0.0))

    def margin(self, s: Array, y: Array) -> float:
        """How far inside s is."""
        return -self.surface(s)[0]


def faces(dims: Any, s: Array, y: Array) -> list[Face]:
    """Returns the faces on which a nearly optimal point lies, in the row order of CVXPY's interface to Clarabel."""
    found: list[Face] = []
    start = 0

    def take(size: int) -> slice:
        nonlocal start
        start += size
        return slice(start - size, start)

    if dims.zero:
        found.append(Zero(take(dims.zero)))
    if dims.nonneg:
        found.append(Jordan(take(dims.nonneg), np.diag, lambda v: v))
    found += [Jordan(take(size), _arrow, _arrow_spectrum) for size in dims.soc]
    for order in dims.psd:
        basis = _svec_basis(order)
        found.append(Jordan(take(order * (order + 1) // 2), _symmetric_product(basis), _matrix_spectrum(basis)))
    surfaces = [_exponential] * dims.exp + [_power(np.array([alpha, 1 - alpha])) for alpha in dims.p3d]
    sizes = [3] * (dims.exp + len(dims.p3d)) + [len(alpha) + 1 for alpha in dims.pnd]
    for surface, size in zip(surfaces + [_power(np.array(alpha)) for alpha in dims.pnd], sizes, strict=True):
        rows = take(size)
        slack = np.linalg.norm(y[rows]) <= _SLACK * np.linalg.norm(s[rows])
        found.append(Inside(rows, surface) if slack else Boundary(rows, surface))
    return found


def _arrow(v: Array) -> Array:
    out = v[0] * np.eye(len(v))
    out[0, :], out[:, 0] = v, v
    return out


def _arrow_spectrum(v: Array) -> Array:
    return v[0] + np.array([-1, 1]) * np.linalg.norm(v[1:])


def _svec_basis(order: int) -> Array:
    """The orthonormal basis of symmetric matrices behind the scaled upper triangle, column by column."""
    basis = []
    for j in range(order):
        for i in range(j + 1):
            matrix = np.zeros((order, order))
            matrix[i, j] = matrix[j, i] = 1.0 if i == j else np.sqrt(0.5)
            basis.append(matrix)
    return np.array(basis)


def _symmetric_product(basis: Array) -> Multiply:
    def multiply(v: Array) -> Array:
        matrix = np.tensordot(v, basis, 1)
        products = 0.5 * (matrix @ basis + basis @ matrix)
        return np.einsum("aij,bij->ab", basis, products)

    return multiply


def _matrix_spectrum(basis: Array) -> Spectrum:
    return lambda v: np.linalg.eigvalsh(np.tensordot(v, basis, 1))


def _exponential(s: Array) -> tuple[float, Array, Array]:
    """g = y exp(x/y) − z."""
    x, y, z = s
    ratio, e = x / y, np.exp(x / y)
    direction = np.array([1.0, -ratio, 0.0])
    return y * e - z, np.array([e, e * (1 - ratio), -1.0]), e / y * np.outer(direction, direction)


def _power(alpha: Array) -> Surface:
    """g = |z| − Π xᵢ^αᵢ, away from z = 0."""

    def surface(s: Array) -> tuple[float, Array, Array]:
        x, z = s[:-1], s[-1]
        mean, slope = np.prod(x**alpha), alpha / x
        hessian = np.zeros((len(s), len(s)))
        hessian[:-1, :-1] = mean * (np.diag(alpha / x**2) - np.outer(slope, slope))
        return abs(z) - mean, np.append(-mean * slope, np.sign(z)), hessian

    return surface

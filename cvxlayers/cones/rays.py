"""Second-order cones of any sizes, all at once, in the frame of their rays (1, ±ẑ).

What belongs to a cone, such as the norm of its z, stands in one column a cone; sums over the rows of each cone lead
there, and `spread` leads back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
from jaxtyping import Float, Int

from cvxlayers.cones.basis import ProductBasis, Rows, places, together
from cvxlayers.cones.cone import Basis, Vector
from cvxlayers.cones.metric import Array, Matrices, Metric, Strength, lifted
from cvxlayers.cones.second_order import TINY, SecondOrder

Columns = Float[np.ndarray, "batch count"]


@dataclass(frozen=True, eq=False)
class Rays:
    """Where second-order cones stand.

    Attributes:
        groups: cones of one size as one, with their rows.
        heads: the first row of each cone.
        owner: the cone of each row.
    """

    groups: Sequence[tuple[Rows, SecondOrder]]
    heads: Int[np.ndarray, " count"]
    owner: Int[np.ndarray, " m"]

    @classmethod
    def of(cls, groups: Sequence[tuple[Rows, SecondOrder]]) -> Rays:
        """Takes cones of more than one coordinate, on rows from zero on."""
        heads = np.sort(np.concatenate([places(rows)[:: cone.size] for rows, cone in groups]))
        m = sum(cone.dim for _, cone in groups)
        return cls(groups, heads, np.repeat(np.arange(len(heads)), np.diff(np.append(heads, m))))

    @cached_property
    def first(self) -> Rows:
        """The first rows, as a slice where they rise by equal steps."""
        if len(self.groups) > 1:
            return self.heads
        return slice(0, len(self.owner), self.groups[0][1].size)

    def sum(self, w: Vector) -> Columns:
        """Returns the sum of the rows of each cone."""
        return np.add.reduceat(w, self.heads, axis=1)

    def spread(self, columns: Columns) -> Vector:
        """Returns for each row what belongs to its cone."""
        return columns.take(self.owner, axis=1)

    def ends(self, v: Vector) -> Array:
        """Returns t + ‖z‖ of all cones, and t − ‖z‖; the norm neither overflows nor underflows."""
        with np.errstate(over="ignore"):
            squares = v * v
            squares[:, self.first] = 0.0
            squared = self.sum(squares)
        norm, t = np.sqrt(squared), v[:, self.first]
        if not (squared.min() > TINY and squared.max() < 1.0 / TINY):
            norm = self._norm(v)
        ends = np.empty((len(v), 2, len(self.heads)))
        np.add(t, norm, out=ends[:, 0])
        np.subtract(t, norm, out=ends[:, 1])
        return ends

    def _norm(self, v: Vector) -> Columns:
        """Returns ‖z‖ of any size."""
        sizes = np.abs(v)
        sizes[:, self.first] = 0.0
        largest = np.maximum.reduceat(sizes, self.heads, axis=1)
        unit = sizes / self.spread(np.where(largest > 0, largest, 1.0))
        return largest * np.sqrt(self.sum(unit * unit))


@final
@dataclass(frozen=True, eq=False)
class RayMetric(Metric):
    """The path of second-order cones, with the eigenvalues of y, and its determinants over μ.

    H = ρ ρᵀ − δ J, cone by cone, with ρ = √(2/μ) y, δ = det(y) / μ and J = diag(1, −1, …, −1).
    """

    rays: Rays
    v: Vector
    y: Vector
    high: Columns
    low: Columns
    mu: Strength

    @classmethod
    def of(cls, rays: Rays, v: Vector, ends: Array, mu: Strength) -> RayMetric:
        """Returns the points y = f(v)."""
        lifts, roots = lifted(ends, mu[..., None])
        high, low = lifts[:, 0], lifts[:, 1]
        total = high + low
        # (f(t + ‖z‖) − f(t − ‖z‖)) / 2‖z‖, the slope of f between the two, needs no division by ‖z‖.
        y = rays.spread(total / (roots[:, 0] + roots[:, 1]))
        y *= v
        y[:, rays.first] = 0.5 * total
        return cls(rays, v, y, high, low, mu)

    @cached_property
    def _ray(self) -> Vector:
        return np.sqrt(2.0 / self.mu) * self.y

    @cached_property
    def _weights(self) -> Vector:
        determinant = self.high * self.low / self.mu
        weights = self.rays.spread(determinant)
        weights[:, self.rays.first] = -determinant
        return weights

    def apply(self, w: Vector) -> Vector:
        """Returns ρ (ρᵀ w) − δ J w."""
        turned = self.rays.spread(self.rays.sum(self._ray * w))
        turned *= self._ray
        turned += self._weights * w
        return turned

    def factor(self, A: Matrices) -> tuple[Vector, Array]:
        """Returns −δ J and ρᵀA."""
        found = [_dots(self._ray[:, rows], A[:, rows], cone) for rows, cone in self.rays.groups]
        return self._weights, found[0] if len(found) == 1 else np.concatenate(found, axis=1)

    def spectrum(self) -> tuple[Vector, Basis]:
        """Returns the products of the eigenvalues of y, over μ."""
        high, low, first = self.high, self.low, self.rays.heads
        values = self.rays.spread(high * low)
        values[:, first], values[:, first + 1] = high * high, low * low
        found = [(rows, cone.derivative(self.v[:, rows]).basis) for rows, cone in self.rays.groups]
        basis = found[0][1] if len(found) == 1 else ProductBasis(*zip(*found, strict=True))
        return values / self.mu, basis


def rays_of(groups: Sequence[tuple[Rows, SecondOrder]]) -> tuple[Rows, Rays]:
    """Returns the rows of second-order cones, and where in these each stands."""
    rows = np.sort(np.concatenate([places(mine) for mine, _ in groups]))
    return together(rows), Rays.of([(together(np.searchsorted(rows, places(mine))), cone) for mine, cone in groups])


def _dots(ray: Vector, A: Matrices, cone: SecondOrder) -> Array:
    """Returns ρᵀA of cones of one size."""
    stacked = ray.reshape((len(ray), cone.count, 1, cone.size))
    return np.matmul(stacked, A.reshape((len(A), cone.count, cone.size, A.shape[-1])))[..., 0, :]

"""Points of symmetric cones in the frame of their eigenvectors: from there, the whole central path is at hand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import final

import numpy as np
from jaxtyping import Int

from cvxlayers.cones.basis import Rows, places, together
from cvxlayers.cones.cone import Vector
from cvxlayers.cones.metric import Array, LineMetric, MatrixMetric, Metric, StackedMetric, Strength
from cvxlayers.cones.nonnegative import NonNegative
from cvxlayers.cones.product import Product
from cvxlayers.cones.rays import RayMetric, Rays, rays_of
from cvxlayers.cones.second_order import SecondOrder
from cvxlayers.cones.semidefinite import Semidefinite
from cvxlayers.cones.zero import Zero

Index = Int[np.ndarray, " _count"]
# What a point is decomposed into.
Found = tuple[Array, ...]


class _Part(ABC):
    """Cones of one kind, and their rows."""

    rows: Rows

    @abstractmethod
    def decompose(self, v: Vector) -> Found:
        """Returns what the metric needs to know of their rows of points, whatever μ is."""

    @abstractmethod
    def metric(self, v: Vector, found: Found, mu: Strength) -> Metric:
        """Returns the points of the central path."""


@final
@dataclass(frozen=True, eq=False)
class _Lines(_Part):
    rows: Rows

    def decompose(self, v: Vector) -> Found:
        return ()

    def metric(self, v: Vector, found: Found, mu: Strength) -> Metric:
        return LineMetric.of(v, mu)


@final
@dataclass(frozen=True, eq=False)
class _Rays(_Part):
    rows: Rows
    rays: Rays

    def decompose(self, v: Vector) -> Found:
        return (self.rays.ends(v),)

    def metric(self, v: Vector, found: Found, mu: Strength) -> Metric:
        return RayMetric.of(self.rays, v, found[0], mu)


@final
@dataclass(frozen=True, eq=False)
class _Matrices(_Part):
    rows: Rows
    cone: Semidefinite

    def decompose(self, v: Vector) -> Found:
        return self.cone.eigh(v)

    def metric(self, v: Vector, found: Found, mu: Strength) -> Metric:
        return MatrixMetric.of(self.cone, found[0], found[1], mu)


@final
@dataclass(frozen=True, eq=False)
class Frame:
    """A batch of points v of a product of symmetric cones, decomposed."""

    v: Vector
    parts: Sequence[_Part]
    found: Sequence[Found]

    @classmethod
    def of(cls, cone: Product, v: Vector) -> Frame:
        """Decomposes points: of the rows behind those of the zero cone."""
        return _decomposed(v, _parts(cone))

    def moved(self, v: Vector) -> Frame:
        """Decomposes other points of the same cones."""
        return _decomposed(v, self.parts)

    def item(self, index: Index) -> Frame:
        """Returns the points of some items."""
        return Frame(self.v[index], self.parts, [tuple(array[index] for array in part) for part in self.found])

    def put(self, index: Index, values: Frame) -> Frame:
        """Returns the points with those of some items replaced."""
        found: list[Found] = []
        for mine, theirs in zip(self.found, values.found, strict=True):
            found.append(tuple(_put(one, index, other) for one, other in zip(mine, theirs, strict=True)))
        return Frame(_put(self.v, index, values.v), self.parts, found)

    def at(self, mu: Strength) -> Metric:
        """Returns the points of the central path."""
        pairs = zip(self.parts, self.found, strict=True)
        metrics = [(part.rows, part.metric(self.v[:, part.rows], found, mu)) for part, found in pairs]
        return metrics[0][1] if len(metrics) == 1 else StackedMetric.of(metrics, self.v.shape)


def is_symmetric(cone: Product) -> bool:
    """Whether a product has symmetric cones alone, of which frames are offered."""
    return not (cone.exponential or cone.power)


def _decomposed(v: Vector, parts: Sequence[_Part]) -> Frame:
    return Frame(v, parts, [part.decompose(v[:, part.rows]) for part in parts])


@lru_cache(maxsize=64)
def _parts(cone: Product) -> Sequence[_Part]:
    """Takes a product of symmetric cones apart, by their kinds: of the rows behind those of the zero cone."""
    lines: list[Rows] = []
    rays: list[tuple[Rows, SecondOrder]] = []
    matrices: list[_Part] = []
    for one, index in cone.groups:
        rows = together(places(index) - cone.zero)
        match one:
            case Zero():
                pass
            case NonNegative() | SecondOrder(size=1):
                lines.append(rows)
            case SecondOrder():
                rays.append((rows, one))
            case Semidefinite():
                matrices.append(_Matrices(rows, one))
            case _:
                raise TypeError(f"{type(one).__name__} is no symmetric cone")
    straight = [_Lines(together(np.sort(np.concatenate([places(rows) for rows in lines]))))] if lines else []
    return [*straight, *([_Rays(*rays_of(rays))] if rays else []), *matrices]


def _put(array: Array, index: Index, values: Array) -> Array:
    changed = array.copy()
    changed[index] = values
    return changed

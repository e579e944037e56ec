"""The product of cones, in the row order of the house; itself a cone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np

from cvxlayers.cones.basis import IdentityBasis, ProductBasis, Rows, places, together
from cvxlayers.cones.cone import Cone, Derivative, Vector
from cvxlayers.cones.exponential import Exponential
from cvxlayers.cones.nonnegative import NonNegative
from cvxlayers.cones.power import Power
from cvxlayers.cones.second_order import SecondOrder
from cvxlayers.cones.semidefinite import Semidefinite
from cvxlayers.cones.zero import Zero


@final
@dataclass(frozen=True)
class Product(Cone):
    """The product of cones, stacked as: zero, nonnegative, second-order, semidefinite, exponential, power.

    Attributes:
        zero: the dimension of the zero cone.
        nonnegative: the dimension of the nonnegative orthant.
        second_order: the dimension of each second-order cone.
        semidefinite: the order of each cone of positive semidefinite matrices (order·(order + 1)/2 rows).
        exponential: the number of exponential cones (three rows each).
        power: the exponent α of each three-dimensional power cone.
    """

    zero: int = 0
    nonnegative: int = 0
    second_order: tuple[int, ...] = ()
    semidefinite: tuple[int, ...] = ()
    exponential: int = 0
    power: tuple[float, ...] = ()

    @property
    def dim(self) -> int:
        """The dimension of the space."""
        return self._dim

    @cached_property
    def _dim(self) -> int:
        return sum(rows.stop - rows.start for _, rows in self.blocks())

    @property
    def polyhedral(self) -> bool:
        """Whether only the zero cone and the orthant occur."""
        return not (self.second_order or self.semidefinite or self.exponential or self.power)

    @property
    def twice_differentiable(self) -> bool:
        """Whether every cone offers a second derivative."""
        return not (self.semidefinite or self.exponential or self.power)

    def refuse_second_derivative(self) -> None:
        """Raises DerivativeError, naming the cone, if one offers no second derivative."""
        self.second_derivative(*np.zeros((3, 0, self.dim)))

    def blocks(self) -> list[tuple[Cone, slice]]:
        """Returns each factor that has rows, in order, with its rows."""
        cones: list[Cone] = [Zero(self.zero), NonNegative(self.nonnegative)]
        cones += [SecondOrder(size) for size in self.second_order]
        cones += [Semidefinite(order) for order in self.semidefinite]
        cones += [Exponential() for _ in range(self.exponential)]
        cones += [Power((alpha,)) for alpha in self.power]
        stops = np.cumsum([cone.dim for cone in cones]).tolist()
        found = [(cone, slice(stop - cone.dim, stop)) for cone, stop in zip(cones, stops, strict=True)]
        return [(cone, rows) for cone, rows in found if cone.dim]

    @cached_property
    def groups(self) -> list[tuple[Cone, Rows]]:
        """Equal cones, wherever they stand, as one cone with all their rows."""
        rows: dict[Cone | type[Cone], list[np.ndarray]] = {}
        alphas: list[float] = []
        for cone, block in self.blocks():
            # Power cones of all exponents are computed together.
            key = Power if isinstance(cone, Power) else cone
            alphas += cone.alphas if isinstance(cone, Power) else ()
            rows.setdefault(key, []).append(places(block))
        return [
            (_stack(key, len(parts), tuple(alphas)), together(np.concatenate(parts))) for key, parts in rows.items()
        ]

    def project(self, v: Vector, near: Vector | None = None) -> Vector:
        """Projects each block; a search for the projection starts `near` a given point."""
        if self.polyhedral:
            return self._of_orthant(np.maximum(v, 0.0))

        def block(cone: Cone, rows: Rows) -> Vector:
            if near is not None and isinstance(cone, Exponential):
                return cone.project(v[..., rows], near[..., rows])
            return cone.project(v[..., rows])

        return self.by_group(v, block)

    def derivative(self, v: Vector, projected: Vector | None = None) -> Derivative:
        """Stacks the derivatives of the blocks; where the projection is known, it need not be searched for."""
        if self.polyhedral:
            return Derivative(self._of_orthant(np.heaviside(v, 0.5)), IdentityBasis(self.dim))

        def block(cone: Cone, rows: Rows) -> Derivative:
            if projected is not None and isinstance(cone, Exponential):
                return cone.derivative(v[..., rows], projected[..., rows])
            return cone.derivative(v[..., rows])

        return self.stack(v, [(rows, block(cone, rows)) for cone, rows in self.groups])

    def stack(self, v: Vector, parts: Sequence[tuple[Rows, Derivative]]) -> Derivative:
        """Stacks the derivatives of the groups at v; where all are polyhedral their common basis is the identity."""
        eigenvalues = np.empty(v.shape)
        for rows, part in parts:
            eigenvalues[..., rows] = part.eigenvalues
        if self.polyhedral:
            return Derivative(eigenvalues, IdentityBasis(self.dim))
        return Derivative(eigenvalues, ProductBasis([rows for rows, _ in parts], [part.basis for _, part in parts]))

    def second_derivative(self, v: Vector, dv: Vector, w: Vector) -> Vector:
        """Stacks the second derivatives of the blocks.

        Raises:
            DerivativeError: if a block does not offer one.
        """
        return self.by_group(v, lambda cone, rows: cone.second_derivative(v[..., rows], dv[..., rows], w[..., rows]))

    def _of_orthant(self, values: Vector) -> Vector:
        """Returns what is computed as if all rows were of the orthant, and is zero in the zero cone."""
        values[..., : self.zero] = 0.0
        return values

    def by_group(self, v: Vector, compute: Callable[[Cone, Rows], Vector]) -> Vector:
        """Stacks what is computed for each group."""
        out = np.empty(v.shape)
        for cone, rows in self.groups:
            out[..., rows] = compute(cone, rows)
        return out


def _stack(key: Cone | type[Cone], count: int, alphas: tuple[float, ...]) -> Cone:
    """Returns `count` equal cones as one."""
    match key:
        case SecondOrder(size=size):
            return SecondOrder(size, count)
        case Semidefinite(order=order):
            return Semidefinite(order, count)
        case Exponential():
            return Exponential(count)
        case Zero() | NonNegative():
            return key
        case _:
            return Power(alphas)

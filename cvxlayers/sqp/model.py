"""What the algorithm asks of a problem: values, a local model, and how cotangents go back to its parameters.

minimise f(z, θ) subject to g(z, θ) = 0, h(z, θ) ≤ 0, lower ≤ z ≤ upper, for each item of a batch. Everything here is
float64 numpy; a framework differentiates behind the `Oracle`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from cvxlayers.sqp.pattern import Pattern, Vectors

Sizes = Float[np.ndarray, " batch"]
Blocks = tuple[Float[np.ndarray, "batch _ _ _"], ...]


@dataclass(frozen=True, eq=False)
class Layout:
    """What all items share: sizes, bounds, and where the matrices store their entries.

    Attributes:
        lower: the lower bounds of z, −∞ where there is none.
        upper: the upper bounds.
        A: the positions of ∂g/∂z.
        G: the positions of ∂h/∂z.
        blocks: the Hessian's diagonal blocks, in groups of one order: (number, order) of each.
    """

    lower: Float[np.ndarray, " n"]
    upper: Float[np.ndarray, " n"]
    A: Pattern
    G: Pattern
    blocks: tuple[tuple[int, int], ...]

    @property
    def n(self) -> int:
        """The number of variables."""
        return len(self.lower)

    @property
    def P(self) -> Pattern:
        """The positions of the Hessian."""
        return Pattern.block_diagonal(tuple(k for count, k in self.blocks for _ in range(count)))


@dataclass(frozen=True, eq=False)
class Functions:
    """The values of f, g and h, at one or more points of each item."""

    f: Float[np.ndarray, "*batch"]
    g: Float[np.ndarray, "*batch p"]
    h: Float[np.ndarray, "*batch q"]


@dataclass(frozen=True, eq=False)
class Model:
    """The functions, and their derivatives: entries of A = ∂g/∂z and G = ∂h/∂z, blocks of the Hessian."""

    gradient: Vectors
    g: Vectors
    h: Vectors
    A: Vectors
    G: Vectors
    hessian: Blocks

    def item(self, items: np.ndarray) -> Model:
        """Returns the model of some items."""
        chosen = {part.name: getattr(self, part.name)[items] for part in fields(self)[:-1]}
        return Model(**chosen, hessian=tuple(block[items] for block in self.hessian))


@dataclass(frozen=True, eq=False)
class Multipliers:
    """Of g = 0 (any sign), h ≤ 0 (nonnegative), and the bounds (positive at the upper, negative at the lower)."""

    g: Vectors
    h: Vectors
    box: Vectors

    @classmethod
    def zeros(cls, layout: Layout, batch: int) -> Multipliers:
        """Returns multipliers that are zero."""
        return cls(*(np.zeros((batch, size)) for size in (layout.A.shape[0], layout.G.shape[0], layout.n)))

    def item(self, items: np.ndarray) -> Multipliers:
        """Returns those of some items."""
        return Multipliers(self.g[items], self.h[items], self.box[items])

    def moved(self, items: np.ndarray, towards: Multipliers, step: Sizes) -> Multipliers:
        """Returns them after a step of some items towards others."""
        found = []
        for old, new in zip((self.g, self.h, self.box), (towards.g, towards.h, towards.box), strict=True):
            changed = old.copy()
            changed[items] += step[:, None] * (new - old[items])
            found.append(changed)
        return Multipliers(*found)


@runtime_checkable
class Oracle(Protocol):
    """A problem at given parameters, for a whole batch."""

    @property
    def layout(self) -> Layout:
        """What all items share."""
        ...

    def values(self, trials: Float[np.ndarray, "trials batch n"]) -> Functions:
        """Returns f, g and h at several points of each item, stacked along a first axis."""
        ...

    def model(self, z: Vectors, multipliers: Multipliers, hessian: str) -> Model:
        """Returns the model at z, its Hessian that of the Lagrangian ("exact") or "gauss_newton"."""
        ...

    def pull_model(
        self, z: Vectors, multipliers: Multipliers, hessian: str, cotangents: Model
    ) -> tuple[Vectors, Multipliers, Sequence[Any]]:
        """Pulls cotangents of the model back to z, the multipliers, and the parameters."""
        ...

    def pull_conditions(self, z: Vectors, at: Multipliers, dz: Vectors, dual: Multipliers) -> Sequence[Any]:
        """Pulls cotangents of ∇L (dz), g and h (dual) at z and the multipliers back to the parameters."""
        ...

    def pull_lagrangian(self, z: Vectors, at: Multipliers, weights: Sizes) -> Sequence[Any]:
        """Returns the gradient in the parameters of the weighted sum of the items' Lagrangians."""
        ...

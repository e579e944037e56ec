"""Factorisations that are kept: those of the last Newton steps serve the derivatives, where the same rows are active.

On polyhedral cones the matrix K depends on the point by the set of active rows alone, so that the factors by which a
point was polished are those of the derivative there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from cvxlayers.batches import Vectors, some
from cvxlayers.derivative.system import Factorisation, Rank, Solve, System


@dataclass(frozen=True, eq=False)
class Known:
    """The factorised systems of a batch of programs with polyhedral cones, and the eigenvalues of their D."""

    eigenvalues: Vectors
    factors: Factorisation

    def factorise(self, system: System, factorise: Callable[[System], Factorisation]) -> Factorisation:
        """Returns the factorised systems of the same programs at other points; what is not known is factorised."""
        differ = self.eigenvalues != system.derivative.eigenvalues
        if not some(differ):
            return self.factors
        other = differ.any(axis=1).nonzero()[0]
        if 2 * len(other) > len(self.eigenvalues):
            return factorise(system)
        return _Patched(self.factors, other, factorise(system.item(other)))


@dataclass(frozen=True, eq=False)
class _Patched(Factorisation):
    """Known factors, with those of some items replaced."""

    known: Factorisation
    items: Int[np.ndarray, " k"]
    patch: Factorisation

    @property
    def rank(self) -> Rank:
        """How regular the systems are."""
        rank = self.known.rank.item(np.arange(len(self.known.rank.condition)))
        rank.replace_items(self.items, self.patch.rank)
        return rank

    def solve(self, first: Vectors, second: Vectors) -> Solve:
        """Solves K u = [first; second] for each item."""
        solved, again = self.known.solve(first, second), self.patch.solve(first[self.items], second[self.items])
        for name in ("first", "second", "residual"):
            getattr(solved, name)[self.items] = getattr(again, name)
        return solved


class Keeper:
    """Keeps the first factorisation of the whole of a batch."""

    def __init__(self, batch: int) -> None:
        """Keeps nothing yet."""
        self.batch = batch
        self.known: Known | None = None

    def keep(self, system: System, factors: Factorisation) -> Factorisation:
        """Returns the factors, which are kept if they are those of the whole batch and the first."""
        if self.known is None and len(system.derivative.eigenvalues) == self.batch:
            self.known = Known(system.derivative.eigenvalues, factors)
        return factors

"""Factorisations that use the structure of a batch of systems, and fall back on whole matrices where it does not help.

What uses the structure is an approximate inverse for all items. Items that do not have the structure at their points,
or whose eliminated systems are nearly singular, are known beforehand; others turn out to, by their residuals.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from cvxlayers.batches import Vectors
from cvxlayers.derivative.system import Factorisation, Factorise, Rank, Solve, System, refine

# A residual above this is worth the whole matrix.
_ESCALATE = 1e-8


@dataclass(frozen=True, eq=False)
class StructuredFactorisation(Factorisation):
    """The systems of a batch, solved by their structure; those of the items `rest` are factorised as a whole.

    Attributes:
        system: the systems.
        inverse: returns [first; second] for right-hand sides of all items.
        ranks: how regular the systems are.
        rest: the items that the inverse does not serve.
        whole: their factors.
        factorise: how systems are factorised as a whole.
    """

    system: System
    inverse: Callable[[Vectors, Vectors], tuple[Vectors, Vectors]]
    ranks: Rank
    rest: Int[np.ndarray, " _rest"]
    whole: Factorisation | None
    factorise: Factorise

    @classmethod
    def of(
        cls,
        system: System,
        inverse: Callable[[Vectors, Vectors], tuple[Vectors, Vectors]],
        ranks: Rank,
        served: Bool[np.ndarray, " batch"],
        factorise: Factorise,
    ) -> StructuredFactorisation:
        """Factorises as a whole what the inverse does not serve.

        Args:
            system: the systems.
            inverse: returns [first; second] for right-hand sides of all items.
            ranks: how regular the systems are that it serves.
            served: which those are.
            factorise: how systems are factorised as a whole.
        """
        rest = (~served).nonzero()[0]
        if not len(rest):
            return cls(system, inverse, ranks, rest, None, factorise)
        whole = factorise(system.item(rest))
        ranks.replace_items(rest, whole.rank)
        return cls(system, inverse, ranks, rest, whole, factorise)

    @property
    def rank(self) -> Rank:
        """How regular the systems are."""
        return self.ranks

    def solve(self, first: Vectors, second: Vectors) -> Solve:
        """Solves K u = [first; second] for each item."""
        rhs, n = np.concatenate([first, second], axis=1), first.shape[1]
        served = np.ones(len(rhs), dtype=bool)
        served[self.rest] = False
        with np.errstate(all="ignore"):
            u, residual = refine(self.system, rhs, self._approximate, served)
        if self.whole is not None:
            self._replace(u, residual, self.rest, self.whole.solve(first[self.rest], second[self.rest]))
        rough = (~(residual <= _ESCALATE) & served).nonzero()[0]
        if len(rough):
            found = self.factorise(self.system.item(rough)).solve(first[rough], second[rough])
            self._replace(u, residual, rough, found)
        return Solve(u[:, :n], u[:, n:], residual)

    def once(self, first: Vectors, second: Vectors) -> tuple[Vectors, Vectors]:
        """Solves K u = [first; second] for each item, once."""
        with np.errstate(all="ignore"):
            u = self.inverse(first, second)
        if self.whole is not None:
            for part, again in zip(u, self.whole.once(first[self.rest], second[self.rest]), strict=True):
                part[self.rest] = again
        return u

    def _approximate(self, rhs: Vectors, items: Int[np.ndarray, " count"]) -> Vectors:
        """Applies the inverse to right-hand sides of some items."""
        n, batch = self.system.program.structure.n, len(self.ranks.condition)
        if len(items) < batch:
            every = np.zeros((batch, rhs.shape[1]))
            every[items] = rhs
            return self._approximate(every, np.arange(batch))[items]
        return np.concatenate(self.inverse(rhs[:, :n], rhs[:, n:]), axis=1)

    @staticmethod
    def _replace(u: Vectors, residual: np.ndarray, items: Int[np.ndarray, " _items"], solve: Solve) -> None:
        u[items] = np.concatenate([solve.first, solve.second], axis=1)
        residual[items] = solve.residual

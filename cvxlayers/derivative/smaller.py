"""Factorisations by a smaller system for each item, of an order that differs between the items of a batch.

The directions that items keep are padded to the number of the item with the most, but each system is factorised in its
own order, so that no item's rounding depends on its neighbours. An item whose smaller system is nearly singular is
factorised as a whole.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from cvxlayers.derivative.system import Factorisation, Factorise, Rank, Solve, System, refine
from cvxlayers.program import Vectors

Index = Int[np.ndarray, " _count"]


@dataclass(frozen=True, eq=False)
class Kept:
    """The directions that items keep.

    Attributes:
        mask: which.
        order: the same as indices, item by item, padded with any.
        count: how many each item keeps.
    """

    mask: Bool[np.ndarray, "batch m"]
    order: Int[np.ndarray, "batch most"]
    count: Int[np.ndarray, " batch"]

    @classmethod
    def of(cls, mask: Bool[np.ndarray, "batch m"]) -> Kept:
        """Returns the directions of a mask."""
        count = mask.sum(axis=1)
        kept = cls(mask, np.zeros((len(mask), int(count.max(initial=0))), dtype=np.int64), count)
        kept.order[kept.used] = np.nonzero(mask)[1]
        return kept

    @property
    def used(self) -> Bool[np.ndarray, "batch most"]:
        """Which of the indices are no padding."""
        return np.arange(self.order.shape[1]) < self.count[:, None]

    def item(self, index: Index) -> Kept:
        """Returns those of some items."""
        return Kept(self.mask[index], self.order[index], self.count[index])

    def take(self, w: Vectors) -> Vectors:
        """Returns the entries of vectors that are kept."""
        return np.take_along_axis(w, self.order, axis=1)

    def put(self, w: Vectors, values: Vectors) -> None:
        """Writes the entries of vectors that are kept."""
        w[self.mask] = values[self.used]


class Part(ABC):
    """The smaller systems of a batch."""

    @property
    @abstractmethod
    def condition(self) -> Float[np.ndarray, " batch"]:
        """An estimate of the condition numbers; infinite where a matrix is nearly singular."""

    @abstractmethod
    def solve(self, rhs: Vectors, items: Index) -> Vectors:
        """Solves K u = right-hand side for some items."""


@dataclass(frozen=True, eq=False)
class PartialFactorisation(Factorisation):
    """The smaller systems of a batch, and those items that are factorised as a whole."""

    system: System
    part: Part
    ranks: Rank
    rest: Index
    whole: Factorisation | None

    @property
    def rank(self) -> Rank:
        """How regular the systems are."""
        return self.ranks

    def solve(self, first: Vectors, second: Vectors) -> Solve:
        """Solves K u = [first; second] for each item."""
        n, rhs = first.shape[1], np.concatenate([first, second], axis=1)
        refinable = np.ones(len(rhs), dtype=bool)
        refinable[self.rest] = False
        solution, residual = refine(self.system, rhs, self.part.solve, refinable)
        if self.whole is None:
            return Solve(solution[:, :n], solution[:, n:], residual)
        part = self.whole.solve(first[self.rest], second[self.rest])
        solution[self.rest] = np.concatenate([part.first, part.second], axis=1)
        residual[self.rest] = part.residual
        return Solve(solution[:, :n], solution[:, n:], residual)


def with_the_rest(system: System, part: Part, factorise: Factorise) -> PartialFactorisation:
    """Returns the factorisation by smaller systems; those that are nearly singular are factorised as a whole.

    Args:
        system: the systems.
        part: the smaller ones.
        factorise: how systems are factorised as a whole.
    """
    condition = part.condition
    ranks, rest = Rank.regular(condition, system.program.structure.n), np.flatnonzero(~np.isfinite(condition))
    whole = factorise(system.item(rest)) if len(rest) else None
    if whole is not None:
        ranks.replace_items(rest, whole.rank)
    return PartialFactorisation(system, part, ranks, rest, whole)


def items_of(system: System, items: Index) -> System:
    """Returns the systems of some items, without a copy where these are all."""
    return system if len(items) == len(system.derivative.eigenvalues) else system.item(items)

"""Factorisations by a smaller system for each item, of an order that differs between the items of a batch.

Items of one order are factorised together. They are not padded to one order, so that no item's rounding depends on its
neighbours. An item whose smaller system is nearly singular is factorised as a whole.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from cvxlayers.derivative.structured import StructuredFactorisation
from cvxlayers.derivative.system import Factorise, Rank, System
from cvxlayers.program import Vectors

Index = Int[np.ndarray, " _count"]


class Part(ABC):
    """The smaller systems of some items."""

    @property
    @abstractmethod
    def condition(self) -> Float[np.ndarray, " batch"]:
        """An estimate of the condition numbers; infinite where a matrix is nearly singular."""

    @abstractmethod
    def solve(self, first: Vectors, second: Vectors) -> tuple[Vectors, Vectors]:
        """Solves K u = [first; second] for each of them."""


@dataclass(frozen=True, eq=False)
class _Groups:
    """The groups of a batch."""

    groups: Sequence[tuple[Index, Part]]

    def solve(self, first: Vectors, second: Vectors) -> tuple[Vectors, Vectors]:
        """Solves K u = [first; second] for each item."""
        if len(self.groups) == 1:
            return self.groups[0][1].solve(first, second)
        x, z = np.empty(first.shape), np.empty(second.shape)
        for items, part in self.groups:
            x[items], z[items] = part.solve(first[items], second[items])
        return x, z


def factorise_groups(
    system: System,
    kept: Bool[np.ndarray, "batch _m"],
    make: Callable[[System, Int[np.ndarray, "group kept"]], Part],
    factorise: Factorise,
) -> StructuredFactorisation:
    """Factorises a batch of systems by smaller ones.

    Args:
        system: the systems.
        kept: the directions that each item's smaller system keeps.
        make: factorises the smaller systems of some items that keep equally many directions, given which.
        factorise: how systems are factorised as a whole.
    """
    counts, groups = kept.sum(axis=1), []
    condition = np.full(len(counts), np.inf)
    for count in np.unique(counts):
        items = np.flatnonzero(counts == count)
        mine = system if len(items) == len(counts) else system.item(items)
        part = make(mine, np.nonzero(kept[items])[1].reshape(len(items), -1))
        condition[items] = part.condition
        groups.append((items, part))
    ranks = Rank.regular(condition, system.program.structure.n)
    return StructuredFactorisation.of(system, _Groups(groups).solve, ranks, np.isfinite(condition), factorise)

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

from cvxlayers.derivative.system import Factorisation, Factorise, Rank, Solve, System, refine
from cvxlayers.program import Vectors

Index = Int[np.ndarray, " _count"]


class Part(ABC):
    """The smaller systems of some items."""

    @property
    @abstractmethod
    def condition(self) -> Float[np.ndarray, " batch"]:
        """An estimate of the condition numbers; infinite where a matrix is nearly singular."""

    @abstractmethod
    def solve(self, rhs: Vectors, items: Index) -> Vectors:
        """Solves K u = right-hand side for some items."""


@dataclass(frozen=True, eq=False)
class GroupedFactorisation(Factorisation):
    """The groups of a batch, and those items that are factorised as a whole."""

    system: System
    groups: Sequence[tuple[Index, Part]]
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
        with np.errstate(all="ignore"):  # of the items that the whole factorisation has
            solution, residual = refine(self.system, rhs, self._approximate, refinable)
        if self.whole is None:
            return Solve(solution[:, :n], solution[:, n:], residual)
        part = self.whole.solve(first[self.rest], second[self.rest])
        solution[self.rest] = np.concatenate([part.first, part.second], axis=1)
        residual[self.rest] = part.residual
        return Solve(solution[:, :n], solution[:, n:], residual)

    def _approximate(self, rhs: Vectors, items: Index) -> Vectors:
        solution = np.zeros(rhs.shape)
        where = np.full(len(self.ranks.condition), -1)
        where[items] = np.arange(len(items))
        for members, part in self.groups:
            chosen = np.flatnonzero(where[members] >= 0)
            if len(chosen):
                rows = where[members[chosen]]
                solution[rows] = part.solve(rhs[rows], chosen)
        return solution


def factorise_groups(
    system: System,
    kept: Bool[np.ndarray, "batch _m"],
    make: Callable[[System, Int[np.ndarray, "group kept"]], Part],
    factorise: Factorise,
) -> GroupedFactorisation:
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
    ranks, rest = Rank.regular(condition, system.program.structure.n), np.flatnonzero(~np.isfinite(condition))
    whole = factorise(system.item(rest)) if len(rest) else None
    if whole is not None:
        ranks.replace_items(rest, whole.rank)
    return GroupedFactorisation(system, groups, ranks, rest, whole)

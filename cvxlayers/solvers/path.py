"""What all followers of paths have in common: a batch of points, each of which ends at a step of its own.

Points on a path solve complementarity with a barrier parameter μ, and what is left is the residual of the linear
equations. Each step aims at a smaller μ; it may leave a residual of about μ, but is halved where that is far larger.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from time import monotonic

import numpy as np
from jaxtyping import Bool, Float, Int

from cvxlayers.program import Solution, Status
from cvxlayers.solvers.solver import Options

Index = Int[np.ndarray, " _count"]
Sizes = Float[np.ndarray, " batch"]
Mask = Bool[np.ndarray, " batch"]
Statuses = Int[np.ndarray, " batch"]

# The next barrier parameter is this share of the residual, and a smaller one, down to the third of these part of it,
# where the last step left less than the inverse of the second; it is no less than a multiple of this power of the last.
_SHARE, _GAIN, _LEAST, _POWER = 1e-3, 100.0, 1e-2, 1.8
# What ends early with a residual below this may still be of use.
_ROUGH = 1e-6


class Walk(ABC):
    """The points that the items of a batch have come to."""

    @property
    @abstractmethod
    def merit(self) -> Sizes:
        """The sizes of their residuals."""

    @property
    @abstractmethod
    def status(self) -> Statuses:
        """SOLVED, or why items are given up; −1 where the path goes on."""

    @abstractmethod
    def advance(self, pending: Mask) -> Walk:
        """Takes one step; items that are not pending may end anywhere."""

    @abstractmethod
    def item(self, index: Index) -> Walk:
        """Returns the walk of some items."""

    @abstractmethod
    def write(self, index: Index, solution: Solution, items: Index) -> None:
        """Writes the points of some items to those of a solution."""


def follow(walk: Walk, items: Index, solution: Solution, limit: int, options: Options) -> None:
    """Takes steps until all items have ended, and writes each to its place in a solution when it does.

    Ended items are left out once they are half of all.

    Args:
        walk: where to start.
        items: the places of its items.
        solution: where points, statuses and numbers of steps are written to.
        limit: the largest number of steps, unless the options ask for another.
        options: what is asked for.
    """
    limit = limit if options.max_iters is None else options.max_iters
    deadline = np.inf if options.time_limit is None else monotonic() + options.time_limit
    pending = np.ones(len(items), dtype=bool)
    for iteration in range(1, limit + 1):
        walk = walk.advance(pending)
        status = walk.status
        if iteration == limit or monotonic() > deadline:
            why = Status.ITERATION_LIMIT if iteration == limit else Status.TIME_LIMIT
            status = np.where(status < 0, why, status)
        ended = np.flatnonzero(pending & (status >= 0))
        if not len(ended):
            continue
        rough = (status != Status.SOLVED) & (walk.merit <= _ROUGH)
        solution.status[items[ended]] = np.where(rough, Status.INACCURATE, status)[ended]
        solution.iterations[items[ended]] = iteration
        walk.write(ended, solution, items[ended])
        pending[ended] = False
        left = np.flatnonzero(pending)
        if not len(left):
            return
        if 2 * len(left) <= len(items):
            items, walk, pending = items[left], walk.item(left), pending[left]


def lowered(last: Sizes, merit: Sizes, before: Sizes, steepest: float) -> Sizes:
    """Returns the barrier parameters to aim at next: a step gains about what the one before it did, or more.

    Args:
        last: those aimed at last.
        merit: the residuals that are left.
        before: the residuals before the last step.
        steepest: the multiple of the power of the last that is the least.
    """
    share = _SHARE * np.fmin(np.fmax(_GAIN * merit / before, _LEAST), 1.0)
    return np.maximum(share * merit, steepest * last**_POWER)

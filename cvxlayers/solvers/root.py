"""The root of an increasing function for each item of a batch, without a bracket to start from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

Scalars = Float[np.ndarray, " _items"]
Items = Int[np.ndarray, " _items"]
Function = Callable[[Scalars, Items], tuple[Scalars, Scalars, Scalars]]

_ITERATIONS, _PATIENCE = 200, 12


def find_root(function: Function, start: Scalars, step: Scalars) -> tuple[Scalars, Items]:
    """Returns the roots, and the number of evaluations of each item: Newton's method, safeguarded by a bracket.

    Args:
        function: returns the values at trials for some items, their slopes, and the sizes of their rounding.
        start: first trials.
        step: how far to look where Newton's method cannot say.
    """
    root, step = start.copy(), step.copy()
    low, high = np.full(root.shape, -np.inf), np.full(root.shape, np.inf)
    width, count = high - low, np.zeros(len(root), dtype=np.int64)
    active = np.arange(len(root))
    for iteration in range(_ITERATIONS):
        trial = root[active]
        value, slope, rounding = function(trial, active)
        count[active] += 1
        left = low[active] = np.where(value <= 0, trial, low[active])
        right = high[active] = np.where(value >= 0, trial, high[active])
        with np.errstate(all="ignore"):
            newton = trial - value / slope
            middle = np.where(np.isfinite(left + right), 0.5 * (left + right), trial - np.sign(value) * step[active])
        step[active] *= 2.0
        # Newton may crawl on a curved function, and cycle on a piecewise linear one.
        halved = (right - left <= 0.5 * width[active]) | (iteration < _PATIENCE)
        width[active] = right - left
        usable = (newton > left) & (newton < right) & (halved | (iteration % 2 == 0))
        root[active] = np.where(np.abs(value) <= rounding, trial, np.where(usable, newton, middle))
        active = active[(np.abs(value) > rounding) & (root[active] != trial)]
        if not len(active):
            break
    return root, count

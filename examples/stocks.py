"""Twenty stocks of the S&P 500 from 1990 to 2022, which scikit-folio ships, week by week: what was known, what came."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from jaxtyping import Float

DAYS, WEEKS_A_YEAR = 5, 52
SPANS = (1, 4, 12, 26, 52)  # weeks that past returns are taken over
VOLATILITY = 12  # weeks that the size of recent returns is taken over

Returns = Float[torch.Tensor, "weeks stocks"]


@dataclass(frozen=True)
class Weeks:
    """Features of each stock at the end of a week, standardised over the stocks, and its return in the week after."""

    features: Float[torch.Tensor, "weeks stocks features"]
    returns: Returns

    def __getitem__(self, weeks: slice | torch.Tensor) -> Weeks:
        """Returns some of the weeks."""
        return Weeks(self.features[weeks], self.returns[weeks])

    def __len__(self) -> int:
        return len(self.returns)


@dataclass(frozen=True)
class Fold:
    """Weeks to learn from, the weeks after them to stop by, and those after these to test on."""

    known: Weeks
    held_out: Weeks
    test: Weeks


@cache
def load_weeks() -> Weeks:
    """Returns the 1610 weeks for which a year of past is there."""
    from skfolio.datasets import load_sp500_dataset

    prices = np.log(load_sp500_dataset().to_numpy(dtype=float)[::DAYS])
    weekly = np.diff(prices, axis=0)
    ends = np.arange(max(SPANS), len(prices) - 1)
    past = [prices[ends] - prices[ends - span] for span in SPANS]
    recent = np.stack([weekly[ends - 1 - back] for back in range(VOLATILITY)])
    features = np.stack([*past, np.log(recent.std(axis=0))], axis=-1)
    standard = (features - features.mean(axis=1, keepdims=True)) / features.std(axis=1, keepdims=True)
    return Weeks(torch.as_tensor(standard), torch.as_tensor(np.expm1(weekly[ends])))


def walk_forward(weeks: Weeks, folds: int, known: int, held_out: int) -> Iterator[Fold]:
    """Yields folds whose test weeks follow one another up to the last; each learns from the weeks just before."""
    first = known + held_out
    edges = np.linspace(first, len(weeks), folds + 1).astype(int)
    for start, end in itertools.pairwise(edges):
        middle = start - held_out
        yield Fold(weeks[middle - known : middle], weeks[middle:start], weeks[start:end])


def covariance(returns: Returns) -> np.ndarray:
    """Estimates the covariance of the returns of a week, shrunk after Ledoit and Wolf."""
    from sklearn.covariance import ledoit_wolf

    return ledoit_wolf(returns.numpy())[0]


def sharpe(returns: Float[torch.Tensor, " weeks"]) -> float:
    """Returns the mean over the deviation, for a year."""
    return (returns.mean() / returns.std()).item() * WEEKS_A_YEAR**0.5

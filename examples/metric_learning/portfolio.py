"""Fifty stocks as Shah et al. (2022) have them, with synthetic returns in place of prices that are no longer served.

Published: fifty stocks, risk aversion 0.1, the risk a correlation matrix plus a tenth of the identity, 400 days known,
half of them to stop by, 400 to test on; quality 0 at uniformly random predictions, 1 at the true returns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float

from examples.experiment import Context, Experiment, Outcome
from examples.metric_learning.market import METHODS, Investor, Training, learn_models, squared_error
from examples.metric_learning.plots import draw_gains
from examples.metric_learning.report import summary

FEATURES, AVERSION, RIDGE = 6, 0.1, 0.1
NOISE, SIGNAL = 0.02, 0.004  # a day's returns: what cannot be known, and what can
MARKET_SHARE = 0.3  # of the variance that all stocks have in common


@dataclass(frozen=True)
class Settings:
    """Sizes as published, how many markets, and how the metric is learned."""

    stocks: int = 50
    known: int = 200
    held_out: int = 200
    tests: int = 400
    markets: int = 5
    hidden: int = 50
    steps: int = 60
    batch: int = 50
    lr: float = 0.02


@dataclass(frozen=True)
class Days:
    """Features of each stock on each day, and the returns that followed."""

    features: Float[torch.Tensor, "days stocks features"]
    returns: Float[torch.Tensor, "days stocks"]

    def __getitem__(self, days: slice) -> Days:
        """Returns some of the days."""
        return Days(self.features[days], self.returns[days])


def draw_market(days: int, stocks: int, rng: np.random.Generator) -> Days:
    """Draws a market: known are a line in one direction, and in another a cubic that least squares cannot see."""
    directions = rng.normal(size=(FEATURES, 2))
    directions /= np.linalg.norm(directions, axis=0)
    features = rng.normal(size=(days, stocks, FEATURES))
    main, other = np.moveaxis(features @ directions, -1, 0)
    signal = SIGNAL * (main**3 - 3 * main + other)
    common = np.sqrt(MARKET_SHARE) * rng.normal(size=(days, 1))
    own = np.sqrt(1 - MARKET_SHARE) * rng.normal(size=(days, stocks))
    return Days(torch.as_tensor(features), torch.as_tensor(signal + NOISE * (common + own)))


def quality(investor: Investor, predicted: torch.Tensor, returns: torch.Tensor, random: torch.Tensor) -> float:
    """Returns the worth of the decisions, from 0 at random predictions to 1 at the true returns."""
    with torch.no_grad():
        found, worst, best = (investor.worth(p, returns).mean() for p in (predicted, random, returns))
    return ((found - worst) / (best - worst)).item()


def run(settings: Settings, context: Context) -> Outcome:
    """Compares the three ways to fit a line, on several markets."""
    qualities: dict[str, list[float]] = {name: [] for name in METHODS}
    errors: dict[str, list[float]] = {name: [] for name in METHODS}
    for index in range(settings.markets):
        found = _market(settings, replace(context, seed=context.seed + index))
        for name, (value, error) in found.items():
            qualities[name].append(value)
            errors[name].append(error)
    metrics = summary("decision_quality", qualities, errors)
    note = "squared errors in units of the returns' own variance about each day's mean"
    return Outcome(metrics, [note], lambda figure: draw_gains(figure, qualities, "market", "decision quality"))


def _market(settings: Settings, context: Context) -> Mapping[str, tuple[float, float]]:
    rng, stocks = np.random.default_rng(context.seed), settings.stocks
    edge = settings.known + settings.held_out
    days = draw_market(edge + settings.tests, stocks, rng)
    risk = MARKET_SHARE * np.ones((stocks, stocks)) + (1 - MARKET_SHARE + RIDGE) * np.eye(stocks)
    known, held_out, test = days[: settings.known], days[settings.known : edge], days[edge:]
    investor = Investor(risk, AVERSION)
    training = Training(settings.hidden, settings.steps, settings.batch, settings.lr)
    models, _ = learn_models(known, held_out, investor, training, context)
    random = torch.as_tensor(rng.random(test.returns.shape))
    return {
        name: (quality(investor, test.features @ model, test.returns, random), squared_error(model, test))
        for name, model in models.items()
    }


PORTFOLIO = Experiment(
    "portfolio",
    "Portfolios of fifty stocks by a linear prediction of their returns; synthetic, sizes as published.",
    run,
    {
        "ci": Settings(stocks=20, known=100, held_out=100, tests=200, markets=2, hidden=20, steps=30),
        "full": Settings(),
    },
)

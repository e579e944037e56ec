"""Portfolios of twenty real stocks by predicted returns, walking forward: does a learned metric help out of sample?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from examples.experiment import Context, Experiment, Outcome
from examples.metric_learning.market import METHODS, Investor, Training, learn_models, squared_error
from examples.metric_learning.model import Coefficients
from examples.metric_learning.plots import draw_gains
from examples.metric_learning.report import summary
from examples.stocks import WEEKS_A_YEAR, Fold, covariance, load_weeks, walk_forward

AVERSION = 2.5  # with returns and covariance of a week: half of a risk aversion of five
PER_CENT = 100 * WEEKS_A_YEAR


@dataclass(frozen=True)
class Settings:
    """How many folds, weeks to learn from and to stop by in each, and how the metric is learned."""

    folds: int = 6
    known: int = 312
    held_out: int = 104
    hidden: int = 50
    steps: int = 60
    batch: int = 52
    lr: float = 0.02


def run(settings: Settings, context: Context) -> Outcome:
    """Compares the three ways to fit a line, and equal weights, on weeks that come after those learned from."""
    values: dict[str, list[float]] = {name: [] for name in (*METHODS, "equal_weight")}
    errors: dict[str, list[float]] = {name: [] for name in METHODS}
    folds = walk_forward(load_weeks(), settings.folds, settings.known, settings.held_out)
    for index, fold in enumerate(folds):
        found = _learn(fold, settings, replace(context, seed=context.seed + index))
        for name, coefficients in found[1].items():
            values[name].append(_worth(found[0], fold.test.features @ coefficients, fold))
            errors[name].append(squared_error(coefficients, fold.test))
        equal = fold.test.returns.mean(dim=1).mean() - AVERSION * found[0].risk.mean()
        values["equal_weight"].append(PER_CENT * equal.item())
    metrics = summary("worth", values, errors)
    note = "worth: return less the price of risk, per cent a year, on the test weeks of each fold"
    return Outcome(metrics, [note], lambda figure: draw_gains(figure, values, "fold", "worth, % a year"))


def _learn(fold: Fold, settings: Settings, context: Context) -> tuple[Investor, dict[str, Coefficients]]:
    investor = Investor(covariance(fold.known.returns), AVERSION)
    training = Training(settings.hidden, settings.steps, settings.batch, settings.lr)
    models, _ = learn_models(fold.known, fold.held_out, investor, training, context)
    return investor, dict(models)


def _worth(investor: Investor, predicted: torch.Tensor, fold: Fold) -> float:
    with torch.no_grad():
        return PER_CENT * investor.worth(predicted, fold.test.returns).mean().item()


SMALL: dict[str, Any] = {"folds": 2, "hidden": 20, "steps": 20}
RETURNS = Experiment(
    "returns",
    "Portfolios of twenty real stocks by a linear prediction of their returns, walking forward.",
    run,
    {"ci": Settings(**SMALL), "full": Settings()},
)

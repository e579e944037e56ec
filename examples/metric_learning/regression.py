"""A regression in which only the choice matters: the most economical cars, or the most ill patients, of twenty.

The metric weighs samples, by a network of their features, and features, by a price on each squared coefficient.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int

from cvxlayers.torch import CvxpyLayer
from examples.experiment import Context, Experiment, Outcome
from examples.metric_learning.learn import Plan, train
from examples.metric_learning.market import METHODS
from examples.metric_learning.model import Coefficients, Metric, Weights, choice_layer, fit, fit_layer
from examples.metric_learning.plots import COLOURS, draw_bars, draw_weights
from examples.metric_learning.report import summary
from examples.metric_learning.tables import TABLES, TableOfData

OFFERED, CHOSEN = 20, 3
PRICE = 0.02  # of each squared coefficient, at first
SPEED = 5.0  # of the logarithms of the prices, beside the weights of the network
FOLDS, HELD_OUT = 5, 0.25
TEST_OFFERS = 2000

Offers = Int[torch.Tensor, "offers items"]


@dataclass(frozen=True)
class Settings:
    """How often the five folds are drawn anew, and how the metric is learned."""

    repeats: int = 1
    hidden: int = 50
    steps: int = 60
    batch: int = 64
    lr: float = 0.01
    smoothing: float = 0.3


class TwoMetrics(torch.nn.Module):
    """Weights of samples, and prices of features: what the fit is measured by."""

    def __init__(self, features: int, hidden: int, seed: int) -> None:
        super().__init__()
        self.samples = Metric(features, hidden, seed)
        self.slow_logs = torch.nn.Parameter(torch.zeros(features, dtype=torch.float64))

    def fit(self, layer: CvxpyLayer, table: TableOfData) -> Coefficients:
        """Returns the coefficients under both, the last of them the constant, which has no price."""
        prices = torch.cat([PRICE * self.prices(), self.slow_logs.new_zeros(1)])
        return fit(layer, _with_one(table.x), table.y, self.weights(table), prices)

    def prices(self) -> Coefficients:
        """Returns the prices of the features, one at first."""
        return (SPEED * self.slow_logs).exp()

    def weights(self, table: TableOfData) -> Weights:
        """Returns the weights of the samples."""
        return self.samples(table.x)


@dataclass(frozen=True)
class Found:
    """What a fold found: the models by their names, the metrics, and the part of the table that they were fitted to."""

    models: dict[str, Coefficients]
    metrics: TwoMetrics
    known: TableOfData


def draw_offers(table: TableOfData, count: int, generator: torch.Generator) -> Offers:
    """Returns offers, each of twenty items of a table."""
    return torch.rand(count, len(table.y), generator=generator).topk(OFFERED, dim=1).indices


def quality(coefficients: Coefficients, table: TableOfData, offers: Offers) -> float:
    """Returns the mean value of the three chosen of each offer, from 0 for any three to 1 for the best."""
    values, predicted = table.y[offers], (_with_one(table.x) @ coefficients)[offers]
    chosen = values.gather(1, predicted.topk(CHOSEN, dim=1).indices).mean()
    best = values.topk(CHOSEN, dim=1).values.mean()
    return ((chosen - values.mean()) / (best - values.mean())).item()


def run(settings: Settings, context: Context) -> Outcome:
    """Compares the three ways to fit a line on two tables, over folds."""
    metrics: dict[str, Any] = {}
    shown: list[tuple[str, Found]] = []
    for name, load in TABLES.items():
        table = load()
        values: dict[str, list[float]] = {method: [] for method in METHODS}
        errors: dict[str, list[float]] = {method: [] for method in METHODS}
        last: list[Found] = []
        for repeat in range(settings.repeats):
            for fold in range(FOLDS):
                seed = FOLDS * (context.seed + repeat) + fold
                found, test = _fold(table, settings, replace(context, seed=seed), fold)
                last = [found]
                offers = draw_offers(test, TEST_OFFERS, torch.Generator().manual_seed(seed))
                for method, coefficients in found.models.items():
                    values[method].append(quality(coefficients, test, offers))
                    errors[method].append((_with_one(test.x) @ coefficients - test.y).square().mean().item())
        shown += [(name, found) for found in last]
        metrics |= {f"{name}_{key}": value for key, value in summary("decision_quality", values, errors).items()}
    note = "folds of one repetition share no test sample, but share what is learned from: standard errors are rough"
    return Outcome(metrics, [note], lambda figure: _draw(figure, shown, metrics))


def _fold(table: TableOfData, settings: Settings, context: Context, fold: int) -> tuple[Found, TableOfData]:
    """Returns what is learned from four fifths, and the last fifth, in units of the first."""
    order = torch.randperm(len(table.y), generator=torch.Generator().manual_seed(context.seed // FOLDS))
    in_test = torch.zeros(len(order), dtype=torch.bool)
    in_test[order[fold::FOLDS]] = True
    known, test = table[~in_test], table[in_test]
    units = known.units()
    known, test = known.standardised(units), test.standardised(units)
    return _learn(known, settings, context), test


def _learn(known: TableOfData, settings: Settings, context: Context) -> Found:
    """Fits by each method. Once the metric is learned, it is a metric for all samples, those held out too."""
    generator = torch.Generator().manual_seed(context.seed)
    edge = int(HELD_OUT * len(known.y))
    order = torch.randperm(len(known.y), generator=generator)
    held_out, learned = known[order[:edge]], known[order[edge:]]
    layer, choose = fit_layer(known.x.shape[1] + 1), choice_layer(OFFERED, settings.smoothing, CHOSEN)
    metrics = TwoMetrics(known.x.shape[1], settings.hidden, context.seed)
    offers = draw_offers(held_out, TEST_OFFERS, generator)
    with torch.no_grad():
        least_squares, direct = metrics.fit(layer, known), metrics.fit(layer, learned)

    def loss(coefficients: Coefficients) -> torch.Tensor:
        batch = draw_offers(learned, settings.batch, generator)
        (choice,) = choose((_with_one(learned.x) @ coefficients)[batch])
        return -(choice * learned.y[batch]).sum(dim=1).mean()

    plan, direct = Plan(settings.steps, settings.lr, check=5), direct.requires_grad_()
    train([direct], lambda: loss(direct), lambda: -quality(direct, held_out, offers), plan, context, "direct")

    def held_out_loss() -> float:
        return -quality(metrics.fit(layer, learned), held_out, offers)

    parameters = list(metrics.parameters())
    train(parameters, lambda: loss(metrics.fit(layer, learned)), held_out_loss, plan, context, "metric")
    with torch.no_grad():
        fitted = (least_squares, metrics.fit(layer, known), direct.detach())
    return Found(dict(zip(METHODS, fitted, strict=True)), metrics, known)


def _with_one(x: Float[torch.Tensor, "samples features"]) -> Float[torch.Tensor, "samples more"]:
    return torch.cat([x, x.new_ones(len(x), 1)], dim=1)


def _draw(figure: Any, shown: list[tuple[str, Found]], metrics: dict[str, Any]) -> None:
    """Draws a row a table: weights of samples, prices of features, and the quality of each fold."""
    rows = figure.subplots(len(shown), 3)
    for axes, (name, found) in zip(rows, shown, strict=True):
        with torch.no_grad():
            draw_weights(axes[0], found.known, found.metrics.weights(found.known))
            draw_bars(axes[1], found.known.names, found.metrics.prices())
        each = [metrics[f"{name}_decision_quality_{method}_each"] for method in METHODS]
        for values in zip(*each, strict=True):
            axes[2].plot(range(len(METHODS)), values, "o-", color="0.8", markerfacecolor=COLOURS[0], markersize=4)
        axes[2].plot(range(len(METHODS)), [sum(value) / len(value) for value in each], "k_", markersize=24)
        axes[2].set_xticks(range(len(METHODS)), ["least\nsquares", "metric", "direct"])
        axes[2].set(title=f"{name}: quality, a line a fold")


REGRESSION = Experiment(
    "regression",
    "The best three of twenty cars, or patients, by a line whose metric weighs samples and features.",
    run,
    {"ci": Settings(1, 20, 20, 32), "full": Settings()},
)

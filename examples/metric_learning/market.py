"""Portfolios by predicted returns: a linear prediction, by least squares, by a learned metric, or by its decisions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import cvxpy as cp
import numpy as np
import torch
from jaxtyping import Float

from cvxlayers.torch import CvxpyLayer
from examples.experiment import Context
from examples.metric_learning.learn import Plan, draw_batch, train
from examples.metric_learning.model import Coefficients, Metric, fit, fit_layer

Table = Float[torch.Tensor, "days stocks"]
METHODS = ("least_squares", "metric", "direct")


class Days(Protocol):
    """Features of each stock on each day, and the returns that followed."""

    @property
    def features(self) -> Float[torch.Tensor, "days stocks features"]:
        """What is known."""
        ...

    @property
    def returns(self) -> Table:
        """What comes."""
        ...


@dataclass(frozen=True)
class Training:
    """How the metric and the direct model are learned."""

    hidden: int
    steps: int
    batch: int
    lr: float


class Investor:
    """Maximises predictedᵀp − aversion pᵀCp over portfolios p ≥ 0, Σp = 1; C and the aversion are constants.

    Args:
        risk: C, positive definite.
        aversion: its price.
    """

    def __init__(self, risk: np.ndarray, aversion: float) -> None:
        predicted, p = cp.Parameter(len(risk)), cp.Variable(len(risk))
        worth = predicted @ p - aversion * cp.quad_form(p, cp.psd_wrap(risk))
        problem = cp.Problem(cp.Maximize(worth), [cp.Zero(cp.sum(p) - 1), p >= 0])
        self.layer = CvxpyLayer(problem, [predicted], [p])
        self.risk, self.aversion = torch.as_tensor(risk), aversion

    def worth(self, predicted: Table, returns: Table) -> Float[torch.Tensor, " days"]:
        """Returns what the portfolios by predicted returns are worth at the returns that came."""
        p = self.portfolio(predicted)
        return (returns * p).sum(dim=1) - self.aversion * ((p @ self.risk) * p).sum(dim=1)

    def portfolio(self, predicted: Table) -> Table:
        """Returns the portfolios."""
        return self.layer(predicted)[0]


def learn_models(
    known: Days, held_out: Days, investor: Investor, training: Training, context: Context
) -> tuple[Mapping[str, Coefficients], Metric]:
    """Returns the coefficients by each method, and the metric; metric and direct model start as least squares."""
    samples = known.features.reshape(-1, known.features.shape[-1])
    excess = (known.returns - known.returns.mean(dim=1, keepdim=True)).reshape(-1)  # a common part moves no portfolio
    layer, metric = fit_layer(samples.shape[1]), Metric(samples.shape[1], training.hidden, context.seed)

    def under_metric() -> Coefficients:
        return fit(layer, samples, excess, metric(samples))

    with torch.no_grad():
        least_squares = under_metric()
    direct = least_squares.clone().requires_grad_()
    step = training.lr * least_squares.abs().mean().item()  # the coefficients' own unit
    _train([direct], lambda: direct, step, known, held_out, investor, training, context, "direct")
    parameters = list(metric.parameters())
    _train(parameters, under_metric, training.lr, known, held_out, investor, training, context, "metric")
    with torch.no_grad():
        found = (least_squares, under_metric(), direct.detach())
    return dict(zip(METHODS, found, strict=True)), metric


def squared_error(coefficients: Coefficients, days: Days) -> float:
    """Returns the mean squared error, in the unit of the returns' own variance about each day's mean."""
    excess = days.returns - days.returns.mean(dim=1, keepdim=True)
    return ((days.features @ coefficients - excess).square().mean() / excess.square().mean()).item()


def _train(
    parameters: Sequence[torch.Tensor],
    coefficients: Callable[[], Coefficients],
    lr: float,
    known: Days,
    held_out: Days,
    investor: Investor,
    training: Training,
    context: Context,
    label: str,
) -> None:
    """Raises what the portfolios are worth, in per cent."""
    generator = torch.Generator().manual_seed(context.seed)

    def loss(features: torch.Tensor, returns: Table) -> torch.Tensor:
        return -100 * investor.worth(features @ coefficients(), returns).mean()

    def batch_loss() -> torch.Tensor:
        batch = draw_batch(len(known.returns), training.batch, generator)
        return loss(known.features[batch], known.returns[batch])

    def held_out_loss() -> float:
        return loss(held_out.features, held_out.returns).item()

    train(parameters, batch_loss, held_out_loss, Plan(training.steps, lr, check=5), context, label)

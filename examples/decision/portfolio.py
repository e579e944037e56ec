"""A portfolio trained on what it earns: growth net of the cost of trading, on real returns, walking forward.

References: Bengio (1997), Using a financial training criterion rather than a prediction criterion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cvxpy as cp
import numpy as np
import torch
from jaxtyping import Float

from cvxlayers.torch import CvxpyLayer
from examples.experiment import Context, Experiment, Outcome
from examples.stocks import WEEKS_A_YEAR, Fold, Weeks, covariance, load_weeks, sharpe, walk_forward

COST = 0.001  # of what is traded
AVERSION = 2.5  # with returns and covariance of a week: half of a risk aversion of five
PER_CENT = 100 * WEEKS_A_YEAR
UNIT = 1000  # the layer's objective is in per mille: solvers want numbers that are not far from one
POLICIES = ("trained", "two_step", "mean_variance", "equal_weight")

Portfolio = Float[torch.Tensor, "batch stocks"]
Paths = Float[torch.Tensor, "batch weeks stocks"]
Net = Float[torch.Tensor, "batch weeks"]


@dataclass(frozen=True)
class Settings:
    """Folds, weeks to learn from and to stop by in each, and how the policy is trained on stretches of them."""

    folds: int = 6
    known: int = 416
    held_out: int = 104
    stretch: int = 8
    batch: int = 8
    steps: int = 10
    lr: float = 0.1


@dataclass(frozen=True)
class Policy:
    """A prediction that is linear in the features, and the price at which the policy trades."""

    coefficients: Float[torch.Tensor, " features"]
    log_price: Float[torch.Tensor, ""]

    def net(self, layer: CvxpyLayer, weeks: Weeks, starts: torch.Tensor, length: int) -> Net:
        """Returns the returns, net of costs, of stretches of weeks, each begun with equal weights."""
        index = starts[:, None] + torch.arange(length)
        predicted = weeks.features[index] @ self.coefficients
        return simulate(layer, predicted, weeks.returns[index], self.log_price.exp().expand(len(starts)))


def trading_layer(risk: np.ndarray) -> CvxpyLayer:
    """Returns the layer (μ, h, κ) ↦ argmax μᵀp − aversion pᵀCp − κ‖p − h‖₁ over p ≥ 0, Σp = 1; μ, κ in per mille."""
    stocks = len(risk)
    mu, before, price = cp.Parameter(stocks), cp.Parameter(stocks), cp.Parameter(nonneg=True)
    p, trades = cp.Variable(stocks), cp.Variable(stocks)
    worth = mu @ p - AVERSION * cp.quad_form(p, cp.psd_wrap(UNIT * risk)) - price * cp.norm1(trades)
    constraints = [cp.Zero(cp.sum(p) - 1), p >= 0, cp.Zero(p - before - trades)]
    return CvxpyLayer(cp.Problem(cp.Maximize(worth), constraints), [mu, before, price], [p])


def simulate(layer: CvxpyLayer, predicted: Paths, returns: Paths, price: Float[torch.Tensor, " batch"]) -> Net:
    """Trades week by week: the portfolio of a week drifts with its returns, and is what the next trades begin from."""
    before, net = torch.full_like(returns[:, 0], 1 / returns.shape[2]), []
    for mu, came in zip(predicted.unbind(dim=1), returns.unbind(dim=1), strict=True):
        (after,) = layer(UNIT * mu, before, UNIT * price)
        net.append(_net(before, after, came))
        grown = after * (1 + came)
        before = grown / grown.sum(dim=1, keepdim=True)
    return torch.stack(net, dim=1)


def run(settings: Settings, context: Context) -> Outcome:
    """Compares four policies on weeks that come after those learned from."""
    growth: dict[str, list[float]] = {name: [] for name in POLICIES}
    sharpes: dict[str, list[float]] = {name: [] for name in POLICIES}
    folds = walk_forward(load_weeks(), settings.folds, settings.known, settings.held_out)
    for index, fold in enumerate(folds):
        for name, net in _test(fold, settings, replace(context, seed=context.seed + index)).items():
            growth[name].append(PER_CENT * net.log1p().mean().item())
            sharpes[name].append(sharpe(net))
    metrics: dict[str, Any] = {f"growth_{name}": float(np.mean(found)) for name, found in growth.items()}
    metrics |= {f"sharpe_{name}": float(np.mean(found)) for name, found in sharpes.items()}
    for name in POLICIES[1:]:
        gains = np.subtract(growth["trained"], growth[name])
        metrics[f"gain_over_{name}"] = float(gains.mean())
        metrics[f"gain_over_{name}_standard_error"] = float(gains.std(ddof=1) / np.sqrt(len(gains)))
    metrics |= {f"growth_{name}_each": found for name, found in growth.items()}
    note = "growth: of the logarithm of wealth, net of costs, per cent a year, on the test weeks of each fold"
    return Outcome(metrics, [note], lambda figure: _draw(figure, growth, sharpes))


def two_step(fold: Fold) -> Policy:
    """Returns the policy that predicts by least squares, and trades at the true price."""
    known = fold.known
    excess = (known.returns - known.returns.mean(dim=1, keepdim=True)).reshape(-1)
    coefficients = torch.linalg.lstsq(known.features.reshape(len(excess), -1), excess[:, None]).solution[:, 0]
    return Policy(coefficients, torch.tensor(COST, dtype=torch.float64).log())


def train_policy(layer: CvxpyLayer, start: Policy, fold: Fold, settings: Settings, context: Context) -> Policy:
    """Raises the growth of stretches of the known weeks; what is best on the held-out ones stays."""
    generator, size = torch.Generator().manual_seed(context.seed), start.coefficients.abs().mean()
    units = torch.zeros_like(start.coefficients).requires_grad_()
    log_price = start.log_price.clone().requires_grad_()
    optimizer, length = torch.optim.Adam([units, log_price], settings.lr), settings.stretch
    kept_starts = torch.arange(0, len(fold.held_out) - length + 1, length)

    def policy() -> Policy:
        return Policy(start.coefficients + size * units, log_price)

    best, most = start, _growth(start.net(layer, fold.held_out, kept_starts, length))
    for step in context.track(range(1, settings.steps + 1), "policy"):
        starts = torch.randint(len(fold.known) - length + 1, (settings.batch,), generator=generator)
        optimizer.zero_grad()
        (-PER_CENT * policy().net(layer, fold.known, starts, length).log1p().mean()).backward()
        optimizer.step()
        if step % 5 == 0:
            with torch.no_grad():
                now = policy()
                value = _growth(now.net(layer, fold.held_out, kept_starts, length))
            if value > most:
                best, most = Policy(now.coefficients.clone(), now.log_price.detach().clone()), value
    return best


def _test(fold: Fold, settings: Settings, context: Context) -> Mapping[str, Float[torch.Tensor, " weeks"]]:
    """Returns the weekly returns, net of costs, of each policy."""
    layer = trading_layer(covariance(fold.known.returns))
    start = two_step(fold)
    trained = train_policy(layer, start, fold, settings, context)
    mean = fold.known.returns.mean(dim=0).expand_as(fold.test.returns)
    predicted = torch.stack([*(fold.test.features @ each.coefficients for each in (trained, start)), mean])
    prices = torch.stack([trained.log_price, start.log_price, start.log_price]).exp()
    with torch.no_grad():
        found = simulate(layer, predicted, fold.test.returns.expand_as(predicted), prices)
    return dict(zip(POLICIES, [*found, _equal_weight(fold.test.returns)], strict=True))


def _equal_weight(returns: Float[torch.Tensor, "weeks stocks"]) -> Float[torch.Tensor, " weeks"]:
    """Returns the returns of equal weights, net of what it costs to return to them every week."""
    equal = torch.full_like(returns, 1 / returns.shape[1])
    drifted = equal[1:] * (1 + returns[:-1])
    before = torch.cat([equal[:1], drifted / drifted.sum(dim=1, keepdim=True)])
    return _net(before, equal, returns)


def _net(before: Portfolio, after: Portfolio, returns: Portfolio) -> Float[torch.Tensor, " batch"]:
    return (1 + (after * returns).sum(dim=1)) * (1 - COST * (after - before).abs().sum(dim=1)) - 1


def _growth(net: Net) -> float:
    return net.detach().log1p().mean().item()


def _draw(figure: Any, growth: Mapping[str, Sequence[float]], sharpes: Mapping[str, Sequence[float]]) -> None:
    names = [name.replace("_", "\n") for name in POLICIES]
    for axes, (label, values) in zip(
        figure.subplots(1, 2), (("growth net of costs, % a year", growth), ("Sharpe ratio", sharpes)), strict=True
    ):
        for found in zip(*values.values(), strict=True):
            axes.plot(range(len(names)), found, "o-", color="0.8", markerfacecolor="tab:blue")
        axes.plot(range(len(names)), [np.mean(found) for found in values.values()], "k_", markersize=30, label="mean")
        axes.axhline(0.0, color="0.6", linewidth=1)
        axes.set_xticks(range(len(names)), names)
        axes.set(ylabel=label, title="Out of sample: a line a fold")
        axes.legend()


PORTFOLIO = Experiment(
    "portfolio",
    "A portfolio of twenty real stocks trained on growth net of costs, walking forward.",
    run,
    {"ci": Settings(folds=2, stretch=4, steps=5), "full": Settings()},
)

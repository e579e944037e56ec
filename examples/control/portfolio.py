"""Markowitz tuning: the forecasts of a trading policy are tuned for a utility (Agrawal et al., 2020, section 5.3).

The policy, its constants and the learning rate are those of the publication; the prices are of twelve stocks of the
S&P 500, which scikit-folio ships, in place of its twelve funds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.linalg
import torch
from torch.optim.lr_scheduler import MultiStepLR

from cvxlayers.torch import CvxpyLayer
from examples.control.plots import COLOURS, draw_curve
from examples.control.simulator import Rollout, Simulator, draw, rollout
from examples.control.tune import Plan, Tuned, tune
from examples.experiment import Context, Experiment, Outcome

Tensor = torch.Tensor

STOCKS = ("BAC", "CVX", "GE", "HD", "JNJ", "KO", "LLY", "MSFT", "PFE", "PG", "WMT", "XOM")
MONTHS = 144
TRADING = SHORTING = 0.001
AVERSION = 15.0
STYLES = ("-", "--", ":")
LOSS_SLOPE = 2.0  # a loss counts twice a gain
TEST_SEED = 7329


@dataclass(frozen=True)
class Settings:
    """How long and how fast to tune; the step size is halved every hundred epochs."""

    epochs: int = 400
    horizon: int = 24
    batch: int = 10
    test_batch: int = 10
    lr: float = 1e-3
    fresh: int = 100


@dataclass(frozen=True)
class Market:
    """Monthly returns, log-normal: mean and covariance of their logarithms and, from these, of the returns."""

    log_mean: np.ndarray
    log_covariance: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """E r, about 1."""
        return np.exp(self.log_mean + np.diag(self.log_covariance) / 2)

    @property
    def covariance(self) -> np.ndarray:
        """Cov r."""
        return np.outer(self.mean, self.mean) * np.expm1(self.log_covariance)


def load_market() -> Market:
    """Estimates the market from the last twelve years of prices."""
    from skfolio.datasets import load_sp500_dataset

    prices = load_sp500_dataset()[list(STOCKS)].resample("ME").last().to_numpy()
    logs = np.diff(np.log(prices), axis=0)[-MONTHS:]
    return Market(logs.mean(axis=0), np.cov(logs.T))


class TradingPolicy(torch.nn.Module):
    """Maximises μ'h⁺ − |√γ S h⁺|² over trades u, h⁺ = h + u, that pay for themselves; μ, S, γ are tuned."""

    def __init__(self, market: Market) -> None:
        super().__init__()
        n = len(market.mean)
        h, S, mu = cp.Parameter(n, name="h"), cp.Parameter((n, n), name="S"), cp.Parameter(n, name="mu")
        u, after = cp.Variable(n, name="u"), cp.Variable(n, name="after")
        shorting = SHORTING * cp.sum(cp.neg(after))
        worth = mu @ after - cp.sum_squares(S @ after)
        constraints: list[Any] = [cp.sum(u) + TRADING * cp.norm1(u) + shorting <= 0, after == h + u]
        self.trades = CvxpyLayer(cp.Problem(cp.Maximize(worth), constraints), [h, S, mu], [u])
        whole: list[Any] = [cp.sum(after) == 1]
        first = cp.Problem(cp.Maximize(worth - shorting), whole)
        self.first = CvxpyLayer(first, [S, mu], [after])
        self.mu = torch.nn.Parameter(torch.as_tensor(market.mean))
        self.S = torch.nn.Parameter(torch.as_tensor(scipy.linalg.sqrtm(market.covariance).real.copy()))
        self.root = torch.nn.Parameter(torch.tensor(AVERSION, dtype=torch.float64).sqrt())

    def forward(self, h: Tensor) -> Tensor:
        """Decides for a batch of holdings; only their shares matter."""
        wealth = h.sum(dim=-1, keepdim=True)
        return wealth * self.trades(h / wealth, self.root * self.S, self.mu)[0]

    def holdings(self) -> Tensor:
        """Returns the portfolio that the policy would begin with, of worth 1."""
        with torch.no_grad():
            return self.first(self.root * self.S, self.mu)[0]

    def project(self) -> None:
        """Keeps the root of the risk aversion from becoming negative."""
        with torch.no_grad():
            self.root.clamp_(min=0.0)


def simulator(market: Market, policy: TradingPolicy) -> Simulator:
    """Returns the world: holdings, traded, grow by the month's returns. It starts where the policy would."""
    mean, root = torch.as_tensor(market.log_mean), torch.as_tensor(np.linalg.cholesky(market.log_covariance))

    def returns(generator: torch.Generator, batch: int) -> Tensor:
        normal = torch.randn(batch, len(mean), generator=generator, dtype=torch.float64)
        return (mean + normal @ root.mT).exp()

    return Simulator(lambda _, batch: policy.holdings().repeat(batch, 1), returns, lambda h, u, r: r * (h + u))


def cost(h: Tensor, u: Tensor, after: Tensor) -> Tensor:
    """Returns minus the utility of the month's return on wealth."""
    del u
    growth = after.sum(dim=-1) / h.sum(dim=-1) - 1
    return -torch.minimum(LOSS_SLOPE * growth, growth)


def run(settings: Settings, context: Context) -> Outcome:
    """Tunes from the market's own mean and covariance."""
    market = load_market()
    policy = TradingPolicy(market)
    world, optimiser = simulator(market, policy), torch.optim.SGD(policy.parameters(), lr=settings.lr)
    tuned = tune(
        policy,
        world,
        cost,
        optimiser,
        Plan(
            settings.epochs,
            settings.horizon,
            settings.batch,
            test_batch=settings.test_batch,
            test_seed=TEST_SEED,
            fresh=settings.fresh,
        ),
        schedule=MultiStepLR(optimiser, [99, 199, 299], gamma=0.5),
        fixed={"equal shares": lambda h: h.sum(dim=-1, keepdim=True) / h.shape[-1] - h},
        project=policy.project,
        context=context,
    )
    with torch.no_grad():
        shown = rollout(policy, world, cost, draw(world, TEST_SEED, 1, settings.horizon))
    utilities = [-value for value in tuned.curve]
    saved, error = tuned.saving("start")
    metrics = {
        "utility_before": utilities[0],
        "utility_after": utilities[-1],
        "rise": utilities[-1] / utilities[0] - 1,
        "rise_at_30": utilities[min(30, len(utilities) - 1)] / utilities[0] - 1,
        "gain_fresh_rollouts": tuned.gain(),
        "gain_error": error * tuned.gain() / saved,
        "curve": utilities,
    }
    return Outcome(metrics, tuned.comparison(), lambda figure: _draw(figure, tuned, utilities, shown))


def _draw(figure: Any, tuned: Tuned, utilities: list[float], shown: Rollout) -> None:
    left, middle, right = figure.subplots(1, 3, width_ratios=[1.2, 1, 1])
    draw_curve(left, utilities, {"start": utilities[0]}, "mean monthly utility on the test rollouts")
    change = tuned.parameters["mu"] - tuned.start["mu"]
    middle.barh(STOCKS, 100 * change, color=COLOURS[0])
    middle.set_xlabel("change of the forecast, % a month")
    shares = shown.states[:, 0] / shown.states[:, 0].sum(dim=-1, keepdim=True)
    for index, (stock, share) in enumerate(zip(STOCKS, shares.T, strict=True)):
        right.plot(share, linewidth=1.2, color=COLOURS[index % len(COLOURS)], linestyle=STYLES[index // len(COLOURS)])
        right.annotate(stock, (len(share) - 0.5, float(share[-1])), fontsize=6, va="center")
    right.set_xlabel("month")
    right.set_ylabel("share of wealth, tuned policy")


PORTFOLIO = Experiment(
    "cocp-portfolio",
    "A trading policy tunes its forecasts for a utility that fears losses, by gradients through two years of trading.",
    run,
    {"ci": Settings(epochs=4, test_batch=10, fresh=10), "full": Settings()},
    {"utility_before": 0.004205, "utility_after": 0.005339, "rise": 0.27},
)

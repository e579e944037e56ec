"""A supply chain that buys, ships and sells under random prices and demands (Agrawal et al., 2020, section 5.5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
import torch

from cvxlayers.torch import CvxpyLayer
from examples.control.plots import COLOURS, draw_curve
from examples.control.simulator import Rollout, Simulator, draw, rollout
from examples.control.tune import Plan, Tuned, tune
from examples.experiment import Context, Experiment, Outcome

Tensor = torch.Tensor

# Columns are links: two from suppliers, four between the four nodes, two to customers.
INTO = np.array(
    [
        [1, 0, 0, 0, 0, 0, 0, 0],
        [0, 1, 0, 0, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 1, 0, 0],
        [0, 0, 0, 1, 1, 0, 0, 0],
    ]
)
OUT_OF = np.array(
    [
        [0, 0, 1, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 1, 0, 1],
    ]
)
NODES, LINKS = INTO.shape
H_MAX, U_MAX = 3.0, 2.0  # capacities of nodes and links
SHIPPING, RETAIL = 0.05, 1.3
STORAGE = 0.01  # storing h costs STORAGE (h + h²)
LOG_MEAN, LOG_DEVIATION = torch.tensor([0.0, 0.1, 0.0, 0.4], dtype=torch.float64), 0.2  # two prices, two demands


@dataclass(frozen=True)
class Settings:
    """How long and how fast to tune."""

    epochs: int = 200
    horizon: int = 20
    batch: int = 5
    lr: float = 0.05
    fresh: int = 50


class SupplyChainPolicy(torch.nn.Module):
    """Ships u to minimise the cost of today plus |S h⁺|² + q'h⁺, the value of what is left; S and q are learnt."""

    def __init__(self) -> None:
        super().__init__()
        S, q, h = cp.Parameter((NODES, NODES), name="S"), cp.Parameter(NODES, name="q"), cp.Parameter(NODES, name="h")
        price, demand = cp.Parameter(2, name="price"), cp.Parameter(2, name="demand")
        u, after = cp.Variable(LINKS, name="u"), cp.Variable(NODES, name="after")
        today = price @ u[:2] + SHIPPING * cp.sum(u[2:6]) - RETAIL * cp.sum(u[6:])
        constraints = [
            after == h + (INTO - OUT_OF) @ u,
            after <= H_MAX,
            u >= 0,
            u <= U_MAX,
            OUT_OF @ u <= h,
            u[6:] <= demand,
        ]
        problem = cp.Problem(cp.Minimize(today + cp.sum_squares(S @ after) + q @ after), constraints)
        self.layer = CvxpyLayer(problem, [h, price, demand, S, q], [u])
        self.S = torch.nn.Parameter(torch.eye(NODES, dtype=torch.float64))
        self.q = torch.nn.Parameter(torch.full((NODES,), -3.0, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """Decides for a batch of states: stores, prices and demands."""
        return self.layer(*x.split([NODES, 2, 2], dim=-1), self.S, self.q)[0]


def simulator() -> Simulator:
    """Returns the world: prices and demands are log-normal, drawn anew at each step."""

    def market(generator: torch.Generator, batch: int) -> Tensor:
        normal = torch.randn(batch, 4, generator=generator, dtype=torch.float64)
        return (LOG_MEAN + LOG_DEVIATION * normal).exp()

    def start(generator: torch.Generator, batch: int) -> Tensor:
        stores = H_MAX * torch.rand(batch, NODES, generator=generator).double()
        return torch.cat([stores, market(generator, batch)], dim=-1)

    return Simulator(start, market, step)


def step(x: Tensor, u: Tensor, w: Tensor) -> Tensor:
    """Moves goods; rounding may not empty a store below zero, where no shipment would be feasible."""
    stores = x[..., :NODES] + u @ torch.as_tensor((INTO - OUT_OF).T, dtype=u.dtype)
    return torch.cat([stores.clamp(0.0, H_MAX), w], dim=-1)


def cost(x: Tensor, u: Tensor, after: Tensor) -> Tensor:
    """Returns the cost of trade and storage, at the prices after the step as the published experiment has it."""
    del x
    stores, price = after[..., :NODES], after[..., NODES : NODES + 2]
    trade = (price * u[..., :2]).sum(-1) + SHIPPING * u[..., 2:6].sum(-1) - RETAIL * u[..., 6:].sum(-1)
    return trade + STORAGE * (stores + stores.square()).sum(-1)


def run(settings: Settings, context: Context) -> Outcome:
    """Tunes the value of stored goods, from P = I and q = −3."""
    policy, world = SupplyChainPolicy(), simulator()
    tuned = tune(
        policy,
        world,
        cost,
        torch.optim.SGD(policy.parameters(), lr=settings.lr),
        Plan(settings.epochs, settings.horizon, settings.batch, test_batch=1, fresh=settings.fresh),
        context=context,
    )
    with torch.no_grad():
        shown = rollout(policy, world, cost, draw(world, 1, 1, 3 * settings.horizon))
    metrics = {
        "cost_before": tuned.before,
        "cost_after": tuned.after,
        "gain_fresh_rollouts": tuned.gain(),
        "gain_error": tuned.saving("start")[1] / abs(float(tuned.fresh["start"].mean())),
        "curve": tuned.curve,
    }
    return Outcome(metrics, tuned.comparison(), lambda figure: _draw(figure, tuned, shown))


def _draw(figure: Any, tuned: Tuned, shown: Rollout) -> None:
    left, right = figure.subplots(1, 2)
    draw_curve(left, tuned.curve, {"start": tuned.before}, "average cost on the test rollout")
    for node, colour in zip(range(NODES), COLOURS, strict=False):
        right.plot(shown.states[:, 0, node], color=colour, label=f"store {node + 1}")
    right.set_xlabel("step")
    right.set_ylabel("goods stored, tuned policy")
    right.legend(frameon=False)


SUPPLY_CHAIN = Experiment(
    "cocp-supply-chain",
    "A supply chain learns the value of stored goods by gradients through its own operation.",
    run,
    {"ci": Settings(epochs=10, fresh=10), "full": Settings()},
    {"cost_before": -0.2786, "cost_after": -0.3409, "gain_fresh_rollouts": 0.216},
)

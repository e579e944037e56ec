"""Approximate dynamic programming: a quadratic control-Lyapunov policy within the unit ball (Agrawal et al., 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.linalg
import torch

from cvxlayers.torch import CvxpyLayer
from examples.control.linear import LinearSystem, linear_simulator, quadratic_cost
from examples.control.plots import draw_curve, draw_fresh
from examples.control.simulator import Policy
from examples.control.tune import Plan, Tuned, tune
from examples.experiment import Context, Experiment, Outcome

Tensor = torch.Tensor


@dataclass(frozen=True)
class Settings:
    """How long and how fast to tune."""

    epochs: int = 100
    horizon: int = 25
    batch: int = 8
    lr: float = 0.02
    momentum: float = 0.9
    fresh: int = 100


def adp_system() -> LinearSystem:
    """Returns the published system: two states that nearly stand still, three weak controls."""
    random = np.random.RandomState(1)
    A = np.eye(2) + 1e-2 * random.randn(2, 2)
    return LinearSystem(A, 1e-2 / 3 * random.randn(2, 3), noise=0.2)


class BallPolicy(torch.nn.Module):
    """u = argmin ½|S u|² + x'E u + q'u over |u| ≤ 1; S, E and q are tuned, from the LQR that knows no ball."""

    def __init__(self, system: LinearSystem) -> None:
        super().__init__()
        n, m = system.sizes
        x, S, E, q = (cp.Parameter(shape) for shape in (n, (m, m), (n, m), m))
        u, y = cp.Variable(m, name="u"), cp.Variable(n)
        objective = cp.Minimize(0.5 * cp.sum_squares(S @ u) + x @ y + q @ u)
        self.layer = CvxpyLayer(cp.Problem(objective, [y == E @ u, cp.norm(u) <= 1]), [x, S, E, q], [u])
        P = scipy.linalg.solve_discrete_are(system.A, system.B, np.eye(n), np.eye(m))
        self.S = torch.nn.Parameter(
            torch.as_tensor(scipy.linalg.sqrtm(np.eye(m) + system.B.T @ P @ system.B).real.copy())
        )
        self.E = torch.nn.Parameter(torch.as_tensor(system.A.T @ P @ system.B))
        self.q = torch.nn.Parameter(torch.zeros(m, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """Decides for a batch of states."""
        return self.layer(x, self.S, self.E, self.q)[0]


def clipped_lqr(system: LinearSystem) -> Policy:
    """Returns LQR's feedback, scaled back onto the ball."""
    P = scipy.linalg.solve_discrete_are(system.A, system.B, np.eye(2), np.eye(3))
    K = torch.as_tensor(np.linalg.solve(np.eye(3) + system.B.T @ P @ system.B, system.B.T @ P @ system.A))

    def policy(x: Tensor) -> Tensor:
        u = -x @ K.mT
        return u / u.norm(dim=-1, keepdim=True).clamp_min(1.0)

    return policy


def run(settings: Settings, context: Context) -> Outcome:
    """Tunes on fresh rollouts at each epoch, where the published run repeats the same eight."""
    system = adp_system()
    policy = BallPolicy(system)
    tuned = tune(
        policy,
        linear_simulator(system, start=0.0),
        quadratic_cost,
        torch.optim.SGD(policy.parameters(), lr=settings.lr, momentum=settings.momentum),
        Plan(settings.epochs, settings.horizon, settings.batch, test_batch=64, fresh=settings.fresh),
        fixed={"clipped LQR": clipped_lqr(system)},
        context=context,
    )
    metrics = {
        "cost_before": tuned.before,
        "cost_after": tuned.after,
        "gain_fresh_rollouts": tuned.gain(),
        "curve": tuned.curve,
    }
    return Outcome(metrics, tuned.comparison(), lambda figure: _draw(figure, tuned))


def _draw(figure: Any, tuned: Tuned) -> None:
    left, right = figure.subplots(1, 2)
    draw_curve(left, tuned.curve, {"start": tuned.before}, "average cost on the test rollouts")
    draw_fresh(right, tuned)


ADP = Experiment(
    "adp",
    "Approximate dynamic programming: a quadratic policy within the unit ball, a second-order cone program, is tuned.",
    run,
    {"ci": Settings(epochs=8, fresh=10), "full": Settings()},
    {"cost_before": 1.519, "cost_after": 0.910},
)

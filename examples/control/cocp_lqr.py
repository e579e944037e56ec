"""A one-step policy learns the value function of LQR, whose optimum is known (Agrawal et al., 2020, section 5.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.linalg
import torch
from torch.optim.lr_scheduler import MultiStepLR

from cvxlayers.torch import CvxpyLayer
from examples.control.linear import LinearSystem, linear_simulator, quadratic_cost, random_system
from examples.control.plots import draw_curve
from examples.control.riccati import feedback
from examples.control.simulator import draw, rollout
from examples.control.tune import Plan, rollout_costs, tune
from examples.experiment import Context, Experiment, Outcome

Tensor = torch.Tensor


@dataclass(frozen=True)
class Settings:
    """How long and how fast to learn; the step size falls to a fifth at `decay`."""

    epochs: int = 50
    horizon: int = 100
    batch: int = 6
    lr: float = 0.5
    decay: int = 26
    fresh: int = 50


def lyapunov_problem(
    system: LinearSystem, u_max: float | None = None
) -> tuple[cp.Problem, list[cp.Parameter], list[cp.Variable]]:
    """Returns the problem min u'u + |S x⁺|² + q'x⁺ over x⁺ = A x + B u, its parameters x, S (and q), and u.

    Args:
        system: A and B.
        u_max: bound of each control; None is no bound, and no q.
    """
    n, m = system.sizes
    x, S, q = cp.Parameter(n, name="x"), cp.Parameter((n, n), name="S"), cp.Parameter(n, name="q")
    u, after = cp.Variable(m, name="u"), cp.Variable(n, name="after")
    cost = cp.sum_squares(u) + cp.sum_squares(S @ after)
    dynamics = after == system.A @ x + system.B @ u
    if u_max is None:
        return cp.Problem(cp.Minimize(cost), [dynamics]), [x, S], [u]
    return cp.Problem(cp.Minimize(cost + q @ after), [dynamics, u <= u_max, u >= -u_max]), [x, S, q], [u]


class ControlLyapunov(torch.nn.Module):
    """The policy u = argmin of `lyapunov_problem`; S, and q where controls are bounded, are learnt.

    Args:
        system: A and B.
        P: the value function S'S to start from; q starts from zero.
        u_max: bound of each control; None is no bound.
    """

    def __init__(self, system: LinearSystem, P: np.ndarray, u_max: float | None = None) -> None:
        super().__init__()
        self.layer = CvxpyLayer(*lyapunov_problem(system, u_max))
        self.S = torch.nn.Parameter(torch.as_tensor(scipy.linalg.sqrtm(P).real.copy()))
        if u_max is not None:
            self.q = torch.nn.Parameter(torch.zeros(len(P), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """Decides for a batch of states."""
        return self.layer(x, *self.parameters())[0]


def run(settings: Settings, context: Context) -> Outcome:
    """Learns from P = I, and measures what is lost to the optimal feedback on the same rollouts."""
    system = random_system(4, 2, seed=0)
    simulator = linear_simulator(system, start=1.0, dtype=torch.float32)
    A, B = torch.as_tensor(system.A), torch.as_tensor(system.B)
    P = torch.as_tensor(scipy.linalg.solve_discrete_are(system.A, system.B, np.eye(4), np.eye(2)))
    K = feedback(A, B, torch.eye(2, dtype=A.dtype), P)
    policy = ControlLyapunov(system, np.eye(4))
    optimiser = torch.optim.SGD(policy.parameters(), lr=settings.lr)
    tuned = tune(
        policy,
        simulator,
        quadratic_cost,
        optimiser,
        Plan(settings.epochs, settings.horizon, settings.batch, fresh=settings.fresh),
        schedule=MultiStepLR(optimiser, [settings.decay], gamma=0.2),
        fixed={"optimal": lambda x: -x @ K.mT},
        context=context,
    )
    test = draw(simulator, 0, settings.batch, settings.horizon)
    optimal = float(rollout_costs(lambda x: -x @ K.mT, simulator, quadratic_cost, test).mean())
    states = rollout(policy, simulator, quadratic_cost, test).states.detach().flatten(0, 1)
    with torch.no_grad():
        learnt = policy.S.mT @ policy.S
        closed_form = -states @ feedback(A, B, torch.eye(2, dtype=A.dtype), learnt).mT
        error = float((policy(states) - closed_form).abs().max())
    excess = [cost - optimal for cost in tuned.curve]
    metrics = {
        "excess_before": excess[0],
        "excess_cost": excess[-1],
        "optimal_average_cost": system.noise**2 * float(P.trace()),
        "error_closed_form": error,
        "curve": excess,
    }
    return Outcome(metrics, tuned.comparison(), lambda figure: _draw(figure, excess))


def _draw(figure: Any, excess: list[float]) -> None:
    axes = figure.subplots()
    draw_curve(axes, excess, {}, "test cost above that of the optimal policy")
    axes.set_yscale("log")


COCP_LQR = Experiment(
    "cocp-lqr",
    "A one-step policy learns the value function of LQR by gradients through rollouts, from P = I.",
    run,
    {"ci": Settings(epochs=6, fresh=10), "full": Settings()},
    {"excess_before": 0.389, "excess_cost": 0.001, "optimal_average_cost": 1.8031},
)

"""Box-constrained LQR: a one-step policy is tuned, and a semidefinite program bounds what any policy can do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.linalg
import torch
from torch.optim.lr_scheduler import MultiStepLR

from examples.control.cocp_lqr import ControlLyapunov
from examples.control.linear import LinearSystem, linear_simulator, quadratic_cost, random_system
from examples.control.plots import draw_curve, draw_fresh
from examples.control.riccati import feedback
from examples.control.simulator import draw
from examples.control.tune import Plan, Tuned, rollout_costs, tune
from examples.experiment import Context, Experiment, Outcome

U_MAX = 0.1
Array = np.ndarray


@dataclass(frozen=True)
class Settings:
    """How long and how fast to tune; the step size falls to a tenth at `decay`."""

    epochs: int = 100
    horizon: int = 100
    batch: int = 6
    lr: float = 0.1
    decay: int = 51
    fresh: int = 50


def box_system() -> LinearSystem:
    """Returns the published system: eight states, two controls."""
    return random_system(8, 2, seed=1)


def lower_bound(system: LinearSystem, u_max: float) -> tuple[float, Array]:
    """Bounds the average cost of any policy with |u| ≤ u_max from below (Wang and Boyd, 2009).

    maximise tr(PW) − u_max² 1'λ subject to [[R + B'PB, B'PA], [A'PB, I + A'PA − P]] ⪰ 0, R ⪯ I + diag(λ), P, R ⪰ 0.

    Returns:
        The bound, and the P at which it is attained: itself a value function for a policy.
    """
    (n, m), A, B = system.sizes, system.A, system.B
    P, R = cp.Variable((n, n), PSD=True), cp.Variable((m, m), PSD=True)
    lam = cp.Variable(m, nonneg=True)
    bellman = cp.bmat([[R + B.T @ P @ B, B.T @ P @ A], [A.T @ P @ B, np.eye(n) + A.T @ P @ A - P]])
    constraints: list[cp.Constraint] = [bellman >> 0, np.eye(m) + cp.diag(lam) - R >> 0]
    objective = system.noise**2 * cp.trace(P) - u_max**2 * cp.sum(lam)
    problem = cp.Problem(cp.Maximize(objective), constraints)
    value = problem.solve(solver=cp.CLARABEL)
    if P.value is None or not isinstance(value, float):
        raise ArithmeticError(f"the bound was not found: {problem.status}")
    return value, P.value


def run(settings: Settings, context: Context) -> Outcome:
    """Tunes from the value function of LQR without bounds."""
    system = box_system()
    n, m = system.sizes
    simulator = linear_simulator(system, start=system.noise)
    P = scipy.linalg.solve_discrete_are(system.A, system.B, np.eye(n), np.eye(m))
    bound, P_bound = lower_bound(system, U_MAX)
    A, B, R = torch.as_tensor(system.A), torch.as_tensor(system.B), torch.eye(m, dtype=torch.float64)
    K = feedback(A, B, R, torch.as_tensor(P))
    policy = ControlLyapunov(system, P, U_MAX)
    fixed = {
        "clipped LQR": lambda x: (-x @ K.mT).clamp(-U_MAX, U_MAX),
        "P of the bound": ControlLyapunov(system, P_bound, U_MAX),
    }
    optimiser = torch.optim.SGD(policy.parameters(), lr=settings.lr)
    tuned = tune(
        policy,
        simulator,
        quadratic_cost,
        optimiser,
        Plan(settings.epochs, settings.horizon, settings.batch, fresh=settings.fresh),
        schedule=MultiStepLR(optimiser, [settings.decay], gamma=0.1),
        fixed=fixed,
        context=context,
    )
    test = draw(simulator, 0, settings.batch, settings.horizon)
    rivals = {
        name: float(rollout_costs(rival, simulator, quadratic_cost, test).mean()) for name, rival in fixed.items()
    }
    metrics = {
        "cost_before": tuned.before,
        "cost_after": tuned.after,
        "lower_bound": bound,
        "cost_clipped": rivals["clipped LQR"],
        "cost_bound_policy": rivals["P of the bound"],
        "gain_fresh_rollouts": tuned.gain(),
        "curve": tuned.curve,
    }
    return Outcome(metrics, tuned.comparison(), lambda figure: _draw(figure, tuned, {**rivals, "lower bound": bound}))


def _draw(figure: Any, tuned: Tuned, levels: dict[str, float]) -> None:
    left, right = figure.subplots(1, 2)
    draw_curve(left, tuned.curve, levels, "average cost on the test rollouts")
    draw_fresh(right, tuned)


COCP_BOX = Experiment(
    "cocp-box",
    "Box-constrained LQR: a one-step policy tuned through rollouts, with a semidefinite lower bound for any policy.",
    run,
    {"ci": Settings(epochs=5, fresh=5), "full": Settings()},
    {
        "cost_before": 16.940,
        "cost_after": 13.014,
        "lower_bound": 10.697,
        "cost_clipped": 16.247,
        "cost_bound_policy": 12.975,
    },
)

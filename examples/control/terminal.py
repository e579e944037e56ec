"""MPC with the cost of an infinite horizon: the terminal weight is Riccati's, with its exact derivative.

An expert holds a spring-mass-damper with bounded force; the learner sees its forces alone and finds the spring and the
damper, through the layer and through Riccati's equation (East, Gallieri, Masci, Koutnik and Cannon, 2020).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import torch

from cvxlayers.torch import CvxpyLayer
from examples.control.plots import COLOURS
from examples.control.riccati import dare, feedback
from examples.experiment import Context, Experiment, Outcome

Tensor = torch.Tensor

PERIOD, FORCE = 0.2, 0.5
TRUE_SPRING, TRUE_DAMPER = 1.0, 0.3
N, M = 2, 1


@dataclass(frozen=True)
class Settings:
    """How long and how fast to learn; horizons 1 … `horizons` are checked for stability."""

    steps: int = 300
    batch: int = 64
    horizon: int = 5
    horizons: int = 10
    lr: float = 0.05


def weights() -> tuple[Tensor, Tensor]:
    """Returns Q and R."""
    return torch.eye(N, dtype=torch.float64), torch.full((M, M), 0.5, dtype=torch.float64)


def dynamics(spring: Tensor, damper: Tensor) -> tuple[Tensor, Tensor]:
    """Returns A and B of a unit mass, exact over one period in which the force is constant."""
    zero, one = torch.zeros_like(spring), torch.ones_like(spring)
    rows = [torch.stack([zero, one, zero]), torch.stack([-spring, -damper, one]), torch.stack([zero, zero, zero])]
    block = torch.linalg.matrix_exp(PERIOD * torch.stack(rows))
    return block[:N, :N], block[:N, N:]


def predictive_controller(horizon: int, force: float | None) -> CvxpyLayer:
    """Returns the layer (x₀, A, B, S) → u₀ that minimises Σ x'Qx + u'Ru + |S x_N|², perhaps with |u| ≤ force."""
    Q, R = (weight.numpy() for weight in weights())
    x0, A, B, S = cp.Parameter(N), cp.Parameter((N, N)), cp.Parameter((N, M)), cp.Parameter((N, N))
    x, u, first = cp.Variable((horizon + 1, N)), cp.Variable((horizon, M)), cp.Variable(M, name="u")
    cost = sum(cp.quad_form(x[t], Q) + cp.quad_form(u[t], R) for t in range(horizon))
    constraints: list[cp.Constraint] = [x[0] == x0, x[1:].T == A @ x[:-1].T + B @ u.T, first == u[0]]
    if force is not None:
        constraints += [u <= force, u >= -force]
    problem = cp.Problem(cp.Minimize(cost + cp.sum_squares(S @ x[horizon])), constraints)
    return CvxpyLayer(problem, [x0, A, B, S], [first])


def decide(layer: CvxpyLayer, x: Tensor, A: Tensor, B: Tensor) -> Tensor:
    """Decides with the terminal weight that belongs to A and B."""
    P = dare(A, B, *weights())
    return layer(x, A, B, torch.linalg.cholesky(P).mT)[0]


def derivative_error(A: Tensor, B: Tensor) -> float:
    """Returns the largest error of the derivative of Riccati's solution, against central differences (fourth order)."""
    data = [A, B, *weights()]
    exact = torch.autograd.functional.jacobian(dare, tuple(data))
    worst = 0.0
    for index, value in enumerate(data):
        for entry in range(value.numel()):
            step = torch.zeros_like(value).flatten()
            step[entry] = 1e-3
            step = step.reshape(value.shape)
            if index > 1:
                step = (step + step.mT) / 2  # Q and R stay symmetric

            def moved(factor: float, at: int = index, by: Tensor = step) -> Tensor:
                return dare(*(other + factor * by if place == at else other for place, other in enumerate(data)))

            difference = (8 * (moved(1) - moved(-1)) - (moved(2) - moved(-2))) / 12
            along = (exact[index] * step).sum(dim=(-2, -1))
            worst = max(worst, float((along - difference).abs().max() / difference.abs().max().clamp_min(1e-12)))
    return worst


def stability(horizons: int) -> tuple[float, float]:
    """Returns the largest spectral radius of the closed loop over all horizons, and the distance to LQR's feedback."""
    A, B = dynamics(*(torch.tensor(value, dtype=torch.float64) for value in (TRUE_SPRING, TRUE_DAMPER)))
    Q, R = weights()
    K = feedback(A, B, R, dare(A, B, Q, R))
    radius, distance = 0.0, 0.0
    for horizon in range(1, horizons + 1):
        gain = decide(predictive_controller(horizon, None), torch.eye(N, dtype=A.dtype), A, B).mT
        radius = max(radius, float(torch.linalg.eigvals(A + B @ gain).abs().max()))
        distance = max(distance, float((gain + K).abs().max()))
    return radius, distance


def run(settings: Settings, context: Context) -> Outcome:
    """Learns spring and damper from the expert's forces at random states."""
    random = torch.Generator().manual_seed(context.seed)
    layer, true = predictive_controller(settings.horizon, FORCE), torch.tensor([TRUE_SPRING, TRUE_DAMPER]).double()
    logs = torch.tensor([3.0, 1.5], dtype=torch.float64).log().requires_grad_()
    optimiser = torch.optim.Adam([logs], lr=settings.lr)
    losses, path = [], [logs.detach().exp()]
    for _ in context.track(range(settings.steps), "imitating"):
        x = torch.randn(settings.batch, N, generator=random, dtype=torch.float64)
        with torch.no_grad():
            wanted = decide(layer, x, *dynamics(*true.unbind()))
        optimiser.zero_grad()
        loss = (decide(layer, x, *dynamics(*logs.exp().unbind())) - wanted).square().mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        path.append(logs.detach().exp())
    radius, distance = stability(settings.horizons)
    metrics = {
        "error_derivative": derivative_error(*dynamics(*true.unbind())),
        "error_lqr": distance,
        "spectral_radius": radius,
        "imitation_before": losses[0],
        "imitation_after": losses[-1],
        "parameters_before": path[0].tolist(),
        "parameters_after": path[-1].tolist(),
    }
    return Outcome(metrics, draw=lambda figure: _draw(figure, losses, torch.stack(path)))


def _draw(figure: Any, losses: list[float], path: Tensor) -> None:
    left, right = figure.subplots(1, 2)
    left.semilogy(losses, color=COLOURS[0])
    left.set_ylabel("squared error of the force")
    named = {"spring": (path[:, 0], TRUE_SPRING), "damper": (path[:, 1], TRUE_DAMPER)}
    for colour, (name, (values, true)) in zip(COLOURS, named.items(), strict=False):
        right.plot(values, color=colour, label=name)
        right.axhline(true, color=colour, linestyle="--", linewidth=1)
    right.legend(frameon=False)
    for axes in (left, right):
        axes.set_xlabel("step")


TERMINAL = Experiment(
    "mpc-terminal",
    "MPC with Riccati's terminal cost and its exact derivative; spring and damper are learnt from an expert's forces.",
    run,
    {"ci": Settings(steps=60, batch=16, horizons=3), "full": Settings()},
    {"parameters_after": [TRUE_SPRING, TRUE_DAMPER]},
)

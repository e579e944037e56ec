"""Inverse optimal control: the weights of an LQR expert's cost, from its trajectories, in three ways.

Max-margin (Ratliff, Bagnell and Zinkevich, 2006) needs optimal values alone, whose gradient is the envelope theorem's;
imitation needs the derivative of the solution; the residual of the optimality conditions needs no solution at all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.optimize
import torch

from cvxlayers.torch import CvxpyLayer, solve_qp
from examples.control.linear import random_system
from examples.control.plots import COLOURS
from examples.experiment import Context, Experiment, Outcome

Tensor = torch.Tensor

N, M = 4, 2
MARGIN = 0.02  # of a trajectory that differs by 1 in one control
FLOOR = 0.05  # least weight: above the margin, which keeps the loss-augmented problem convex
TRUE = torch.tensor([0.6, 1.6, 0.3, 1.2, 1.5, 0.8], dtype=torch.float64)  # of four states and two controls


@dataclass(frozen=True)
class Settings:
    """How many demonstrations of how many steps, how noisy their controls are, and how long to learn."""

    demonstrations: int = 32
    horizon: int = 10
    noise: float = 0.02
    steps: int = 60


@dataclass(frozen=True)
class Demonstrations:
    """States (batch, T, n) and controls (batch, T, m) of an expert; the states follow from the controls."""

    x0: Tensor
    x: Tensor
    u: Tensor

    def features(self) -> Tensor:
        """Returns the sums of squares that the weights multiply, of shape (batch, n + m)."""
        return torch.cat([self.x, self.u], dim=-1).square().sum(dim=-2)


class Planner(torch.nn.Module):
    """(x₀, state weights, control weights, l) → the controls that minimise Σ w'(x², u²) + l'u over x⁺ = A x + B u."""

    def __init__(self, horizon: int) -> None:
        super().__init__()
        system = random_system(N, M, seed=0)
        self.A, self.B = torch.as_tensor(system.A), torch.as_tensor(system.B)
        x0, w, v = cp.Parameter(N), cp.Parameter(N, nonneg=True), cp.Parameter(M, nonneg=True)
        linear, x, u = cp.Parameter((horizon, M)), cp.Variable((horizon + 1, N)), cp.Variable((horizon, M), name="u")
        cost = w @ cp.sum(cp.square(x[1:]), axis=0) + v @ cp.sum(cp.square(u), axis=0) + cp.sum(cp.multiply(linear, u))
        dynamics = [x[0] == x0, x[1:].T == system.A @ x[:-1].T + system.B @ u.T]
        self.layer = CvxpyLayer(cp.Problem(cp.Minimize(cost), dynamics), [x0, w, v, linear], [u])

    def plan(self, x0: Tensor, weights: Tensor, horizon: int) -> Tensor:
        """Returns the best controls."""
        none = torch.zeros(horizon, M, dtype=x0.dtype)
        return self.layer(x0, weights[:N], weights[N:], none)[0]

    def augmented_value(self, shown: Demonstrations, weights: Tensor) -> Tensor:
        """Returns min over τ of C(τ) − MARGIN |u − u*|², for each demonstration; its gradient is the envelope's."""
        result = self.layer.solve(shown.x0, weights[:N], weights[N:] - MARGIN, 2 * MARGIN * shown.u)
        return result.objective - MARGIN * shown.u.square().sum(dim=(-2, -1))

    def simulate(self, x0: Tensor, u: Tensor) -> Demonstrations:
        """Returns the trajectories of controls, without the first state, which is nobody's choice."""
        states = [x0]
        for control in u.unbind(-2):
            states.append(states[-1] @ self.A.mT + control @ self.B.mT)
        return Demonstrations(x0, torch.stack(states[1:], dim=-2), u)


def max_margin(planner: Planner, shown: Demonstrations, weights: Tensor) -> Tensor:
    """Returns the mean of C(τ*) − min {C(τ) − margin(τ, τ*)}: zero only where every τ* is best by its margin."""
    return (shown.features() @ weights - planner.augmented_value(shown, weights)).mean()


def imitation(planner: Planner, shown: Demonstrations, weights: Tensor) -> Tensor:
    """Returns the mean squared distance of the best controls to those shown."""
    return (planner.plan(shown.x0, weights, shown.u.shape[-2]) - shown.u).square().mean()


def optimality_residual(planner: Planner, shown: Demonstrations) -> Tensor:
    """Returns the weights, of sum n + m, that least violate the optimality conditions: a quadratic program."""

    def features(u: Tensor) -> Tensor:
        return planner.simulate(shown.x0, u).features().sum(dim=0)

    slopes = torch.func.jacrev(features)(shown.u).flatten(1)  # weights × all controls of all demonstrations
    one = torch.ones(1, N + M, dtype=slopes.dtype)
    total = torch.tensor([float(N + M)], dtype=slopes.dtype)
    zero = torch.zeros(N + M, dtype=slopes.dtype)
    return solve_qp(slopes @ slopes.mT, zero, A=one, b=total, lb=FLOOR).x


def angle(weights: Tensor) -> float:
    """Returns the angle to the true weights in degrees: their scale has no meaning."""
    cosine = torch.nn.functional.cosine_similarity(weights, TRUE, dim=0)
    return float(torch.rad2deg(torch.arccos(cosine.clamp(max=1.0))))


def run(settings: Settings, context: Context) -> Outcome:
    """Recovers the weights from exact and from noisy demonstrations."""
    planner, random = Planner(settings.horizon), torch.Generator().manual_seed(context.seed)
    x0 = 2 * torch.randn(settings.demonstrations, N, generator=random, dtype=torch.float64)
    with torch.no_grad():
        best = planner.plan(x0, TRUE, settings.horizon)
    noise = torch.randn(best.shape, generator=random, dtype=best.dtype)
    metrics: dict[str, float] = {"angle_before": angle(torch.ones_like(TRUE))}
    curves: dict[str, list[float]] = {}
    for kind, deviation in (("exact", 0.0), ("noisy", settings.noise)):
        shown = planner.simulate(x0, best + deviation * noise)
        for name, loss in (("max_margin", max_margin), ("imitation", imitation)):
            curves[f"{name}_{kind}"] = _learn(settings, planner, shown, loss)
            metrics[f"angle_{name}_{kind}"] = curves[f"{name}_{kind}"][-1]
        metrics[f"angle_residual_{kind}"] = angle(optimality_residual(planner, shown))
    return Outcome(metrics, draw=lambda figure: _draw(figure, curves, metrics))


def _learn(
    settings: Settings,
    planner: Planner,
    shown: Demonstrations,
    loss: Callable[[Planner, Demonstrations, Tensor], Tensor],
) -> list[float]:
    """Descends from equal weights by L-BFGS; returns the angle to the true ones after each step."""

    def weights(logits: Tensor) -> Tensor:
        return FLOOR + (N + M) * (1 - FLOOR) * logits.softmax(dim=0)

    start = torch.zeros(N + M, dtype=torch.float64)
    # Losses become tiny near the truth: they are scaled up, so that only the number of steps ends the search.
    scale = 1e6 / float(loss(planner, shown, weights(start)).detach())
    angles = [angle(weights(start))]

    def evaluate(point: np.ndarray) -> tuple[float, np.ndarray]:
        logits = torch.tensor(point, requires_grad=True)
        value = scale * loss(planner, shown, weights(logits))
        value.backward()
        return value.item(), np.zeros(N + M) if logits.grad is None else logits.grad.numpy()

    def record(point: np.ndarray) -> None:
        angles.append(angle(weights(torch.as_tensor(point))))

    options = {"maxiter": settings.steps, "ftol": 0.0, "gtol": 0.0}
    scipy.optimize.minimize(evaluate, start.numpy(), jac=True, method="L-BFGS-B", callback=record, options=options)
    return angles


def _draw(figure: Any, curves: dict[str, list[float]], metrics: dict[str, float]) -> None:
    axes = figure.subplots()
    for name, curve in curves.items():
        colour, style = COLOURS["imitation" in name], "-" if "exact" in name else "--"
        axes.semilogy(np.maximum(curve, 1e-6), style, color=colour, label=name.replace("_", " "))
    level = metrics["angle_residual_noisy"]
    axes.axhline(level, color=COLOURS[2], linestyle="--", linewidth=1, label="optimality residual noisy")
    axes.set_xlabel("step")
    axes.set_ylabel("angle to the true weights, degrees")
    axes.legend(frameon=False)


INVERSE = Experiment(
    "inverse",
    "Inverse optimal control: an expert's weights by max-margin (envelope theorem), imitation and optimality residual.",
    run,
    {"ci": Settings(demonstrations=8, steps=15), "full": Settings()},
    {f"angle_{name}_exact": 0.0 for name in ("max_margin", "imitation", "residual")},
)

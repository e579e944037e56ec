"""Box-constrained model predictive control on the set-ups of mpc.pytorch's tests, against exact Jacobians."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cvxlayers.torch import CvxpyLayer
from examples.control.lqr import layer_arguments, lqr_layer, relative
from examples.control.plots import COLOURS
from examples.control.riccati import LQR, solve_kkt
from examples.experiment import Context, Experiment, Outcome

Tensor = torch.Tensor
Solve = Callable[[LQR], Tensor]


@dataclass(frozen=True)
class Settings:
    """How many items share a call when Jacobians are taken."""

    batch: int = 2


def forward_problem(batch: int, seed: int = 1) -> tuple[LQR, Tensor, Tensor]:
    """Draws three states, four controls, five stages, and bounds of each control between 0 and ±1."""
    random, T, n, m = np.random.RandomState(seed), 5, 3, 4
    G, c = random.randn(T, batch, n + m, n + m), random.randn(T, batch, n + m)
    F = np.concatenate([np.eye(n) + 0.2 * random.randn(n, n), random.randn(n, m)], axis=1)
    f, x0 = random.randn(n), random.randn(batch, n)
    problem = _problem(G, c, np.tile(F, (T - 1, batch, 1, 1)), np.tile(f, (T - 1, batch, 1)), x0)
    lower, upper = (torch.as_tensor(random.random_sample((batch, T, m))) for _ in range(2))
    return problem, -lower, upper


def backward_problem(batch: int, bound: float, seed: int = 0) -> tuple[LQR, Tensor, Tensor]:
    """Draws two states, two controls, three stages, and costs with large curvature."""
    random, T, n, m = np.random.RandomState(seed), 3, 2, 2
    G, c = 10 * random.randn(T, batch, n + m, n + m), 10 * random.randn(T, batch, n + m)
    x0 = random.randn(batch, n)
    F, f = random.randn(T - 1, batch, n, n + m), random.randn(T - 1, batch, n)
    bounds = torch.full((batch, T, m), bound, dtype=torch.float64)
    return _problem(G, c, F, f, x0), -bounds, bounds


def layer_solver(layer: CvxpyLayer, lower: Tensor, upper: Tensor) -> Solve:
    """Returns the layer as a function of the problem."""
    return lambda problem: layer(*layer_arguments(problem), lower, upper)[0]


def active_set_solver(τ: Tensor, lower: Tensor, upper: Tensor) -> Solve:
    """Returns the solution as a function of the problem while the same controls stay at their bounds as in τ.

    With D the projection on what is free and τ̄ the rest at its bounds, τ = D z + τ̄ where z solves the problem with
    D C D + I − D, D (c + C τ̄), F D and f + F τ̄.
    """
    n = τ.shape[-1] - lower.shape[-1]
    u = τ[..., n:]
    low, high = (u - lower).abs() < 1e-7, (u - upper).abs() < 1e-7
    fixed = torch.zeros_like(τ)
    fixed[..., n:] = torch.where(low, lower, torch.where(high, upper, torch.zeros_like(u)))
    free = torch.ones_like(τ)
    free[..., n:] = (~(low | high)).to(τ.dtype)

    def solve(problem: LQR) -> Tensor:
        C = free[..., :, None] * problem.C * free[..., None, :] + torch.diag_embed(1 - free)
        c = free * (problem.c + (problem.C @ fixed[..., None])[..., 0])
        F, earlier = problem.F * free[..., :-1, None, :], fixed[..., :-1, :, None]
        reduced = LQR(C, c, F, problem.f + (problem.F @ earlier)[..., 0], problem.x0)
        return free * solve_kkt(reduced) + fixed

    return solve


def jacobians(solve: Solve, problem: LQR) -> list[Tensor]:
    """Returns the derivative of τ by every datum; of C only the symmetric part means anything."""

    def function(*data: Tensor) -> Tensor:
        return solve(LQR(*data))

    found = list(torch.func.jacrev(function, argnums=(0, 1, 2, 3, 4))(*vars(problem).values()))
    found[0] = (found[0] + found[0].mT) / 2
    return found


def run(settings: Settings, context: Context) -> Outcome:
    """Solves with tight bounds, and compares Jacobians with bounds that are inactive and active."""
    problem, lower, upper = forward_problem(settings.batch, 1 + context.seed)
    τ, n = layer_solver(lqr_layer(3, 4, 5, bounded=True), lower, upper)(problem), 3
    metrics = {"error_solution": relative(τ, active_set_solver(τ, lower, upper)(problem))}
    layer = lqr_layer(2, 2, 3, bounded=True)
    for name, bound in (("inactive", 100.0), ("active", 0.5)):
        data, low, high = backward_problem(settings.batch, bound, context.seed)
        solve = layer_solver(layer, low, high)
        point = solve(data)
        exact = jacobians(active_set_solver(point, low, high), data)
        errors = [relative(found, wanted) for found, wanted in zip(jacobians(solve, data), exact, strict=True)]
        metrics[f"error_jacobian_{name}"] = max(errors)
        metrics[f"share_{name}"] = float((point[..., 2:].abs() > bound - 1e-7).double().mean())
    return Outcome(metrics, draw=lambda figure: _draw(figure, τ[0, :, n:], lower[0], upper[0]))


def _problem(G: np.ndarray, c: np.ndarray, F: np.ndarray, f: np.ndarray, x0: np.ndarray) -> LQR:
    """Makes C = G'G, and the batch the first axis."""
    C = np.swapaxes(G, -1, -2) @ G
    stages = [torch.as_tensor(np.swapaxes(array, 0, 1).copy()) for array in (C, c, F, f)]
    return LQR(stages[0], stages[1], stages[2], stages[3], torch.as_tensor(x0))


def _draw(figure: Any, u: Tensor, lower: Tensor, upper: Tensor) -> None:
    for index, axes in enumerate(figure.subplots(1, u.shape[-1], sharey=True)):
        stages = np.arange(len(u))
        axes.fill_between(stages, lower[:, index], upper[:, index], color="#dddddd", step="mid", label="allowed")
        axes.plot(stages, u[:, index], "o-", color=COLOURS[index], label=f"control {index + 1}")
        axes.set_xlabel("stage")
        axes.legend(frameon=False)


BOX_MPC = Experiment(
    "box-mpc",
    "Box-constrained MPC on the set-ups of mpc.pytorch's tests: solutions and Jacobians against the exact active set.",
    run,
    {"ci": Settings(), "full": Settings(batch=16)},
    {"error_solution": 0.0, "error_jacobian_inactive": 0.0, "error_jacobian_active": 0.0},
)

"""Finite-horizon LQR as a layer, against Riccati's recursion and the dense optimality conditions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import torch

from cvxlayers.torch import CvxpyLayer
from examples.control.plots import COLOURS
from examples.control.riccati import LQR, lqr_gradients, solve_kkt, solve_lqr
from examples.experiment import Context, Experiment, Outcome

Tensor = torch.Tensor


@dataclass(frozen=True)
class Settings:
    """Sizes of the random problems."""

    states: int = 4
    controls: int = 2
    horizon: int = 50
    batch: int = 32


def lqr_layer(n: int, m: int, T: int, bounded: bool = False) -> CvxpyLayer:
    """Returns the layer of finite-horizon problems whose every datum is a parameter, stage by stage.

    Args:
        n: states.
        m: controls.
        T: stages.
        bounded: whether two more parameters of shape (T, m), the last, bound the controls from below and above.
    """
    C = [cp.Parameter((n + m, n + m), PSD=True, name=f"C{t}") for t in range(T)]
    F = [cp.Parameter((n, n + m), name=f"F{t}") for t in range(T - 1)]
    c, f = cp.Parameter((T, n + m), name="c"), cp.Parameter((T - 1, n), name="f")
    x0, τ = cp.Parameter(n, name="x0"), cp.Variable((T, n + m), name="tau")
    bounds = [cp.Parameter((T, m), name=name) for name in ("lower", "upper")] if bounded else []
    cost = 0.5 * cp.sum([cp.quad_form(τ[t], C[t]) for t in range(T)]) + cp.sum(cp.multiply(c, τ))
    constraints: list[cp.Constraint] = [τ[0, :n] == x0, *(τ[t + 1, :n] == F[t] @ τ[t] + f[t] for t in range(T - 1))]
    if bounded:
        constraints += [τ[:, n:] >= bounds[0], τ[:, n:] <= bounds[1]]
    problem = cp.Problem(cp.Minimize(cost), constraints)
    return CvxpyLayer(problem, [*C, c, *F, f, x0, *bounds], [τ])


def layer_arguments(problem: LQR) -> list[Tensor]:
    """Returns the data in the order of the layer's parameters."""
    return [*problem.C.unbind(-3), problem.c, *problem.F.unbind(-3), problem.f, problem.x0]


def random_lqr(settings: Settings, seed: int) -> LQR:
    """Draws convex problems whose dynamics stay bounded, every stage different."""
    n, m, T, batch = settings.states, settings.controls, settings.horizon, settings.batch
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(batch, *shape, generator=random, dtype=torch.float64)

    G = normal(T, n + m, n + m)
    C = G.mT @ G / (n + m) + 0.1 * torch.eye(n + m, dtype=torch.float64)
    A = torch.linalg.qr(normal(T - 1, n, n)).Q
    F = torch.cat([A, normal(T - 1, n, m)], dim=-1)
    return LQR(C, normal(T, n + m), F, 0.1 * normal(T - 1, n), normal(n))


def run(settings: Settings, context: Context) -> Outcome:
    """Compares solutions and gradients; errors are relative to the largest entry."""
    problem = random_lqr(settings, context.seed)
    layer = lqr_layer(settings.states, settings.controls, settings.horizon)
    data = LQR(*(value.requires_grad_() for value in vars(problem).values()))
    (τ,) = layer(*layer_arguments(data))
    weights = torch.randn(τ.shape, generator=torch.Generator().manual_seed(context.seed + 1), dtype=τ.dtype)
    gradients = torch.autograd.grad((weights * τ).sum(), list(vars(data).values()))
    with torch.no_grad():
        exact, _ = solve_lqr(problem)
        expected = vars(lqr_gradients(problem, weights)).values()
        errors = [relative(found, wanted) for found, wanted in zip(gradients, expected, strict=True)]
        metrics = {
            "error_riccati": relative(τ, exact),
            "error_kkt": relative(τ, solve_kkt(problem)),
            "error_gradients": max(errors),
        }
    path = τ[0].detach()
    return Outcome(metrics, draw=lambda figure: _draw(figure, path, exact[0], settings.states))


def relative(found: Tensor, exact: Tensor) -> float:
    """Returns the largest error, relative to the largest entry."""
    return float((found - exact).abs().max() / exact.abs().max())


def _draw(figure: Any, path: Tensor, exact: Tensor, n: int) -> None:
    panels = figure.subplots(2, sharex=True)
    for axes, part, title in zip(panels, (slice(None, n), slice(n, None)), ("states", "controls"), strict=True):
        for index, (layer, riccati) in enumerate(zip(path[:, part].T, exact[:, part].T, strict=True)):
            colour = COLOURS[index % len(COLOURS)]
            axes.plot(riccati, color=colour, linewidth=4, alpha=0.3, label="Riccati" if index == 0 else None)
            axes.plot(layer, color=colour, linewidth=1, label="layer" if index == 0 else None)
        axes.set_ylabel(title)
        axes.legend(frameon=False)
    panels[1].set_xlabel("stage")


LQR_LAYER = Experiment(
    "lqr",
    "Finite-horizon LQR: the layer against Riccati's recursion, the dense KKT system, and gradients in closed form.",
    run,
    {"ci": Settings(horizon=10, batch=4), "full": Settings()},
    {"error_riccati": 0.0, "error_kkt": 0.0, "error_gradients": 0.0},
)

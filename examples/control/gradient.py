"""The gradient of a plan in the pendulum's parameters: exact, and by the last convex approximation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cvxlayers.sqp import MPC
from examples.control import plants
from examples.experiment import Context, Experiment, Outcome

MODES = ("implicit", "gauss_newton", "unroll", "truncated(1)", "dlm")
STARTS = ((1.0, 0.5), (0.4, 0.2))
DIFFERENCE = 1e-4


@dataclass(frozen=True)
class Settings:
    """The horizon, and the weight of the torque: large enough that the plan is unique."""

    horizon: int = 8
    weight: float = 0.05


def cost(weight: float) -> Callable[..., Tensor]:
    """½ (cos² + sin² + 0.1 speed² + weight·u²) − cos, of the state (cos, sin, speed)."""
    return lambda x, u, theta: 0.5 * (x[0] ** 2 + x[1] ** 2 + 0.1 * x[2] ** 2 + weight * u[0] ** 2) - x[0]


def run(settings: Settings, context: Context) -> Outcome:
    """Compares every backward mode with central differences."""
    x0 = plants.embed(torch.tensor(STARTS, dtype=torch.float64))
    theta = torch.tensor([plants.PENDULUM] * len(STARTS), dtype=torch.float64)
    weights = torch.linspace(1.0, 0.2, settings.horizon, dtype=torch.float64)

    def scalar(theta: Tensor, backward: str = "implicit") -> Tensor:
        planner = _planner(settings, backward)
        return (planner(x0, theta).controls[..., 0] * weights).sum(1)

    exact = _differences(scalar, theta)
    gradients = {mode: _gradient(scalar, theta, mode) for mode in context.track(MODES, "modes")}
    errors = {mode: (gradient - exact).abs().amax(1) for mode, gradient in gradients.items()}
    names = {"truncated(1)": "error_truncated_1"}
    metrics = {names.get(mode, f"error_{mode}"): float(error.max()) for mode, error in errors.items()}
    notes = [f"differences, start {start}: {_shown(row)}" for start, row in zip(STARTS, exact, strict=True)]
    notes += [
        f"gauss_newton, start {start}: {_shown(row)}"
        for start, row in zip(STARTS, gradients["gauss_newton"], strict=True)
    ]
    return Outcome(metrics, notes, _drawing(exact, gradients))


def _planner(settings: Settings, backward: str) -> MPC:
    return MPC(
        plants.embedded_pendulum,
        cost(settings.weight),
        horizon=settings.horizon,
        states=3,
        controls=1,
        u_min=-plants.TORQUE,
        u_max=plants.TORQUE,
        in_axes=(0,),
        backward=backward,
        eps=1e-10,
    )


def _gradient(scalar: Callable[..., Tensor], theta: Tensor, backward: str) -> Tensor:
    theta = theta.clone().requires_grad_()
    return torch.autograd.grad(scalar(theta, backward).sum(), theta)[0]


@torch.no_grad()
def _differences(scalar: Callable[..., Tensor], theta: Tensor) -> Tensor:
    steps = DIFFERENCE * torch.eye(3, dtype=torch.float64)
    return torch.stack([(scalar(theta + step) - scalar(theta - step)) / (2.0 * DIFFERENCE) for step in steps], 1)


def _shown(row: Sequence[Tensor] | Tensor) -> str:
    return ", ".join(f"{float(value):.4f}" for value in row)


def _drawing(exact: Tensor, gradients: dict[str, Tensor]) -> Callable[[Any], None]:
    def draw(figure: Any) -> None:
        axes = figure.subplots(1, len(STARTS), sharey=True)
        for index, (axis, start) in enumerate(zip(axes, STARTS, strict=True)):
            for place, (mode, gradient) in enumerate(gradients.items()):
                error = (gradient - exact)[index].abs().clamp(min=1e-12)
                axis.bar(np.arange(3) + 0.16 * (place - 2), error.detach().numpy(), 0.15, label=mode)
            axis.set_yscale("log")
            axis.set_xticks(range(3), ["gravity", "mass", "length"])
            axis.set_title(f"start at angle {start[0]}, speed {start[1]}")
        axes[0].set_ylabel("error against central differences")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(gradients))

    return draw


SQP_GRADIENT = Experiment[Settings](
    "sqp-gradient",
    "Compares gradients of a pendulum's plan in its parameters with finite differences.",
    run,
    {"ci": Settings(), "full": Settings()},
    {"error_implicit": 0.0, "error_gauss_newton": 0.0626},
)

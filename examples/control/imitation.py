"""Imitation of a pendulum's expert through the plan: learning the dynamics, or the cost, from controls alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from examples.control import plants
from examples.control.pendulum_policy import (
    WEIGHTS,
    demonstrate,
    identifiable,
    imitation_loss,
    planner,
)
from examples.experiment import Context, Experiment, Outcome

# Where learning starts: https://github.com/locuslab/differentiable-mpc (il_exp.py).
INITIAL = (15.0, 3.0, 0.5)


@dataclass(frozen=True)
class Settings:
    """How many demonstrations, how long, how many steps of Adam, and the rate they start with."""

    demonstrations: int = 10
    horizon: int = 20
    steps: int = 220
    lr: float = 0.1


def learn(settings: Settings, context: Context, what: str) -> Outcome:
    """Learns the logarithms of the dynamics' parameters, or of the cost's weights, by Adam."""
    generator = torch.Generator().manual_seed(context.seed)
    true = torch.tensor(plants.PENDULUM, dtype=torch.float64)
    weights = torch.tensor(WEIGHTS, dtype=torch.float64)
    policy = planner(plants.embedded_pendulum, settings.horizon)
    shown = demonstrate(policy, true, settings.demonstrations, generator)
    first = torch.tensor(INITIAL if what == "dynamics" else (0.3, 0.3, 0.3), dtype=torch.float64)
    learned = first.log().requires_grad_()
    optimiser = torch.optim.Adam([learned], lr=settings.lr)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.steps)
    curve, path = [], []
    for _ in context.track(range(settings.steps), f"imitating to learn the {what}"):
        theta, cost = (learned.exp(), weights) if what == "dynamics" else (true, learned.exp())
        loss = imitation_loss(policy, theta, cost, shown)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        decay.step()
        curve.append(float(loss.detach()))
        path.append(learned.detach().exp())
    names, goal, found = _compared(what, torch.stack(path))
    errors = (found[-1] / goal - 1.0).abs()
    metrics = {"imitation_loss_start": curve[0], "imitation_loss": curve[-1]}
    metrics |= {f"error_{name}": float(error) for name, error in zip(names, errors, strict=True)}
    return Outcome(
        metrics,
        [f"{name}: {float(value):.4f}" for name, value in zip(names, found[-1], strict=True)],
        _drawing(curve, names, found / goal),
    )


def _compared(what: str, path: Tensor) -> tuple[tuple[str, ...], Tensor, Tensor]:
    """Returns names, true values and learned values of what can be identified."""
    if what == "cost":
        return ("cos", "sin", "speed"), torch.tensor(WEIGHTS, dtype=torch.float64), path
    goal = torch.stack(identifiable(torch.tensor(plants.PENDULUM, dtype=torch.float64)))
    return ("g_over_l", "m_l2"), goal, torch.stack(identifiable(path.T), 1)


def _drawing(curve: list[float], names: tuple[str, ...], ratios: Tensor) -> Callable[[Any], None]:
    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        left.semilogy(curve)
        left.set_xlabel("step")
        left.set_ylabel("imitation loss")
        right.plot(ratios, label=names)
        right.axhline(1.0, color="black", linewidth=0.6, linestyle=":")
        right.set_xlabel("step")
        right.set_ylabel("learned / true")
        right.legend()

    return draw


IMITATION_DYNAMICS = Experiment[Settings](
    "imitation-pendulum",
    "Learns a pendulum's dynamics from an expert's controls, through the plan.",
    lambda settings, context: learn(settings, context, "dynamics"),
    {"ci": Settings(4, 10, 40), "full": Settings()},
    {"error_g_over_l": 0.01, "error_m_l2": 0.01},
)
IMITATION_COST = Experiment[Settings](
    "imitation-pendulum-cost",
    "Learns the weights of a pendulum's cost from an expert's controls, through the plan.",
    lambda settings, context: learn(settings, context, "cost"),
    {"ci": Settings(4, 10, 40), "full": Settings()},
)

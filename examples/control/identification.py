"""System identification against task loss, where the model cannot represent the plant (objective mismatch).

The model is fitted to predict one step ahead; from there, its parameters are learned for the task, through the plan.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cvxlayers.sqp import MPC
from examples.control import plants
from examples.control.pendulum_policy import (
    WEIGHTS,
    demonstrate,
    identifiable,
    imitation_loss,
    planner,
    prediction_loss,
    tilted,
)
from examples.experiment import Context, Experiment, Outcome

# gravity, mass, length, spring and tilt: https://github.com/locuslab/differentiable-mpc (il_env.py, pendulum-complex).
COMPLEX = (*plants.PENDULUM, 1.0, 0.1)


@dataclass(frozen=True)
class Settings:
    """How many trajectories to learn from and to test on, how long, and how many steps of task loss."""

    train: int = 16
    test: int = 32
    horizon: int = 20
    steps: int = 60
    lr: float = 0.03


def run(settings: Settings, context: Context) -> Outcome:
    """Identifies the plain pendulum from the damped one's data, then learns for the task."""
    generator = torch.Generator().manual_seed(context.seed)
    expert = planner(tilted, settings.horizon)
    plant = torch.tensor(COMPLEX, dtype=torch.float64)
    train, test = (demonstrate(expert, plant, count, generator) for count in (settings.train, settings.test))
    policy, weights = planner(plants.embedded_pendulum, settings.horizon), torch.tensor(WEIGHTS, dtype=torch.float64)

    def predicted(theta: Tensor) -> Tensor:
        return prediction_loss(theta, train)

    def imitated(theta: Tensor) -> Tensor:
        return imitation_loss(policy, theta, weights, train)

    identified, _ = descend(
        predicted, torch.tensor(plants.PENDULUM, dtype=torch.float64), 300, 0.03, context, "one-step error"
    )
    learned, curve = descend(imitated, identified, settings.steps, settings.lr, context, "task loss")
    with torch.no_grad():
        losses = {
            name: (float(imitated(theta)), float(predicted(theta)), float(imitation_loss(policy, theta, weights, test)))
            for name, theta in (("sysid", identified), ("task", learned))
        }
    metrics = {
        f"{kind}_{name}": loss
        for name, found in losses.items()
        for kind, loss in zip(("imitation", "prediction", "test_imitation"), found, strict=True)
    }
    metrics["imitation_ratio"] = losses["task"][0] / losses["sysid"][0]
    notes = [
        f"{name}: g/l {float(identifiable(theta)[0]):.3f}, ml² {float(identifiable(theta)[1]):.3f}"
        for name, theta in (("identified", identified), ("learned", learned))
    ]
    return Outcome(metrics, notes, _drawing(curve))


def descend(
    loss: Callable[[Tensor], Tensor], start: Tensor, steps: int, lr: float, context: Context, label: str
) -> tuple[Tensor, list[float]]:
    """Minimises over the parameters' logarithms by Adam, and returns the best parameters met and the losses."""
    logs = start.log().clone().requires_grad_()
    optimiser, best, curve = torch.optim.Adam([logs], lr=lr), start, []
    for _ in context.track(range(steps), label):
        value = loss(logs.exp())
        curve.append(float(value.detach()))
        if curve[-1] <= min(curve):
            best = logs.detach().exp()
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
    return best, curve


def _drawing(curve: list[float]) -> Callable[[Any], None]:
    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.plot(curve)
        axes.axhline(curve[0], color="black", linewidth=0.6, linestyle=":")
        axes.set_ylim(bottom=0.0)
        axes.set_xlabel("step of task loss, from the identified model (dotted)")
        axes.set_ylabel("imitation loss on the training set")

    return draw


@dataclass(frozen=True)
class LinearSettings:
    """How many states to learn from and to test on, the horizon, and the steps of both losses."""

    train: int = 64
    test: int = 256
    horizon: int = 10
    steps: int = 200
    lr: float = 0.02


# A cart with an elastic load: four states, of which the model knows the first two.
FULL_A = ((1.0, 0.1, 0.0, 0.0), (-0.2, 0.95, 0.2, 0.05), (0.0, 0.0, 1.0, 0.1), (0.4, 0.1, -0.4, 0.9))
FULL_B = (0.0, 0.1, 0.0, 0.0)


def run_linear(settings: LinearSettings, context: Context) -> Outcome:
    """Fits a model of two states to a plant of four, by prediction and then by the closed loop's cost."""
    generator = torch.Generator().manual_seed(context.seed)
    A, b = torch.tensor(FULL_A, dtype=torch.float64), torch.tensor(FULL_B, dtype=torch.float64)
    train, test = (
        torch.randn(count, 4, generator=generator, dtype=torch.float64) for count in (settings.train, settings.test)
    )
    pushes = torch.randn(settings.train, generator=generator, dtype=torch.float64)
    regressors = torch.cat([train[:, :2], pushes[:, None]], 1)
    targets = (train @ A.T + pushes[:, None] * b)[:, :2]
    identified = torch.linalg.lstsq(regressors, targets).solution.T
    policy = _linear_policy(settings.horizon)

    def predicted(model: Tensor) -> Tensor:
        return ((regressors @ model.T - targets) ** 2).mean()

    def task(model: Tensor, starts: Tensor = train) -> Tensor:
        return closed_loop_cost(policy, model, starts, A, b)

    model = identified.clone().requires_grad_()
    optimiser, curve, best = torch.optim.Adam([model], lr=settings.lr), [], identified
    for _ in context.track(range(settings.steps), "task loss"):
        loss = task(model)
        curve.append(float(loss.detach()))
        best = model.detach().clone() if curve[-1] <= min(curve) else best
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        pairs = {"sysid": identified, "task": best}
        metrics = {f"task_{name}": float(task(found)) for name, found in pairs.items()}
        metrics |= {f"test_task_{name}": float(task(found, test)) for name, found in pairs.items()}
        metrics |= {f"prediction_{name}": float(predicted(found)) for name, found in pairs.items()}
    metrics["test_ratio"] = metrics["test_task_task"] / metrics["test_task_sysid"]
    return Outcome(metrics, [], _drawing(curve))


STEPS, LIMIT = 20, 2.0


def closed_loop_cost(policy: MPC, model: Tensor, starts: Tensor, A: Tensor, b: Tensor) -> Tensor:
    """The mean cost of the plant's first steps under the plans of a model."""
    state, total = starts, torch.zeros((), dtype=torch.float64)
    for _ in range(STEPS):
        u = policy(state[:, :2], model).controls[:, 0]
        total = total + (state[:, :2] ** 2).sum(1).mean() + 0.1 * (u**2).sum(1).mean()
        state = state @ A.T + u * b
    return total / STEPS


def _linear_policy(horizon: int) -> MPC:
    return MPC(
        lambda x, u, model: model[:, :2] @ x + model[:, 2] * u[0],
        lambda x, u, model: (x * x).sum() + 0.1 * u[0] ** 2,
        lambda x, model: (x * x).sum(),
        horizon=horizon,
        states=2,
        controls=1,
        u_min=-LIMIT,
        u_max=LIMIT,
        traced=True,
    )


SYSID_PENDULUM = Experiment[Settings](
    "sysid-pendulum",
    "Learns a pendulum for its task, from the model that predicts a different pendulum best.",
    run,
    {"ci": Settings(6, 8, 10, 15), "full": Settings()},
)
SYSID_LINEAR = Experiment[LinearSettings](
    "sysid-linear",
    "Learns a linear model that is too small for its plant, by prediction and by the closed loop's cost.",
    run_linear,
    {"ci": LinearSettings(16, 32, 6, 10), "full": LinearSettings(32, 256, 10, 60)},
)

"""Swing-up in closed loop: model predictive control of the pendulum and the cart-pole from random states.

Each plan starts at the last one, shifted; the first one at the best of a few guesses, all solved as one batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cvxlayers.sqp import MPC, receding_horizon
from examples.control import plants
from examples.experiment import Context, Experiment, Outcome

# At the top: this close to it, in radians and radians a second, over the last steps.
ANGLE, SPEED, LAST = 0.1, 0.5, 20


@dataclass(frozen=True)
class Settings:
    """How many starts, how long, and how far each plan looks."""

    starts: int = 20
    steps: int = 200
    horizon: int = 60
    iterations: int = 3


@dataclass(frozen=True)
class Plant:
    """A plant to swing up: its dynamics, its costs, the limit of its control, and where its angle is."""

    step: Callable[..., Tensor]
    stage_cost: Callable[..., Tensor]
    terminal_cost: Callable[..., Tensor]
    theta: tuple[float, ...]
    limit: float
    states: int
    angle: int
    draw: Callable[[int, torch.Generator], Tensor]


def pendulum_cost(x: Tensor, u: Tensor, theta: Tensor) -> Tensor:
    """1 − cos, a little of the speed, and of the torque."""
    return 1.0 - x[0].cos() + 0.05 * x[1] ** 2 + 0.0005 * u[0] ** 2


def pendulum_end(x: Tensor, theta: Tensor) -> Tensor:
    """The stage cost, weighted: the end of a plan should be at the top."""
    return 20.0 * (1.0 - x[0].cos()) + 1.0 * x[1] ** 2


def cartpole_cost(x: Tensor, u: Tensor, theta: Tensor) -> Tensor:
    """1 − cos, a little of the position, of both speeds, and of the force."""
    return 1.0 - x[2].cos() + 0.05 * (x[0] ** 2 + x[1] ** 2 + x[3] ** 2) + 0.0005 * u[0] ** 2


def cartpole_end(x: Tensor, theta: Tensor) -> Tensor:
    """The end of a plan should be at rest at the top, in the middle."""
    return 20.0 * (1.0 - x[2].cos()) + 1.0 * (x[0] ** 2 + x[1] ** 2 + x[3] ** 2)


PENDULUM = Plant(
    plants.pendulum, pendulum_cost, pendulum_end, plants.PENDULUM, plants.TORQUE, 2, 0, plants.random_pendulum
)
CARTPOLE = Plant(
    plants.cartpole, cartpole_cost, cartpole_end, plants.CARTPOLE, plants.FORCE, 4, 2, plants.random_cartpole
)


def run_plant(plant: Plant, settings: Settings, context: Context) -> Outcome:
    """Swings up from all starts at once."""
    generator = torch.Generator().manual_seed(context.seed)
    states, controls = closed_loop(plant, plant.draw(settings.starts, generator), settings, context)
    angle, speed = states[:, -LAST:, plant.angle], states[:, -LAST:, plant.angle + 1]
    off_top = torch.atan2(angle.sin(), angle.cos()).abs().amax(1)
    success = (off_top <= ANGLE) & (speed.abs().amax(1) <= SPEED)
    metrics = {
        "success_rate": float(success.double().mean()),
        "max_violation": float((controls.abs() - plant.limit).clamp(min=0.0).max()),
        "final_angle": float(off_top.max()),
    }
    return Outcome(
        metrics, [f"{int(success.sum())} of {settings.starts} starts end at the top"], _drawing(states, controls, plant)
    )


@torch.no_grad()
def closed_loop(plant: Plant, x0: Tensor, settings: Settings, context: Context) -> tuple[Tensor, Tensor]:
    """Returns the states (starts, steps, nx) visited and the controls (starts, steps) applied."""
    theta = torch.tensor(plant.theta, dtype=torch.float64)
    planner = MPC(
        plant.step,
        plant.stage_cost,
        plant.terminal_cost,
        horizon=settings.horizon,
        states=plant.states,
        controls=1,
        u_min=-plant.limit,
        u_max=plant.limit,
        eps=1e-4,
        max_iters=60,
        on_failure="mask",
        traced=True,
    )
    move = torch.func.vmap(plant.step, in_dims=(0, 0, None))
    loop = receding_horizon(
        planner,
        lambda x, u: move(x, u, theta),
        x0,
        theta,
        steps=settings.steps,
        controls=best_guess(planner, x0, theta, plant),
        max_iters=settings.iterations,
    )
    visited = [(x, u[:, 0]) for x, u, _ in context.track(loop, "swinging up", settings.steps)]
    states, controls = zip(*visited, strict=True)
    return torch.stack(states, 1), torch.stack(controls, 1)


def best_guess(planner: MPC, x0: Tensor, theta: Tensor, plant: Plant) -> Tensor:
    """Plans from guesses that push with, and against, the motion, and returns the best plan of each start."""
    guesses = torch.cat([_pumping(planner, x0, theta, plant, share) for share in (0.0, 1.0, -1.0, 0.5)])
    plans = planner(x0.repeat(4, 1), theta, controls=guesses)
    cost = torch.as_tensor(plans.result.objective + 1e3 * plans.result.violation).reshape(4, -1)
    return plans.controls.reshape(4, *guesses.shape[:0], len(x0), -1, 1)[cost.argmin(0), torch.arange(len(x0))]


def _pumping(planner: MPC, x0: Tensor, theta: Tensor, plant: Plant, share: float) -> Tensor:
    """Controls that push along the angle's motion with a share of the limit."""
    move = torch.func.vmap(plant.step, in_dims=(0, 0, None))
    sign = 1.0 if plant.angle == 0 else -1.0  # a cart that moves to the right turns its pole to the left
    states, controls = x0, []
    for _ in range(planner.sizes.horizon):
        push = share * min(plant.limit, 10.0) * sign * states[:, plant.angle + 1].sign()
        controls.append(push[:, None])
        states = move(states, controls[-1], theta)
    return torch.stack(controls, 1)


def _drawing(states: Tensor, controls: Tensor, plant: Plant) -> Callable[[Any], None]:
    def draw(figure: Any) -> None:
        time = plants.DT * torch.arange(states.shape[1])
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
        angle = states[..., plant.angle]
        above.plot(time, angle.T, linewidth=1.0, alpha=0.7)
        for turn in range(int((angle.min() / torch.pi).floor()), int((angle.max() / torch.pi).ceil()) + 1):
            if turn % 2 == 0:
                above.axhline(turn * torch.pi, color="black", linewidth=0.6, linestyle=":")
        above.set_ylabel("angle from the top (rad)")
        above.set_title(f"{len(states)} closed loops; dotted: the top")
        below.plot(time, controls.T, linewidth=0.8, alpha=0.6)
        below.set_xlabel("time (s)")
        below.set_ylabel("control")

    return draw


SWING_UP = Experiment[Settings](
    "swing-up",
    "Swings a pendulum up in closed loop, its torque 40% of what would lift it.",
    lambda settings, context: run_plant(PENDULUM, settings, context),
    {"ci": Settings(starts=4, steps=120, horizon=40), "full": Settings()},
    {"success_rate": 1.0, "max_violation": 0.0},
)
SWING_UP_CARTPOLE = Experiment[Settings](
    "swing-up-cartpole",
    "Swings up the pole of a cart in closed loop.",
    lambda settings, context: run_plant(CARTPOLE, settings, context),
    {"ci": Settings(starts=4, steps=80, horizon=25), "full": Settings(horizon=40)},
    {"success_rate": 0.9, "max_violation": 0.0},
)

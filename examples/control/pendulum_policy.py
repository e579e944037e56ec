"""What the pendulum's imitation and identification share: experts, their trajectories, and policies that plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cvxlayers.sqp import MPC
from examples.control import plants

# Weights of the cost ½ Σ w (x − goal)², of the state (cos, sin, speed) with the goal (1, 0, 0), and of the torque.
WEIGHTS, TORQUE_WEIGHT = (1.0, 1.0, 0.1), 0.05


def cost(x: Tensor, u: Tensor, theta: Tensor, weights: Tensor) -> Tensor:
    """The cost of a stage, of the state (cos, sin, speed)."""
    goal = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    return 0.5 * (weights * (x - goal) ** 2).sum() + 0.5 * TORQUE_WEIGHT * u[0] ** 2


def complex_pendulum(x: Tensor, u: Tensor, theta: Tensor) -> Tensor:
    """A pendulum with a spring and a tilt, which no (gravity, mass, length) of the plain one explains."""
    angle = torch.atan2(x[1], x[0])
    gravity, mass, length, spring, tilt = theta
    push = 1.5 * gravity / length * (angle + tilt).sin() + 3.0 * u[0] / (mass * length**2) - spring * angle
    speed = x[2] + plants.DT * push
    angle = angle + plants.DT * speed
    return torch.stack([angle.cos(), angle.sin(), speed])


def planner(dynamics: Callable[..., Tensor], horizon: int, backward: str = "implicit") -> MPC:
    """Returns the pendulum's planner; its parameters are those of the dynamics, and the weights of the cost."""
    return MPC(
        dynamics if dynamics is not plants.embedded_pendulum else _plain,
        cost,
        horizon=horizon,
        states=3,
        controls=1,
        u_min=-plants.TORQUE,
        u_max=plants.TORQUE,
        eps=1e-6,
        max_iters=60,
        on_failure="mask",
        backward=backward,
        traced=True,
    )


def _plain(x: Tensor, u: Tensor, theta: Tensor, weights: Tensor) -> Tensor:
    return plants.embedded_pendulum(x, u, theta)


def tilted(x: Tensor, u: Tensor, theta: Tensor, weights: Tensor) -> Tensor:
    """`complex_pendulum` as a planner's dynamics."""
    return complex_pendulum(x, u, theta)


@dataclass(frozen=True)
class Demonstrations:
    """An expert's trajectories: where they start, states (count, T + 1, 3) and controls (count, T)."""

    starts: Tensor
    states: Tensor
    controls: Tensor


@torch.no_grad()
def demonstrate(expert: MPC, theta: Tensor, count: int, generator: torch.Generator) -> Demonstrations:
    """Returns plans of the expert from random states; those it cannot solve are drawn again."""
    weights, kept = torch.tensor(WEIGHTS, dtype=torch.float64), []
    while sum(len(states) for states, _ in kept) < count:
        starts = plants.embed(plants.random_pendulum(count, generator, torch.pi / 2))
        plan = expert(starts, theta, weights)
        ok = torch.as_tensor(plan.result.ok)
        kept.append((plan.states[ok], plan.controls[ok, :, 0]))
    states, controls = (torch.cat(parts)[:count] for parts in zip(*kept, strict=True))
    return Demonstrations(states[:, 0], states, controls)


def imitation_loss(policy: MPC, theta: Tensor, weights: Tensor, shown: Demonstrations) -> Tensor:
    """The mean squared difference of the policy's controls from the expert's, from where the expert's plans are."""
    plan = policy(shown.starts, theta, weights, controls=shown.controls[..., None].numpy())
    ok = torch.as_tensor(plan.result.ok)
    return ((plan.controls[..., 0] - shown.controls) ** 2).mean(1)[ok].mean()


def prediction_loss(theta: Tensor, shown: Demonstrations) -> Tensor:
    """The mean squared error of the states that the plain pendulum predicts, one step ahead."""
    step = torch.func.vmap(torch.func.vmap(plants.embedded_pendulum, (0, 0, None)), (0, 0, None))
    found = step(shown.states[:, :-1], shown.controls[..., None], theta)
    return ((found - shown.states[:, 1:]) ** 2).mean()


def identifiable(theta: Tensor) -> tuple[Tensor, Tensor]:
    """Returns g/l and ml²: what the motion of a pendulum depends on."""
    return theta[0] / theta[2], theta[1] * theta[2] ** 2

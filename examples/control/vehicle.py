"""A vehicle follows a path of random curvature at a wanted speed (Agrawal et al., 2020, section 5.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
import torch

from cvxlayers.torch import CvxpyLayer
from examples.control.plots import COLOURS, draw_curve
from examples.control.simulator import Policy, Rollout, Simulator, draw_each, rollout
from examples.control.tune import Plan, Tuned, tune
from examples.experiment import Context, Experiment, Outcome

Tensor = torch.Tensor

LENGTH, PERIOD = 2.8, 0.2
EFFORT = 10.0  # weight of acceleration and steering; deviations weigh 1
A_MAX, STEER_MAX = 2.0, 0.68
MEAN_SPEED, KEEP_SPEED, KEEP_CURVATURE = 4.5, 0.98, 0.95
DEVIATIONS = (0.1, 0.01, 0.1)  # of the noise on offset, heading and speed
MONTE_CARLO_SEED = 1000


@dataclass(frozen=True)
class Settings:
    """How long and how fast to tune, and how many rollouts to judge by."""

    epochs: int = 100
    horizon: int = 100
    batch: int = 1
    lr: float = 0.1
    monte_carlo: int = 100


class VehiclePolicy(torch.nn.Module):
    """u = (acceleration, steering beyond the curve) minimises the effort plus |S y|² + q'y; S and q are learnt.

    y is linear in u: offset and heading after the step, speed against the wanted one, and offset a step later.
    """

    def __init__(self) -> None:
        super().__init__()
        S, q, f, B = cp.Parameter((4, 4), name="S"), cp.Parameter(4, name="q"), cp.Parameter(4), cp.Parameter((4, 2))
        curvature, u, y = cp.Parameter(name="curvature"), cp.Variable(2, name="u"), cp.Variable(4, name="y")
        steering = u[1] + LENGTH * curvature
        constraints = [y == f + B @ u, u[0] <= A_MAX, u[0] >= -A_MAX, steering <= STEER_MAX, steering >= -STEER_MAX]
        objective = cp.Minimize(EFFORT * cp.sum_squares(u) + cp.sum_squares(S @ y) + q @ y)
        self.layer = CvxpyLayer(cp.Problem(objective, constraints), [f, B, curvature, S, q], [u])
        self.S = torch.nn.Parameter(torch.eye(4, dtype=torch.float64))
        self.q = torch.nn.Parameter(torch.zeros(4, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """Decides for a batch of states."""
        _, offset, heading, speed, wanted, curvature = x.unbind(-1)
        move = PERIOD * speed
        offset_after = offset + move * heading.sin()
        heading_after = heading + move * (curvature - curvature / (1 - offset * curvature) * heading.cos())
        slack = speed - KEEP_SPEED * wanted - (1 - KEEP_SPEED) * MEAN_SPEED
        f = torch.stack([offset_after, heading_after, slack, offset_after + move * heading_after.sin()], dim=-1)
        zero = torch.zeros_like(move)
        by_acceleration = torch.stack([zero, zero, torch.full_like(move, PERIOD), zero], dim=-1)
        by_steering = torch.stack([zero, move / LENGTH, zero, move.square() / LENGTH], dim=-1)
        return self.layer(f, torch.stack([by_acceleration, by_steering], dim=-1), curvature, self.S, self.q)[0]


def simulator() -> Simulator:
    """Returns the world; its state is way, offset, heading error, speed, wanted speed and curvature."""

    def start(generator: torch.Generator, batch: int) -> Tensor:
        del generator
        return torch.tensor([0.0, 0.5, 0.1, 3.0, MEAN_SPEED, 0.0], dtype=torch.float64).repeat(batch, 1)

    def disturb(generator: torch.Generator, batch: int) -> Tensor:
        def uniform() -> Tensor:
            return torch.rand(batch, generator=generator, dtype=torch.float64)

        def normal() -> Tensor:
            return torch.randn(batch, generator=generator, dtype=torch.float64)

        curves, curvature = uniform(), 0.1 * normal()
        speeds, speed = uniform(), 3 + 3 * uniform()
        noise = [deviation * normal() for deviation in DEVIATIONS]
        return torch.stack([curves, curvature, speeds, speed, *noise], dim=-1)

    return Simulator(start, disturb, step)


def step(x: Tensor, u: Tensor, w: Tensor) -> Tensor:
    """Moves along the path; curvature and wanted speed change now and then."""
    way, offset, heading, speed, wanted, curvature = x.unbind(-1)
    acceleration, steering = u.unbind(-1)
    curves, new_curvature, speeds, new_wanted, *noise = w.unbind(-1)
    turn = curvature / (1 - offset * curvature) * heading.cos()
    return torch.stack(
        [
            way + PERIOD * speed / (1 - offset * curvature) * heading.cos(),
            offset + PERIOD * speed * heading.sin() + noise[0],
            heading + PERIOD * speed * (curvature + steering / LENGTH - turn) + noise[1],
            speed + PERIOD * acceleration + noise[2],
            torch.where(speeds < KEEP_SPEED, wanted, new_wanted),
            torch.where(curves < KEEP_CURVATURE, curvature, new_curvature),
        ],
        dim=-1,
    )


def cost(x: Tensor, u: Tensor, after: Tensor) -> Tensor:
    """Penalises wrong speed, offset and heading, and effort."""
    del after
    _, offset, heading, speed, wanted, _ = x.unbind(-1)
    return (speed - wanted).square() + offset.square() + heading.square() + EFFORT * u.square().sum(-1)


def run(settings: Settings, context: Context) -> Outcome:
    """Tunes from P = I, and judges by Monte Carlo."""
    policy, world = VehiclePolicy(), simulator()
    tuned = tune(
        policy,
        world,
        cost,
        torch.optim.SGD(policy.parameters(), lr=settings.lr),
        Plan(
            settings.epochs,
            settings.horizon,
            settings.batch,
            test_batch=4,
            clip=10.0,
            fresh=settings.monte_carlo,
            fresh_seed=MONTE_CARLO_SEED,
        ),
        context=context,
    )
    metrics = {
        "cost_before": tuned.before,
        "cost_after": tuned.after,
        "monte_carlo_before": float(tuned.fresh["start"].mean()),
        "monte_carlo_after": float(tuned.fresh["tuned"].mean()),
        "curve": tuned.curve,
    }
    shown = {name: _show(rival, world) for name, rival in {"start": VehiclePolicy(), "tuned": policy}.items()}
    return Outcome(metrics, tuned.comparison(), lambda figure: _draw(figure, tuned, shown))


def path(shown: Rollout) -> tuple[np.ndarray, np.ndarray]:
    """Returns the road and the vehicle's track in the plane, both of shape (steps, 2)."""
    way, offset, _, _, _, curvature = shown.states[:, 0].detach().numpy().T
    direction = np.concatenate([[0.0], np.cumsum(curvature[:-1] * np.diff(way))])
    tangent = np.stack([np.sin(direction), np.cos(direction)], axis=-1)
    moves = np.diff(way)[:, None] * tangent[:-1]
    road = np.concatenate([np.zeros((1, 2)), np.cumsum(moves, axis=0)])
    return road, road + offset[:, None] * np.stack([-tangent[:, 1], tangent[:, 0]], axis=-1)


def _show(policy: Policy, world: Simulator) -> Rollout:
    with torch.no_grad():
        return rollout(policy, world, cost, draw_each(world, [MONTE_CARLO_SEED + 7], 200))


def _draw(figure: Any, tuned: Tuned, shown: dict[str, Rollout]) -> None:
    left, middle, right = figure.subplots(1, 3)
    draw_curve(left, tuned.curve, {"start": tuned.before}, "average cost on the test rollouts")
    for axes, (name, one) in zip((middle, right), shown.items(), strict=True):
        road, track = path(one)
        axes.plot(*road.T, color="#bbbbbb", linewidth=6, label="road")
        axes.plot(*track.T, color=COLOURS[1] if name == "start" else COLOURS[0], linewidth=1.2, label=name)
        axes.set_aspect("equal", adjustable="datalim")
        axes.legend(frameon=False)
        axes.set_xlabel("metres")


VEHICLE = Experiment(
    "cocp-vehicle",
    "A vehicle learns to follow a path by gradients through its kinematics and through the convex problem that steers.",
    run,
    {"ci": Settings(epochs=6, monte_carlo=10), "full": Settings()},
    {"cost_before": 3.512, "cost_after": 1.057, "monte_carlo_before": 4.055, "monte_carlo_after": 0.912},
)

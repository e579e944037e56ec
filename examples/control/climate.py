"""The climate of a room: a predictive controller imitates a thermostat, and is then tuned (after Chen et al., 2019).

The room has two resistances and two capacities, air and walls; outdoors are the hourly temperatures of Seattle and San
Francisco that vega_datasets ships. The controller knows only one capacity: its model is learnt for its decisions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.linalg
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR

from cvxlayers.torch import CvxpyLayer
from examples.control.plots import COLOURS, draw_fresh
from examples.control.simulator import Policy, Rollout, Simulator, draw, draw_each, rollout
from examples.control.tune import Plan, Tuned, rollout_costs, tune
from examples.experiment import Context, Experiment, Outcome

Tensor = torch.Tensor

STEPS_A_DAY, HOURS = 96, 0.25
AIR, WALLS = 0.5, 5.0  # kWh/K
INNER, OUTER = 2.0, 6.0  # K/kW: air to walls, walls to outdoors
HEAT_MAX = 6.0  # kW
TARGET, SETBACK = 21.0, 17.0  # °C
OPENS, CLOSES = 8.0, 18.0
OCCUPIED, EMPTY = 5.0, 0.5  # weights of the squared deviation, halved, against 1 for a kW
GAIN = 3.0  # kW/K of the thermostat
DRAUGHT = 0.1  # K, deviation of what the model of the room leaves out, at each step
AHEAD = 12


@dataclass(frozen=True)
class Settings:
    """How long to imitate and to tune, and on how many days."""

    imitation: int = 200
    imitation_batch: int = 256
    imitation_lr: float = 0.01
    epochs: int = 40
    horizon: int = STEPS_A_DAY
    batch: int = 4
    lr: float = 0.02
    fresh: int = 50


@cache
def outdoors(city: str) -> Tensor:
    """Returns a year of outdoor temperatures in °C, every quarter of an hour."""
    from vega_datasets import data

    table = {"seattle": data.seattle_temps, "sf": data.sf_temps}[city]()
    celsius = (table["temp"].to_numpy(dtype=float) - 32) / 1.8
    quarters = np.arange(len(celsius) * 4 - 3) / 4
    return torch.as_tensor(np.interp(quarters, np.arange(len(celsius)), celsius))


def heating_days(city: str) -> Tensor:
    """Returns the days whose mean lies below 12 °C, with a day to follow."""
    year = outdoors(city)
    days = year[: len(year) // STEPS_A_DAY * STEPS_A_DAY].reshape(-1, STEPS_A_DAY)
    return torch.nonzero(days.mean(dim=1)[:-1] < 12.0)[:, 0]


def comfort_weight(clock: Tensor) -> Tensor:
    """Returns the weight of the squared deviation: people are in from eight to six."""
    hour = clock % STEPS_A_DAY * HOURS
    return torch.where((hour >= OPENS) & (hour < CLOSES), OCCUPIED, EMPTY).double()


def wanted_air(clock: Tensor) -> Tensor:
    """Returns the temperature that the deviation is from."""
    return torch.where(comfort_weight(clock) == OCCUPIED, TARGET, SETBACK).double()


def room(city: str) -> Simulator:
    """Returns the world; its state is the temperature of the air, of the walls, and the quarters of an hour so far."""
    to_walls, to_outside = 1 / INNER, 1 / OUTER
    flows = np.zeros((4, 4))  # of air, walls, outdoors, heat
    flows[0] = np.array([-to_walls, to_walls, 0.0, 1.0]) / AIR
    flows[1] = np.array([to_walls, -to_walls - to_outside, to_outside, 0.0]) / WALLS
    move = torch.as_tensor(scipy.linalg.expm(HOURS * flows)[:2])
    days = heating_days(city)

    def start(generator: torch.Generator, batch: int) -> Tensor:
        clock = STEPS_A_DAY * days[torch.randint(len(days), (batch,), generator=generator)]
        air = SETBACK + 0.5 * torch.randn(batch, generator=generator, dtype=torch.float64)
        share = OUTER / (INNER + OUTER)  # the walls, where the room has been as it is for long
        return torch.stack([air, share * air + (1 - share) * outdoors(city)[clock], clock.double()], dim=-1)

    def disturb(generator: torch.Generator, batch: int) -> Tensor:
        return DRAUGHT * torch.randn(batch, 1, generator=generator, dtype=torch.float64)

    def step(x: Tensor, u: Tensor, w: Tensor) -> Tensor:
        clock = x[..., 2]
        outside = outdoors(city)[clock.long()]
        after = torch.cat([x[..., :2], outside[..., None], u], dim=-1) @ move.mT
        return torch.stack([after[..., 0] + w[..., 0], after[..., 1], clock + 1], dim=-1)

    return Simulator(start, disturb, step)


def cost(x: Tensor, u: Tensor, after: Tensor) -> Tensor:
    """Weighs discomfort after the step against the heat."""
    deviation = after[..., 0] - wanted_air(after[..., 2])
    return comfort_weight(after[..., 2]) / 2 * deviation.square() + u[..., 0]


def thermostat(x: Tensor) -> Tensor:
    """Heats in proportion to what is missing, to the target from an hour before people come until they leave."""
    hour = x[..., 2] % STEPS_A_DAY * HOURS
    wanted = torch.where((hour >= OPENS - 1) & (hour < CLOSES), TARGET, SETBACK)
    return (GAIN * (wanted - x[..., 0])).clamp(0.0, HEAT_MAX)[..., None]


class ClimatePolicy(torch.nn.Module):
    """Plans three hours with the model y⁺ = a y + b u + d z + e of the air, y, and outdoors, z, from the target on.

    The four numbers are learnt.
    """

    def __init__(self, city: str) -> None:
        super().__init__()
        self.city = city
        now, a, b = cp.Parameter(name="now"), cp.Parameter(name="a"), cp.Parameter(name="b")
        drift, root = cp.Parameter(AHEAD, name="drift"), cp.Parameter(AHEAD, nonneg=True, name="root")
        goal = cp.Parameter(AHEAD, name="goal")
        x, u = cp.Variable(AHEAD + 1, name="x"), cp.Variable(AHEAD, name="u")
        discomfort = cp.sum_squares(cp.multiply(root, x[1:]) - goal) / 2
        objective = cp.Minimize(discomfort + cp.sum(u) + 0.0005 * cp.sum_squares(u))
        constraints = [x[0] == now, x[1:] == a * x[:-1] + b * u + drift, u >= 0, u <= HEAT_MAX]
        self.layer = CvxpyLayer(cp.Problem(objective, constraints), [now, a, b, drift, root, goal], [u, x])
        self.model = torch.nn.Parameter(torch.tensor([0.9, 0.3, 0.05, 0.0], dtype=torch.float64))

    def plan(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the heat (batch, AHEAD) and the temperatures (batch, AHEAD + 1) that it plans."""
        clock = x[..., 2:] + torch.arange(AHEAD)
        a, b, d, e = self.model.unbind()
        drift = (1 - a) * TARGET + d * (outdoors(self.city)[clock.long()] - TARGET) + e
        root = comfort_weight(clock + 1).sqrt()
        heat, air = self.layer(x[..., 0], a, b, drift, root, root * wanted_air(clock + 1))
        return heat, air

    def forward(self, x: Tensor) -> Tensor:
        """Decides for a batch of states."""
        return self.plan(x)[0][..., :1]

    def elsewhere(self, city: str) -> ClimatePolicy:
        """Returns the same policy under another city's weather."""
        other = ClimatePolicy(city)
        other.load_state_dict(self.state_dict())
        return other


def experience(city: str, days: int, horizon: int, seed: int) -> Rollout:
    """Returns what the thermostat does on some days."""
    world = room(city)
    with torch.no_grad():
        return rollout(thermostat, world, cost, draw(world, seed, days, horizon))


def imitation_loss(policy: ClimatePolicy, x: Tensor, u: Tensor, after: Tensor) -> Tensor:
    """Weighs the error of the next temperature by comfort, and adds that of the heat."""
    heat, air = policy.plan(x)
    wrong = comfort_weight(after[..., 2]) * (air[..., 1] - after[..., 0]).square()
    return (wrong + (heat[..., 0] - u[..., 0]).square()).mean()


def identify(policy: ClimatePolicy, seen: Rollout) -> None:
    """Sets the model by least squares of the next temperature: what system identification would do."""
    x, after = seen.states[:-1].flatten(0, 1), seen.states[1:].flatten(0, 1)
    outside = outdoors(policy.city)[x[:, 2].long()] - TARGET
    regressors = torch.stack([x[:, 0] - TARGET, seen.controls.flatten(), outside, torch.ones_like(outside)], dim=-1)
    with torch.no_grad():
        policy.model.copy_(torch.linalg.lstsq(regressors, after[:, 0] - TARGET).solution)


def imitate(policy: ClimatePolicy, seen: Rollout, settings: Settings, context: Context) -> list[float]:
    """Learns the model from states, heat and next states; returns the losses."""
    x, u, after = seen.states[:-1].flatten(0, 1), seen.controls.flatten(0, 1), seen.states[1:].flatten(0, 1)
    random = torch.Generator().manual_seed(context.seed)
    optimiser = torch.optim.Adam(policy.parameters(), lr=settings.imitation_lr)
    losses = []
    for _ in context.track(range(settings.imitation), "imitating"):
        chosen = torch.randint(len(x), (settings.imitation_batch,), generator=random)
        optimiser.zero_grad()
        loss = imitation_loss(policy, x[chosen], u[chosen], after[chosen])
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def run(settings: Settings, context: Context) -> Outcome:
    """Imitates the thermostat, tunes on Seattle's days, and judges there and in San Francisco."""
    policy, identified, world = ClimatePolicy("seattle"), ClimatePolicy("seattle"), room("seattle")
    seen = experience("seattle", 20, settings.horizon, seed=1 + context.seed)
    identify(identified, seen)
    losses = imitate(policy, seen, settings, context)
    optimiser = torch.optim.Adam(policy.parameters(), lr=settings.lr)
    tuned = tune(
        policy,
        world,
        cost,
        optimiser,
        Plan(settings.epochs, settings.horizon, settings.batch, test_batch=8, clip=1.0, fresh=settings.fresh),
        schedule=CosineAnnealingLR(optimiser, settings.epochs),
        fixed={"thermostat": thermostat, "identified": identified},
        context=context,
    )
    away = room("sf")
    days = draw_each(away, range(settings.fresh), settings.horizon)
    metrics = {
        "imitation_before": losses[0],
        "imitation_after": losses[-1],
        **{f"cost_{name.replace('start', 'imitation')}": float(each.mean()) for name, each in tuned.fresh.items()},
        "saved_from_thermostat": tuned.saving("thermostat")[0] / float(tuned.fresh["thermostat"].mean()),
        "cost_thermostat_sf": float(rollout_costs(thermostat, away, cost, days).mean()),
        "cost_tuned_sf": float(rollout_costs(policy.elsewhere("sf"), away, cost, days).mean()),
        "model": policy.model.tolist(),
        "curve": tuned.curve,
    }
    shown = {name: _day(rival, world) for name, rival in {"thermostat": thermostat, "tuned": policy}.items()}
    return Outcome(metrics, tuned.comparison(), lambda figure: _draw(figure, tuned, shown))


def _day(policy: Policy, world: Simulator) -> Rollout:
    with torch.no_grad():
        return rollout(policy, world, cost, draw_each(world, [3], STEPS_A_DAY))


def _draw(figure: Any, tuned: Tuned, shown: dict[str, Rollout]) -> None:
    grid = figure.add_gridspec(2, 2, width_ratios=[1.5, 1])
    air, heat, fresh = (figure.add_subplot(place) for place in (grid[0, 0], grid[1, 0], grid[:, 1]))
    hours = np.arange(STEPS_A_DAY) * HOURS
    for colour, (name, day) in zip((COLOURS[1], COLOURS[0]), shown.items(), strict=True):
        air.plot(hours, day.states[:-1, 0, 0], color=colour, label=name)
        heat.step(hours, day.controls[:, 0, 0], color=colour, where="post", label=name)
    outside = outdoors("seattle")[next(iter(shown.values())).states[:-1, 0, 2].long()]
    air.plot(hours, outside, color="#999999", linewidth=1, label="outdoors")
    for axes in (air, heat):
        axes.axvspan(OPENS, CLOSES, color="#f6b343", alpha=0.15)
    air.axhline(TARGET, color="black", linestyle=":", linewidth=1)
    air.set_ylabel("°C")
    air.legend(frameon=False)
    heat.set_ylabel("kW")
    heat.set_xlabel("hour; people are in where it is shaded")
    draw_fresh(fresh, tuned)


CLIMATE = Experiment(
    "climate",
    "Building climate: a predictive controller imitates a thermostat under real weather, and is then tuned.",
    run,
    {"ci": Settings(imitation=20, imitation_batch=32, epochs=2, horizon=48, batch=2, fresh=5), "full": Settings()},
)

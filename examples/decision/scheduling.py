"""How much to generate in each hour of tomorrow, by sequential quadratic programming, from a predicted distribution.

References: Donti, Amos and Kolter (2017), Task-based end-to-end model learning in stochastic optimization, whose prices
and ramp limit these are; https://github.com/locuslab/e2e-model-learning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from cvxlayers.sqp import SQP
from examples.decision.loads import HOURS, REGIONS, Days, load_days
from examples.experiment import Context, Experiment, Outcome

# Price of a GWh short and of one left over, and how much generation may change from hour to hour, in GW.
SHORT, OVER, RAMP = 50.0, 0.5, 0.4
METHODS = ("least_squares", "likelihood", "task")

Hourly = Float[torch.Tensor, "*days hours"]
Model = Float[torch.Tensor, "features outputs"]
Loss = Callable[[Model, Days], torch.Tensor]


@dataclass(frozen=True)
class Settings:
    """How many folds of regions, days to learn from and to test on in each, and how both losses are trained."""

    folds: int = 5
    days: int = 3630
    tests: int = 500
    likelihood_steps: int = 2000
    task_steps: int = 200
    batch: int = 100
    task_lr: float = 0.002


def expected_cost(z: Hourly, mean: Hourly, deviation: Hourly) -> torch.Tensor:
    """Returns E[50 (y − z)₊ + ½ (z − y)₊ + ½ (z − y)²], summed over the hours, of normal y."""
    u = (z - mean) / deviation
    below, density = 0.5 * (1 + torch.erf(u / 2**0.5)), torch.exp(-0.5 * u**2) / (2 * torch.pi) ** 0.5
    missing = deviation * (density - u * (1 - below))
    over = missing + z - mean
    return (SHORT * missing + OVER * over + 0.5 * ((z - mean) ** 2 + deviation**2)).sum()


def scheduler() -> SQP:
    """Returns the layer (mean, deviation) ↦ the schedule of least expected cost, within the ramp limit.

    Each step is a quadratic program; the derivative is that of the optimality conditions, with the exact Hessian.
    """

    def ramps(z: Hourly, mean: Hourly, deviation: Hourly) -> Float[torch.Tensor, " ramps"]:
        del mean, deviation
        change = z[1:] - z[:-1]
        return torch.cat([change - RAMP, -change - RAMP])

    return SQP(expected_cost, inequalities=ramps, traced=True)


def cost(z: Hourly, load: Hourly) -> Float[torch.Tensor, "*days"]:
    """Returns what a schedule costs on a day that has come."""
    short, over = torch.relu(load - z), torch.relu(z - load)
    return (SHORT * short + OVER * over + 0.5 * (z - load) ** 2).sum(dim=-1)


def predict(model: Model, days: Days) -> tuple[Hourly, Hourly]:
    """Returns the mean and the deviation of each hour: a linear function, and the exponential of another."""
    mean, logarithm = (days.x @ model).split(HOURS, dim=1)
    return mean, logarithm.clamp(-5, 1).exp()


def schedule(solver: SQP, model: Model, days: Days) -> Hourly:
    """Returns the generation for each day."""
    mean, deviation = predict(model, days)
    return solver((mean + 2 * deviation).detach(), mean, deviation)


def run(settings: Settings, context: Context) -> Outcome:
    """Learns in some regions, by likelihood and then by cost, and compares the costs in others."""
    solver, days = scheduler(), load_days()
    order = np.random.default_rng(context.seed).permutation(REGIONS)
    folds = [_fold(solver, days, np.roll(order, 3 * index), settings, context) for index in range(settings.folds)]
    costs = {name: [fold.costs[name] for fold in folds] for name in METHODS}
    gains = [1 - task / likely for task, likely in zip(costs["task"], costs["likelihood"], strict=True)]
    metrics: dict[str, Any] = {f"cost_{name}": float(np.mean(values)) for name, values in costs.items()}
    metrics["cost_known_load"] = float(np.mean([fold.bound for fold in folds]))
    metrics |= {"gain_mean": float(np.mean(gains)), "gain_least": min(gains), "gain_deviation": float(np.std(gains))}
    metrics |= {f"cost_{name}_each": values for name, values in costs.items()}
    notes = ["cost a day on days of regions not learned from; gain: of the task over likelihood, relative"]
    return Outcome(metrics, notes, lambda figure: _draw(figure, folds))


@dataclass(frozen=True)
class Fold:
    """Costs on the days of regions not learned from, with the load known too, and the schedules of one such day."""

    costs: Mapping[str, float]
    bound: float
    load: Float[torch.Tensor, " hours"]
    schedules: Mapping[str, Float[torch.Tensor, " hours"]]


def _fold(solver: SQP, days: Days, order: Int[np.ndarray, " regions"], settings: Settings, context: Context) -> Fold:
    """Tests on the first three regions, keeps two aside to stop by, and learns from the other ten."""
    rng = np.random.default_rng(context.seed)
    wanted = (order[:3], settings.tests), (order[3:5], settings.tests), (order[5:], settings.days)
    test, kept, train = (days.take(_some(days, regions, count, rng)) for regions, count in wanted)

    def task(model: Model, some: Days) -> torch.Tensor:
        return cost(schedule(solver, model, some), some.load).mean()

    start = _least_squares(train)
    likely = _train(_likelihood, start, train, kept, settings.likelihood_steps, 0.005, settings, context)
    useful = _train(task, likely, train, kept, settings.task_steps, settings.task_lr, settings, context)
    models = dict(zip(METHODS, (start, likely, useful), strict=True))
    with torch.no_grad():
        found = {name: schedule(solver, model, test) for name, model in models.items()}
        best = solver(test.load, test.load, torch.full_like(test.load, 1e-3))
    costs = {name: cost(z, test.load).mean().item() for name, z in found.items()}
    return Fold(costs, cost(best, test.load).mean().item(), test.load[0], {name: z[0] for name, z in found.items()})


def _some(
    days: Days, regions: Int[np.ndarray, " regions"], count: int, rng: np.random.Generator
) -> Int[np.ndarray, " chosen"]:
    there = np.flatnonzero(np.isin(days.region, regions))
    return rng.permutation(there)[:count]


def _least_squares(train: Days) -> Model:
    """Returns the model of least squares, whose deviations are the same on all days."""
    mean = torch.linalg.lstsq(train.x, train.load, driver="gelsd").solution
    logarithm = torch.zeros_like(mean)
    logarithm[-1] = (train.load - train.x @ mean).std(dim=0).log()
    return torch.cat([mean, logarithm], dim=1)


def _likelihood(model: Model, days: Days) -> torch.Tensor:
    mean, deviation = predict(model, days)
    return (deviation.log() + 0.5 * ((days.load - mean) / deviation) ** 2).sum(dim=1).mean()


def _train(
    loss: Loss, start: Model, train: Days, kept: Days, steps: int, lr: float, settings: Settings, context: Context
) -> Model:
    """Returns the model, of about fifteen that Adam passes with falling steps, that is best on days kept aside."""
    rng, model = np.random.default_rng(context.seed), start.clone().requires_grad_()
    optimizer = torch.optim.Adam([model], lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    best, least = start, torch.inf
    for step in context.track(range(steps), "training"):
        if step % max(steps // 15, 1) == 0 or step == steps - 1:
            with torch.no_grad():
                held_out = loss(model, kept).item()
            if held_out < least:
                best, least = model.detach().clone(), held_out
        batch = rng.choice(len(train.x), settings.batch, replace=False)
        optimizer.zero_grad()
        loss(model, train.take(batch)).backward()
        optimizer.step()
        schedule.step()
    return best


def _draw(figure: Any, folds: list[Fold]) -> None:
    left, right = figure.subplots(1, 2, width_ratios=[1.3, 1])
    shown = folds[0]
    left.plot(shown.load, "k", label="net load that came")
    for name, colour in zip(METHODS, ("0.6", "tab:orange", "tab:blue"), strict=True):
        left.step(range(HOURS), shown.schedules[name], where="mid", color=colour, label=name.replace("_", " "))
    left.set(xlabel="hour", ylabel="GW", title="Schedules for one day")
    left.legend()
    for fold in folds:
        right.plot(range(3), [fold.costs[name] for name in METHODS], "o-", color="0.7", markerfacecolor="tab:blue")
    right.set_xticks(range(3), [name.replace("_", " ") for name in METHODS])
    right.set(ylabel="cost a day, regions not learned from", title="A line a fold")


SCHEDULING = Experiment(
    "scheduling",
    "Generation within ramp limits: a forecast of net load trained on cost, through SQP, against likelihood.",
    run,
    {"ci": Settings(1, 1200, 100, 600, 10, 40, 0.001), "full": Settings()},
)

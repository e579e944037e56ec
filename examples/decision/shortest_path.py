"""SPO+ on shortest paths: the layer as an oracle, without a derivative; and its smoothed twin, with one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from examples.decision.grid import Costs, Trips, draw_map, draw_trips, path_layer, regret
from examples.experiment import Context, Experiment, Outcome


@dataclass(frozen=True)
class Settings:
    """The published sizes, less in number of trials: degree of the costs, trips to learn from and to test on."""

    degree: int = 8
    trips: int = 1000
    tests: int = 10000
    trials: int = 5
    steps: int = 400
    batch: int = 100
    lr: float = 0.02
    smoothing: float = 0.5


Loss = Callable[[Costs, Costs], torch.Tensor]
METHODS = ("least_squares", "spo_plus", "smoothed")


def spo_plus_loss() -> Loss:
    """Returns max over w of (c − 2ĉ)ᵀw, + 2ĉᵀw*(c) − z*(c), whose subgradient in ĉ is 2 (w*(c) − w*(2ĉ − c))."""
    oracle = path_layer()

    def loss(predicted: Costs, true: Costs) -> torch.Tensor:
        with torch.no_grad():
            best, hedged = oracle(true)[0], oracle(2 * predicted - true)[0]
        return ((true - 2 * predicted) * hedged + (2 * predicted - true) * best).sum(dim=-1).mean()

    return loss


def smoothed_loss(smoothing: float) -> Loss:
    """Returns the cost of the smoothed path, differentiated through the layer."""
    layer = path_layer(smoothing)
    return lambda predicted, true: (true * layer(predicted)[0]).sum(dim=-1).mean()


def run(settings: Settings, context: Context) -> Outcome:
    """Compares linear models by their regret on new trips, on several maps."""
    trials = [_trial(settings, context.seed + index, context) for index in range(settings.trials)]
    by_method = dict(zip(METHODS, zip(*trials, strict=True), strict=True))
    metrics: dict[str, Any] = {f"regret_{name}": float(np.median(values)) for name, values in by_method.items()}
    metrics["ratio"] = metrics["regret_least_squares"] / metrics["regret_spo_plus"]
    for name, values in by_method.items():
        metrics[f"regrets_{name}"] = list(values)
    return Outcome(metrics, ["medians over the maps"], lambda figure: _draw(figure, by_method, settings.degree))


def _trial(settings: Settings, seed: int, context: Context) -> tuple[float, ...]:
    """Returns the regrets of the methods on one map."""
    rng, layer = np.random.default_rng(seed), path_layer()
    matters = draw_map(rng)
    train, test = (draw_trips(matters, n, settings.degree, rng) for n in (settings.trips, settings.tests))
    start = torch.linalg.lstsq(with_one(train), train.costs).solution
    losses = {"SPO+": spo_plus_loss(), "smoothed": smoothed_loss(settings.smoothing)}
    models = [start, *(train_model(loss, start, train, settings, context, name) for name, loss in losses.items())]
    return tuple(regret(layer, with_one(test) @ model, test.costs) for model in models)


def train_model(
    loss: Loss, start: torch.Tensor, train: Trips, settings: Settings, context: Context, label: str
) -> torch.Tensor:
    """Returns the linear model after Adam with falling steps, from least squares."""
    model, generator = start.clone().requires_grad_(), torch.Generator().manual_seed(context.seed)
    optimizer, inputs = torch.optim.Adam([model], settings.lr), with_one(train)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    for _ in context.track(range(settings.steps), label):
        batch = torch.randint(settings.trips, (settings.batch,), generator=generator)
        optimizer.zero_grad()
        loss(inputs[batch] @ model, train.costs[batch]).backward()
        optimizer.step()
        schedule.step()
    return model.detach()


def with_one(trips: Trips) -> torch.Tensor:
    """Returns the features of each trip and a one."""
    return torch.cat([trips.x, trips.x.new_ones(len(trips.x), 1)], dim=1)


def _draw(figure: Any, regrets: Mapping[Any, tuple[float, ...]], degree: int) -> None:
    axes = figure.subplots()
    for values in zip(*regrets.values(), strict=True):
        axes.plot(range(len(values)), [100 * value for value in values], "o-", color="0.7", markerfacecolor="tab:blue")
    axes.set_xticks(range(len(regrets)), [name.replace("_", " ") for name in regrets])
    axes.set(
        ylim=(0, None), ylabel="regret on new trips, %", title=f"Shortest paths, costs of degree {degree}: a line a map"
    )


SHORTEST_PATH = Experiment(
    "spo-shortest-path",
    "Shortest paths by predicted costs: SPO+ and a smoothed layer against least squares.",
    run,
    {"ci": Settings(8, 300, 300, 2, 80), "full": Settings()},
    {"regret_least_squares": 0.1567, "regret_spo_plus": 0.0439},
)

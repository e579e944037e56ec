"""Costs learned from paths by maximal margin: the gradient of an optimal value is the envelope theorem's.

No solution is differentiated here. SPO+ is the margin method whose margin is the regret.

References: Taskar, Chatalbashev, Koller and Guestrin (2005), Learning structured prediction models: a large margin
approach; Ratliff, Bagnell and Zinkevich (2006), Maximum margin planning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from cvxlayers.torch import CvxpyLayer
from examples.decision.grid import Costs, draw_map, draw_trips, path_layer, regret
from examples.decision.shortest_path import Loss, train_model, with_one
from examples.decision.shortest_path import Settings as PathSettings
from examples.experiment import Context, Experiment, Outcome

METHODS = ("least_squares", "imitation", "max_margin", "spo_plus")


@dataclass(frozen=True)
class Settings(PathSettings):
    """Those of shortest paths, and how far a path has to stay behind the one shown for each edge that differs."""

    margin: float = 0.3


def optimal_value(layer: CvxpyLayer, costs: Costs) -> torch.Tensor:
    """Returns the least length of each item; its gradient is the shortest path itself."""
    return layer.solve(costs).objective


def max_margin_loss(margin: float) -> Loss:
    """Returns ĉᵀw* − min over w of (ĉᵀw − margin Σ|w − w*|), which asks for the path w* alone.

    Where w* is a path, Σ|w − w*| = Σw* + (1 − 2w*)ᵀw: the minimum is that of another shortest path.
    """
    layer = path_layer()

    def loss(predicted: Costs, true: Costs) -> torch.Tensor:
        with torch.no_grad():
            shown = layer(true)[0]
        rival = optimal_value(layer, predicted - margin * (1 - 2 * shown)) - margin * shown.sum(dim=-1)
        return ((predicted * shown).sum(dim=-1) - rival).mean()

    return loss


def regret_margin_loss() -> Loss:
    """Returns 2ĉᵀw* − min over w of (2ĉᵀw − (cᵀw − z*)): SPO+, by optimal values."""
    layer = path_layer()

    def loss(predicted: Costs, true: Costs) -> torch.Tensor:
        with torch.no_grad():
            shown = layer(true)[0]
        rival = optimal_value(layer, 2 * predicted - true) + (true * shown).sum(dim=-1)
        return (2 * (predicted * shown).sum(dim=-1) - rival).mean()

    return loss


def imitation_loss(smoothing: float) -> Loss:
    """Returns the squared distance of the smoothed path from the one shown, differentiated through the layer."""
    oracle, layer = path_layer(), path_layer(smoothing)

    def loss(predicted: Costs, true: Costs) -> torch.Tensor:
        with torch.no_grad():
            shown = oracle(true)[0]
        return (layer(predicted)[0] - shown).square().sum(dim=-1).mean()

    return loss


def run(settings: Settings, context: Context) -> Outcome:
    """Compares linear models that have seen costs with those that have seen paths alone, on several maps."""
    trials = [_trial(settings, context.seed + index, context) for index in range(settings.trials)]
    by_method = dict(zip(METHODS, zip(*trials, strict=True), strict=True))
    metrics: dict[str, Any] = {f"regret_{name}": float(np.median(values)) for name, values in by_method.items()}
    metrics |= {f"regrets_{name}": list(values) for name, values in by_method.items()}
    notes = ["medians over the maps; max-margin and imitation saw the shortest paths only, the others the costs"]
    return Outcome(metrics, notes, lambda figure: _draw(figure, by_method, settings.degree))


def _trial(settings: Settings, seed: int, context: Context) -> tuple[float, ...]:
    """Returns the regrets of the methods on one map."""
    rng = np.random.default_rng(seed)
    matters = draw_map(rng)
    train, test = (draw_trips(matters, n, settings.degree, rng) for n in (settings.trips, settings.tests))
    squares = torch.linalg.lstsq(with_one(train), train.costs).solution
    blank = torch.zeros_like(squares)
    blank[-1] = 1  # all edges cost one
    fitted = [
        train_model(imitation_loss(settings.smoothing), blank, train, settings, context, "imitation"),
        train_model(max_margin_loss(settings.margin), blank, train, settings, context, "max-margin"),
        train_model(regret_margin_loss(), squares, train, settings, context, "SPO+"),
    ]
    layer = path_layer()
    return tuple(regret(layer, with_one(test) @ model, test.costs) for model in (squares, *fitted))


def _draw(figure: Any, regrets: Mapping[Any, tuple[float, ...]], degree: int) -> None:
    axes = figure.subplots()
    for values in zip(*regrets.values(), strict=True):
        axes.plot(range(len(values)), [100 * value for value in values], "o-", color="0.7", markerfacecolor="tab:blue")
    seen = {"least_squares": "costs", "imitation": "paths", "max_margin": "paths", "spo_plus": "costs"}
    axes.set_xticks(range(len(regrets)), [f"{name.replace('_', ' ')}\n(saw {seen[name]})" for name in regrets])
    axes.set(
        ylim=(0, None), ylabel="regret on new trips, %", title=f"Shortest paths, costs of degree {degree}: a line a map"
    )


_FULL = Settings(tests=2000, steps=300)
MAX_MARGIN = Experiment(
    "max-margin",
    "Costs of shortest paths learned from paths by maximal margin, gradients by the envelope theorem, against SPO+.",
    run,
    {"ci": replace(_FULL, trips=300, tests=300, trials=1, steps=50), "full": _FULL},
)

"""Shortest paths on a grid whose costs are learned from paths that others took.

Who walks a grid from corner to corner along the cheapest path reveals something of its costs. A linear model maps
features of the day to costs; the layer maps costs to the path, a vertex of the flow polytope; the loss compares it with
the path that was taken. The path is piecewise constant in the costs, so that the exact derivative of the loss is zero
and nothing is learned: a smoothed derivative, differences (lpgd) or a ridge tell which costs to raise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
import torch

from cvxlayers.torch import CvxpyLayer
from examples.experiment import Context, Experiment, Outcome

# The keywords of a layer, by what they are called in pictures.
DERIVATIVES: dict[str, dict[str, Any]] = {
    "exact": {},
    "smoothed": {"derivative": "smoothed", "mu": 0.05},
    "lpgd": {"derivative": "lpgd", "mu": 0.5},
    "ridge": {"ridge": 1.0},
}


@dataclass(frozen=True)
class Settings:
    """How large the study is."""

    side: int
    days: int
    unseen: int
    epochs: int
    features: int = 5
    lr: float = 0.1


@dataclass(frozen=True)
class Study:
    """Days with features, true costs and the cheapest paths: those to learn from first."""

    features: torch.Tensor
    costs: torch.Tensor
    paths: torch.Tensor
    seen: int


def edges(side: int) -> list[tuple[int, int]]:
    """The edges of the grid, right and down, between nodes that are counted row by row."""
    nodes = np.arange(side * side).reshape(side, side)
    right = zip(nodes[:, :-1].ravel().tolist(), nodes[:, 1:].ravel().tolist(), strict=True)
    down = zip(nodes[:-1].ravel().tolist(), nodes[1:].ravel().tolist(), strict=True)
    return [*right, *down]


def path_layer(side: int, **keywords: Any) -> CvxpyLayer:
    """Min c·x over unit flows x ≥ 0 from the first node to the last."""
    arcs = edges(side)
    balance = np.zeros((side * side, len(arcs)))
    for column, (start, end) in enumerate(arcs):
        balance[start, column], balance[end, column] = 1.0, -1.0
    sent = np.zeros(side * side)
    sent[0], sent[-1] = 1.0, -1.0
    x, c = cp.Variable(len(arcs), name="x"), cp.Parameter(len(arcs), name="c")
    # One balance follows from the others: without it the equalities are independent.
    problem = cp.Problem(cp.Minimize(c @ x), [balance[:-1] @ x == sent[:-1], x >= 0])
    return CvxpyLayer(problem, [c], [x], **keywords)


def draw(settings: Settings, seed: int) -> Study:
    """Draws features, and costs that depend on them linearly, but for a softplus."""
    generator = torch.Generator().manual_seed(seed)
    count, arcs = settings.days + settings.unseen, len(edges(settings.side))
    features = torch.randn(count, settings.features, generator=generator, dtype=torch.float64)
    truth = torch.randn(settings.features + 1, arcs, generator=generator, dtype=torch.float64)
    costs = predict(truth, features)
    with torch.no_grad():
        (paths,) = path_layer(settings.side)(costs)
    return Study(features, costs, paths, settings.days)


def predict(weights: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Positive costs of each edge from the features of each day."""
    return torch.nn.functional.softplus(features @ weights[:-1] + weights[-1]) + 0.1


def regret(layer: CvxpyLayer, study: Study, weights: torch.Tensor) -> float:
    """How much more the paths of predicted costs cost on unseen days than the cheapest, relative to these."""
    unseen = slice(study.seen, None)
    with torch.no_grad():
        (chosen,) = layer(predict(weights, study.features[unseen]))
        best = (study.costs[unseen] * study.paths[unseen]).sum()
        return float((study.costs[unseen] * chosen).sum() / best - 1.0)


def train(settings: Settings, study: Study, name: str, context: Context) -> list[float]:
    """Trains the costs by one kind of derivative; returns the regret before, and after each epoch."""
    layer, judge = path_layer(settings.side, **DERIVATIVES[name]), path_layer(settings.side)
    # Small random weights: equal costs would tie paths, and at a tie not even the solution is unique.
    generator = torch.Generator().manual_seed(context.seed + 1)
    shape = (settings.features + 1, study.paths.shape[1])
    weights = (0.1 * torch.randn(shape, generator=generator, dtype=torch.float64)).requires_grad_()
    optimiser = torch.optim.Adam([weights], lr=settings.lr)
    seen = slice(study.seen)
    curve = [regret(judge, study, weights)]
    for _ in context.track(range(settings.epochs), name):
        optimiser.zero_grad()
        (chosen,) = layer(predict(weights, study.features[seen]))
        (chosen - study.paths[seen]).square().sum(dim=-1).mean().backward()
        optimiser.step()
        curve.append(regret(judge, study, weights))
    return curve


def run(settings: Settings, context: Context) -> Outcome:
    """Trains by every kind of derivative."""
    study = draw(settings, context.seed)
    curves = {name: train(settings, study, name, context) for name in DERIVATIVES}
    metrics = {"regret_untrained": curves["exact"][0]}
    metrics |= {f"regret_{name}": curve[-1] for name, curve in curves.items()}
    return Outcome(metrics, draw=lambda figure: plot(figure, curves))


def plot(figure: Any, curves: Mapping[str, Sequence[float]]) -> None:
    """Draws the regret over the epochs."""
    axes = figure.subplots()
    for name, curve in curves.items():
        axes.plot(100 * np.asarray(curve), label=name, linewidth=2)
    axes.set_xlabel("epoch")
    axes.set_ylabel("regret on unseen days, % of the cheapest path")
    axes.set_title("Learning the costs of a shortest path")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(title="derivative")


EXPERIMENT = Experiment(
    name="paths",
    summary="learn the costs of a shortest path, where the exact derivative is zero",
    run=run,
    sizes={
        "ci": Settings(side=3, days=24, unseen=24, epochs=12),
        "full": Settings(side=5, days=100, unseen=100, epochs=25),
    },
)

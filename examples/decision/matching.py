"""Bipartite matching by learned weights: pairs of handwritten digits, the worth of a pair learned from its images.

References: Wilder, Dilkina and Tambe (2019), Melding the data-decisions pipeline, who match citations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment

from cvxlayers.torch import CvxpyLayer
from examples.experiment import Context, Experiment, Outcome

SIDE, PIXELS = 8, 64  # digits on each side; pixels of an image, which happen to be 8 × 8 as well
METHODS = ("two_stage", "two_stage_longer", "decision")

Weights = Float[torch.Tensor, "*graphs left right"]


@dataclass(frozen=True)
class Settings:
    """How many repetitions, graphs to test on, and how both losses are trained.

    Attributes:
        repeats: repetitions, each with other images kept for testing.
        tests: graphs of images not learned from.
        rank: of the bilinear model; nine would tell ten digits apart.
        likelihood_steps: of the first stage.
        steps: after those, by either loss.
        batch: graphs in each step.
        lr: step of Adam.
        smoothing: weight of the quadratic term.
    """

    repeats: int = 5
    tests: int = 400
    rank: int = 3
    likelihood_steps: int = 1000
    steps: int = 150
    batch: int = 32
    lr: float = 0.02
    smoothing: float = 0.1


@dataclass(frozen=True)
class Graphs:
    """Images on both sides, and the worth of each pair: one where both show the same digit."""

    left: Float[torch.Tensor, "graphs left pixels"]
    right: Float[torch.Tensor, "graphs right pixels"]
    worth: Weights


@dataclass(frozen=True)
class Digits:
    """Images with zero mean, what they show, and which may be drawn."""

    images: Float[np.ndarray, "images pixels"]
    labels: Int[np.ndarray, " images"]
    allowed: Int[np.ndarray, " allowed"]

    def draw(self, graphs: int, rng: np.random.Generator) -> Graphs:
        """Draws graphs of random images."""
        left, right = rng.choice(self.allowed, (2, graphs, SIDE))
        worth = self.labels[left][:, :, None] == self.labels[right][:, None]
        images = (torch.as_tensor(self.images[side]) for side in (left, right))
        return Graphs(*images, worth=torch.as_tensor(worth.astype(float)))


class Bilinear(torch.nn.Module):
    """The probability that two images belong together: sigmoid((U x)ᵀ(V y) + b)."""

    def __init__(self, rank: int, generator: torch.Generator) -> None:
        torch.nn.Module.__init__(self)
        start = 0.3 * torch.randn(PIXELS, rank, dtype=torch.float64, generator=generator)
        self.U, self.V = torch.nn.Parameter(start), torch.nn.Parameter(start.clone())
        self.b = torch.nn.Parameter(torch.tensor(-2.0, dtype=torch.float64))

    def forward(self, graphs: Graphs) -> Weights:
        """Returns the logits of all pairs."""
        return (graphs.left @ self.U) @ (graphs.right @ self.V).mT + self.b


def matching_layer(smoothing: float, side: int = SIDE) -> CvxpyLayer:
    """Returns the layer C ↦ argmax ⟨C, X⟩ − smoothing ‖X‖² over X ≥ 0 with row and column sums of at most one."""
    C, X = cp.Parameter((side, side)), cp.Variable((side, side), nonneg=True)
    objective = cp.sum(cp.multiply(C, X)) - smoothing * cp.sum_squares(X)
    sums: list[Any] = [cp.sum(X, axis=axis) <= 1 for axis in (0, 1)]
    # Near the vertices of this polytope an active-set method is the fastest by far.
    return CvxpyLayer(cp.Problem(cp.Maximize(objective), sums), [C], [X], solver="daqp")


def share_matched(weights: Weights, graphs: Graphs) -> float:
    """Returns how many true pairs the best matchings by some weights hold, of as many as can be matched."""
    every = list(zip(weights.detach().numpy(), graphs.worth.numpy(), strict=True))
    found, possible = (
        sum(worth[linear_sum_assignment(by(w, worth), maximize=True)].sum() for w, worth in every)
        for by in (lambda w, worth: w, lambda w, worth: worth)
    )
    return float(found / possible)


def run(settings: Settings, context: Context) -> Outcome:
    """Learns weights by likelihood, and goes on by likelihood or by the matchings they lead to."""
    runs = [_repeat(settings, context.seed + index, context) for index in range(settings.repeats)]
    by_method = dict(zip(METHODS, zip(*runs, strict=True), strict=True))
    metrics: dict[str, Any] = {f"matched_{name}": float(np.mean(values)) for name, values in by_method.items()}
    stages = np.maximum(by_method["two_stage"], by_method["two_stage_longer"])
    gains = np.subtract(by_method["decision"], stages)
    metrics |= {
        "gain_mean": float(gains.mean()),
        "gain_deviation": float(gains.std()),
        "gain_least": float(gains.min()),
    }
    metrics |= {f"matched_{name}_each": list(values) for name, values in by_method.items()}
    return Outcome(
        metrics,
        ["share of the true pairs matched, of images not learned from; gains over the better of two stages"],
        _Picture(runs),
    )


def _repeat(settings: Settings, seed: int, context: Context) -> tuple[float, ...]:
    """Returns the shares matched by the methods, on images kept from learning."""
    rng = np.random.default_rng(seed)
    train, test = _split(rng)
    graphs, layer = test.draw(settings.tests, rng), matching_layer(settings.smoothing)

    def decision(logits: Weights, worth: Weights) -> torch.Tensor:
        return -(worth * layer(torch.sigmoid(logits))[0]).sum(dim=(1, 2)).mean()

    first = Bilinear(settings.rank, torch.Generator().manual_seed(seed)).state_dict()
    first = _train(_likelihood, first, train, settings.likelihood_steps, settings, context)
    states = [
        first,
        *(_train(loss, first, train, settings.steps, settings, context) for loss in (_likelihood, decision)),
    ]
    return tuple(share_matched(_model(state, settings)(graphs), graphs) for state in states)


def _split(rng: np.random.Generator) -> tuple[Digits, Digits]:
    """Returns half of the images to learn from, and the other half."""
    from sklearn.datasets import load_digits

    images, labels = (np.asarray(part) for part in load_digits(return_X_y=True))
    images = (images - images.mean(axis=0)) / 16
    order = rng.permutation(len(labels))
    first, second = np.array_split(order, 2)
    return Digits(images, labels, first), Digits(images, labels, second)


def _likelihood(logits: Weights, worth: Weights) -> torch.Tensor:
    return torch.nn.functional.binary_cross_entropy_with_logits(logits, worth)


def _model(state: dict[str, Any], settings: Settings) -> Bilinear:
    model = Bilinear(settings.rank, torch.Generator())
    model.load_state_dict(state)
    return model


def _train(
    loss: Callable[[Weights, Weights], torch.Tensor],
    state: dict[str, Any],
    digits: Digits,
    steps: int,
    settings: Settings,
    context: Context,
) -> dict[str, Any]:
    """Returns the state of the model after Adam with falling steps."""
    rng, model = np.random.default_rng(context.seed), _model(state, settings)
    optimizer = torch.optim.Adam(model.parameters(), settings.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in context.track(range(steps), "training"):
        graphs = digits.draw(settings.batch, rng)
        optimizer.zero_grad()
        loss(model(graphs), graphs.worth).backward()
        optimizer.step()
        schedule.step()
    return model.state_dict()


@dataclass(frozen=True)
class _Picture:
    """The shares matched, a line for each repetition."""

    runs: list[tuple[float, ...]]

    def __call__(self, figure: Any) -> None:
        axes = figure.subplots()
        for values in self.runs:
            axes.plot(range(3), [100 * value for value in values], "o-", color="0.7", markerfacecolor="tab:blue")
        axes.set_xticks(range(3), [name.replace("_", " ") for name in METHODS])
        axes.set(
            ylabel="true pairs matched, %", title="Pairs of digits, on images not learned from: a line a repetition"
        )


MATCHING = Experiment(
    "matching",
    "Matching handwritten digits in pairs: weights learned from the matchings they lead to, against two stages.",
    run,
    {"ci": Settings(1, 100, 3, 300, 20, 16, 0.005), "full": Settings()},
)

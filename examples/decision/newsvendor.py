"""The newsvendor: how much to stock, from a predicted distribution of demand.

References: Donti, Amos and Kolter (2017), Task-based end-to-end model learning in stochastic optimization;
https://github.com/locuslab/e2e-model-learning.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
import torch
from jaxtyping import Float, Int

from cvxlayers.torch import CvxpyLayer
from examples.experiment import Context, Experiment, Outcome

DEMANDS = (1.0, 2.0, 5.0, 10.0, 20.0)
FEATURES = 20
# Linear and quadratic price of ordering, of each unit short, and of each unit left over.
ORDER, SHORT, OVER = (10, 2), (30, 14), (10, 2)

Distribution = Float[torch.Tensor, "days demands"]
Loss = Callable[[Distribution, Int[torch.Tensor, " days"]], torch.Tensor]


@dataclass(frozen=True)
class Settings:
    """Days to learn from and to test on, how often that is repeated on other days, and how to train."""

    days: int = 2500
    tests: int = 1000
    repeats: int = 5
    steps: int = 300
    batch: int = 400
    lr: float = 0.02


@dataclass(frozen=True)
class Days:
    """Features of each day, how probable each demand was, and which one came."""

    x: Float[torch.Tensor, "days features"]
    probabilities: Distribution
    demand: Int[torch.Tensor, " days"]


def stock_layer() -> CvxpyLayer:
    """Returns the layer from the probabilities of the demands to the order of least expected cost."""
    p, demands, order = cp.Parameter(len(DEMANDS), nonneg=True), np.array(DEMANDS), cp.Variable()
    short, over = cp.Variable(len(DEMANDS)), cp.Variable(len(DEMANDS))
    expected = p @ (_price(SHORT, short) + _price(OVER, over))
    constraints = [short >= demands - order, over >= order - demands, short >= 0, over >= 0]
    problem = cp.Problem(cp.Minimize(_price(ORDER, order) + expected), constraints)
    return CvxpyLayer(problem, [p], [order])


def cost(order: Float[torch.Tensor, " days"]) -> Float[torch.Tensor, "days demands"]:
    """Returns what an order costs at each demand."""
    missing = torch.tensor(DEMANDS, dtype=order.dtype) - order[:, None]
    ordering = ORDER[0] * order + 0.5 * ORDER[1] * order.square()
    short, over = torch.relu(missing), torch.relu(-missing)
    return ordering[:, None] + sum(
        a * part + 0.5 * b * part.square() for (a, b), part in ((SHORT, short), (OVER, over))
    )


def draw_days(days: int, rng: np.random.Generator) -> Days:
    """Draws days whose demand follows softmax((x Θ)²), with the published Θ: no linear model is right about it."""
    theta = np.random.RandomState(42).randn(FEATURES, len(DEMANDS))
    x = torch.as_tensor(rng.normal(size=(days, FEATURES)))
    probabilities = torch.softmax((x @ torch.as_tensor(theta)).square(), dim=1)
    thresholds = torch.as_tensor(rng.random((days, 1)))
    demand = (probabilities.cumsum(dim=1) < thresholds).sum(dim=1).clamp(max=len(DEMANDS) - 1)
    return Days(x, probabilities, demand)


def run(settings: Settings, context: Context) -> Outcome:
    """Trains one linear model on likelihood and one on cost, and compares the costs that are to be expected."""
    layer = stock_layer()
    runs = [_repeat(layer, settings, context.seed + index, context) for index in range(settings.repeats)]
    by_model = dict(zip(("cost_task", "cost_likelihood", "cost_true_model"), zip(*runs, strict=True), strict=True))
    metrics: dict[str, Any] = {name: float(np.mean(values)) for name, values in by_model.items()}
    gains = np.subtract(by_model["cost_likelihood"], by_model["cost_task"])
    metrics |= {"gain_mean": float(gains.mean()), "gain_least": float(gains.min())}
    metrics |= {f"{name}_each": list(values) for name, values in by_model.items()}
    return Outcome(metrics, ["expected costs on new days"], lambda figure: _draw(figure, by_model))


def _repeat(layer: CvxpyLayer, settings: Settings, seed: int, context: Context) -> tuple[float, float, float]:
    """Returns the expected cost on new days by the model of cost, by that of likelihood, and by the true one."""
    rng = np.random.default_rng(seed)
    train, test = draw_days(settings.days, rng), draw_days(settings.tests, rng)

    start = torch.zeros(FEATURES + 1, len(DEMANDS), dtype=torch.float64)
    likely = _train(_likelihood, start, train, settings, context, "likelihood")
    useful = _train(functools.partial(_task, layer), likely, train, settings, context, "cost")
    guesses = [torch.softmax(_with_one(test.x) @ model, dim=1) for model in (useful, likely)]
    first, second, third = (_expected_cost(layer, p, test) for p in (*guesses, test.probabilities))
    return first, second, third


def _likelihood(logits: Distribution, demand: Int[torch.Tensor, " days"]) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits, demand)


def _task(layer: CvxpyLayer, logits: Distribution, demand: Int[torch.Tensor, " days"]) -> torch.Tensor:
    (order,) = layer(_floored(torch.softmax(logits, dim=1)))
    return cost(order).gather(1, demand[:, None]).mean()


def _train(
    loss: Loss, start: torch.Tensor, days: Days, settings: Settings, context: Context, label: str
) -> torch.Tensor:
    """Returns the model, of all that Adam passes, that is best on a fifth of the days, kept from learning."""
    model, generator = start.clone().requires_grad_(), torch.Generator().manual_seed(context.seed)
    optimizer, inputs = torch.optim.Adam([model], settings.lr), _with_one(days.x)
    kept = len(inputs) // 5
    best, least = start, loss(inputs[:kept] @ start, days.demand[:kept]).item()
    for step in context.track(range(1, settings.steps + 1), label):
        batch = torch.randint(kept, len(inputs), (settings.batch,), generator=generator)
        optimizer.zero_grad()
        loss(inputs[batch] @ model, days.demand[batch]).backward()
        optimizer.step()
        if step % 5 == 0:
            with torch.no_grad():
                held_out = loss(inputs[:kept] @ model, days.demand[:kept]).item()
            if held_out < least:
                best, least = model.detach().clone(), held_out
    return best


def _expected_cost(layer: CvxpyLayer, predicted: Distribution, days: Days) -> float:
    with torch.no_grad():
        (order,) = layer(_floored(predicted))
        return (days.probabilities * cost(order)).sum(dim=1).mean().item()


def _floored(p: Distribution) -> Distribution:
    """Keeps probabilities away from zero, where the amounts short and over would have no price; 1e-6 moves no order."""
    return (p + 1e-6) / (1 + len(DEMANDS) * 1e-6)


def _price(rates: tuple[int, int], amount: cp.Expression) -> cp.Expression:
    linear, quadratic = rates
    return linear * amount + 0.5 * quadratic * cp.square(amount)


def _with_one(x: torch.Tensor) -> torch.Tensor:
    return torch.cat([x, x.new_ones(len(x), 1)], dim=1)


def _draw(figure: Any, costs: Mapping[Any, tuple[float, ...]]) -> None:
    axes = figure.subplots()
    names = ["cost_likelihood", "cost_task", "cost_true_model"]
    for values in zip(*(costs[name] for name in names), strict=True):
        axes.plot(range(3), values, "o-", color="0.7", markerfacecolor="tab:blue")
    axes.set_xticks(range(3), ["trained on likelihood", "trained on cost", "the true model"])
    axes.set(ylabel="expected cost a day", title="Newsvendor with a model that cannot be right: a line a repetition")


NEWSVENDOR = Experiment(
    "newsvendor",
    "How much to stock: a linear model trained on cost against one trained on likelihood.",
    run,
    {"ci": Settings(800, 300, 2, 40, 200, 0.05), "full": Settings()},
)

"""The cubic task: a line is fitted to a cubic, and the item with the largest prediction is chosen.

References: Shah et al. (2022), Decision-focused learning without decision-making (https://github.com/sanketkshah/LODLs);
Bansal et al. (2023), TaskMet: task-driven metric learning for model learning.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float

from cvxlayers.torch import CvxpyLayer
from examples.experiment import Context, Experiment, Outcome
from examples.metric_learning.learn import Plan, draw_batch, train
from examples.metric_learning.model import Metric, choice_layer, fit, fit_layer

ITEMS, INSTANCES, HELD_OUT = 50, 400, 200
Line = Float[torch.Tensor, " 2"]
Table = Float[torch.Tensor, "instances items"]


@dataclass(frozen=True)
class Settings:
    """Which of the published sets, how many of its instances are learned from, and how the metric is learned."""

    data_seed: int = 1
    instances: int = 200
    batch: int = 50
    hidden: int = 200
    steps: int = 40
    lr: float = 0.01
    smoothing: float = 0.5


@dataclass(frozen=True)
class Task:
    """Items x with their values y, 50 to an instance, of which one is chosen."""

    x: Table
    y: Table

    def __getitem__(self, instances: slice | torch.Tensor) -> Task:
        """Returns some of the instances."""
        return Task(self.x[instances], self.y[instances])

    def quality(self, line: Line) -> float:
        """Returns the mean value of the choices, where choosing at random is 0 and the best choice is 1."""
        chosen = (line[0] * self.x + line[1]).argmax(dim=1, keepdim=True)
        by_chance, best = self.y.mean(), self.y.amax(dim=1).mean()
        return ((self.y.gather(1, chosen).mean() - by_chance) / (best - by_chance)).item()

    def squared_error(self, line: Line) -> float:
        """Returns the mean squared error of the predictions."""
        return (line[0] * self.x + line[1] - self.y).square().mean().item()


def published_tasks(seed: int) -> tuple[Task, Task, Task]:
    """Returns the instances to learn from, to stop by and to test on: those that the authors' code draws for a seed."""
    stream = random.Random(seed)
    known, test = (_draw_task(stream.randrange(2**32)) for _ in range(2))
    return known[HELD_OUT:], known[:HELD_OUT], test


def run(settings: Settings, context: Context) -> Outcome:
    """Learns the metric and compares the line under it with least squares and with a line trained on decisions."""
    known, held_out, test = published_tasks(settings.data_seed)
    known, layer, metric = known[: settings.instances], fit_layer(2), Metric(1, settings.hidden, context.seed)
    samples = known.x.reshape(-1, 1)
    features = torch.cat([samples, torch.ones_like(samples)], dim=1)

    def line() -> Line:
        return fit(layer, features, known.y.reshape(-1), metric(samples))

    direct = torch.randn(2, generator=torch.Generator().manual_seed(context.seed), dtype=torch.float64)
    direct.requires_grad_()
    with torch.no_grad():
        before = line()
    _train([direct], lambda: direct, 10 * settings.lr, (known, held_out), settings, context, "line")
    _train(list(metric.parameters()), line, settings.lr, (known, held_out), settings, context, "metric")
    with torch.no_grad():
        lines = {"before": before, "after": line(), "direct": direct.detach()}
    metrics = {f"decision_quality_{name}": test.quality(found) for name, found in lines.items()}
    metrics["decision_quality_ceiling"] = test.quality(torch.tensor([1.0, 0.0]))
    metrics |= {f"squared_error_{name}": test.squared_error(found) for name, found in lines.items()}
    note = "ceiling: any rising line, the best that a line can do; direct: the line itself trained on decisions"
    return Outcome(metrics, [note], lambda figure: _draw(figure, metric, before, lines["after"]))


def _train(
    parameters: list[torch.Tensor],
    line: Callable[[], Line],
    lr: float,
    tasks: tuple[Task, Task],
    settings: Settings,
    context: Context,
    label: str,
) -> None:
    """Improves smoothed decisions through the line and all that it depends on."""
    known, held_out = tasks
    generator, choose = torch.Generator().manual_seed(context.seed), choice_layer(ITEMS, settings.smoothing)

    def batch_loss() -> torch.Tensor:
        return _loss(choose, line(), known[draw_batch(len(known.x), settings.batch, generator)])

    train(parameters, batch_loss, lambda: -held_out.quality(line()), Plan(settings.steps, lr), context, label)


def _loss(choose: CvxpyLayer, line: Line, task: Task) -> torch.Tensor:
    (choice,) = choose(line[0] * task.x + line[1])
    return -(choice * task.y).sum(dim=1).mean()


def _draw_task(seed: int) -> Task:
    """Draws x uniformly from −1 to 1, with y = 10 (x³ − 0.65 x); in single precision, as published."""
    x = 2 * torch.rand(INSTANCES, ITEMS, generator=torch.Generator().manual_seed(seed)).double() - 1
    return Task(x, 10 * (x**3 - 0.65 * x))


def _draw(figure: Any, metric: Metric, before: Line, after: Line) -> None:
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    x = torch.linspace(-1, 1, 400, dtype=torch.float64)
    upper.plot(x, 10 * (x**3 - 0.65 * x), color="0.4", label="the truth")
    for line, label, colour in (
        (before, "least squares", "tab:orange"),
        (after, "under the learned metric", "tab:blue"),
    ):
        upper.plot(x, line[0] * x + line[1], color=colour, label=label)
        best = 1.0 if line[0] > 0 else -1.0
        upper.plot(best, 10 * (best**3 - 0.65 * best), "o", color=colour)
    upper.set(ylabel="value", title="The line that decides well is not the line that predicts well")
    upper.legend(loc="upper center")
    with torch.no_grad():
        lower.fill_between(x, metric(x[:, None]), color="tab:blue", alpha=0.4)
    lower.set(xlabel="x  (dots: where the chosen items lie)", ylabel="weight of a sample")


CUBIC = Experiment(
    "cubic",
    "A line chooses the best of 50 items whose values are a cubic.",
    run,
    {"ci": Settings(instances=20, batch=20, hidden=100, steps=30), "full": Settings()},
    {"decision_quality_after": 0.96},
)

"""The cubic task: a line is fitted to a cubic, and the item with the largest prediction is chosen.

References: Shah et al. (2022), Decision-focused learning without decision-making (https://github.com/sanketkshah/LODLs);
Bansal et al. (2023), TaskMet: task-driven metric learning for model learning.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from examples.experiment import Context, Experiment, Outcome
from examples.metric_learning.model import Metric, choice_layer, fit, fit_layer

ITEMS = 50
Line = Float[torch.Tensor, " 2"]
Table = Float[torch.Tensor, "instances items"]


@dataclass(frozen=True)
class Settings:
    """Instances to learn from and to test on, and how the metric is learned."""

    instances: int = 40
    tests: int = 400
    hidden: int = 200
    steps: int = 60
    lr: float = 0.01
    smoothing: float = 0.1


@dataclass(frozen=True)
class Task:
    """Items x with their values y, 50 to an instance, of which one is chosen."""

    x: Table
    y: Table

    def quality(self, line: Line) -> float:
        """Returns the mean value of the choices, where choosing at random is 0 and the best choice is 1."""
        chosen = (line[0] * self.x + line[1]).argmax(dim=1, keepdim=True)
        random, best = self.y.mean(), self.y.amax(dim=1).mean()
        return ((self.y.gather(1, chosen).mean() - random) / (best - random)).item()

    def squared_error(self, line: Line) -> float:
        """Returns the mean squared error of the predictions."""
        return (line[0] * self.x + line[1] - self.y).square().mean().item()


def draw_task(instances: int, rng: np.random.Generator) -> Task:
    """Draws x uniformly from −1 to 1, with y = 10 (x³ − 0.65 x)."""
    x = torch.as_tensor(rng.uniform(-1, 1, (instances, ITEMS)))
    return Task(x, 10 * (x**3 - 0.65 * x))


def run(settings: Settings, context: Context) -> Outcome:
    """Learns the metric and compares the line under it with least squares and with a line trained on decisions."""
    rng = np.random.default_rng(context.seed)
    train, test = draw_task(settings.instances, rng), draw_task(settings.tests, rng)
    layer, metric = fit_layer(2), Metric(1, settings.hidden, context.seed)

    def line() -> Line:
        samples = train.x.reshape(-1, 1)
        features = torch.cat([samples, torch.ones_like(samples)], dim=1)
        return fit(layer, features, train.y.reshape(-1), metric(samples))

    direct = torch.as_tensor(rng.normal(size=2)).requires_grad_()
    with torch.no_grad():
        before = line()
    _descend(train, lambda: direct, [direct], 10 * settings.lr, settings, context, "line")
    _descend(train, line, list(metric.parameters()), settings.lr, settings, context, "metric")
    with torch.no_grad():
        after = line()
    metrics = {
        "decision_quality_before": test.quality(before),
        "decision_quality_after": test.quality(after),
        "decision_quality_direct": test.quality(direct.detach()),
        "decision_quality_ceiling": test.quality(torch.tensor([1.0, 0.0])),
        "squared_error_before": test.squared_error(before),
        "squared_error_after": test.squared_error(after),
        "squared_error_direct": test.squared_error(direct.detach()),
    }
    note = "ceiling: any rising line, the best that a line can do; direct: the line itself trained on decisions"
    return Outcome(metrics, [note], lambda figure: _draw(figure, metric, before, after))


def _descend(
    task: Task,
    line: Callable[[], Line],
    parameters: list[torch.Tensor],
    lr: float,
    settings: Settings,
    context: Context,
    label: str,
) -> None:
    """Improves smoothed decisions by Adam, through the line and all that it depends on."""
    choose, optimizer = choice_layer(ITEMS, settings.smoothing), torch.optim.Adam(parameters, lr)
    for _ in context.track(range(settings.steps), label):
        optimizer.zero_grad()
        slope, intercept = line()
        (choice,) = choose(slope * task.x + intercept)
        (-(choice * task.y).sum(dim=1).mean()).backward()
        optimizer.step()


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
    {"ci": Settings(20, 400, 100, 30), "full": Settings()},
)

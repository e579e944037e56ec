"""Soft top-k, the limited multi-label projection (LML): a cone layer, and a special case by bracketing.

References: Amos, Koltun and Kolter (2019), The limited multi-label projection layer; https://github.com/locuslab/lml.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import torch
from jaxtyping import Float

from cvxlayers.torch import CvxpyLayer
from examples.experiment import Context, Experiment, Outcome

# From the author's repository: y for one x, k = 2.
README_X = (-4.0695, 10.8666, 13.0867, -7.1431, -14.7220)
README_Y = (5.8745e-04, 9.9945e-01, 9.9994e-01, 2.7187e-05, 1.3897e-08)

Batch = Float[torch.Tensor, "*batch n"]


def top_k_layer(n: int, k: int) -> CvxpyLayer:
    """Returns the layer x ↦ argmin −xᵀy − H(y) − H(1 − y) over Σy = k."""
    x, y = cp.Parameter(n), cp.Variable(n)
    entropy = cp.sum(cp.entr(y)) + cp.sum(cp.entr(1 - y))
    return CvxpyLayer(cp.Problem(cp.Minimize(-x @ y - entropy), [cp.Zero(cp.sum(y) - k)]), [x], [y])


class _TopK(torch.autograd.Function):
    """y = sigmoid(x + ν) with Σy = k: ν by halving an interval, dx = h (dy − hᵀdy / 1ᵀh) with h = y (1 − y)."""

    @staticmethod
    def forward(ctx: Any, x: Batch, k: int) -> Batch:
        descending = x.sort(dim=-1, descending=True).values
        low, high = -descending[..., k - 1 : k] - 7, -descending[..., k : k + 1] + 7
        for _ in range(60):
            middle = (low + high) / 2
            above = torch.sigmoid(x + middle).sum(dim=-1, keepdim=True) > k
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        y = torch.sigmoid(x + (low + high) / 2)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Any, None]:
        (y,), (dy,) = ctx.saved_tensors, grad_outputs
        h = y * (1 - y)
        return h * (dy - (h * dy).sum(-1, keepdim=True) / h.sum(-1, keepdim=True)), None


def top_k(x: Batch, k: int) -> Batch:
    """Returns the soft top-k of the last axis by bracketing, with its gradient."""
    (y,) = (_TopK.apply(x, k),)
    return y


@dataclass(frozen=True)
class Settings:
    """Sizes of the race: classes, how many are chosen, items of a batch, and repetitions to take the median of."""

    classes: int = 100
    chosen: int = 5
    batch: int = 128
    repeats: int = 5


def run(settings: Settings, context: Context) -> Outcome:
    """Compares the cone layer with the special case: values, gradients and time."""
    generator = torch.Generator().manual_seed(context.seed)
    x = torch.randn(settings.batch, settings.classes, dtype=torch.float64, generator=generator)
    weights = torch.randn(x.shape, dtype=torch.float64, generator=generator)
    layer = top_k_layer(settings.classes, settings.chosen)
    by_cone, by_bracket = (lambda x: layer(x)[0]), (lambda x: top_k(x, settings.chosen))
    cone, bracket = _value_and_gradient(by_cone, x, weights), _value_and_gradient(by_bracket, x, weights)
    published = top_k_layer(5, 2)(torch.tensor(README_X, dtype=torch.float64))[0] - torch.tensor(README_Y)
    repeats = range(settings.repeats)
    seconds = [
        statistics.median(_seconds(method, x, weights) for _ in context.track(repeats, label))
        for method, label in ((by_cone, "cone layer"), (by_bracket, "bracketing"))
    ]
    metrics = {
        "value_error": (cone[0] - bracket[0]).abs().max().item(),
        "gradient_error": (cone[1] - bracket[1]).abs().max().item(),
        "published_error": published.abs().max().item(),
        "milliseconds_cone": 1e3 * seconds[0],
        "milliseconds_bracket": 1e3 * seconds[1],
    }
    notes = [f"bracketing is {seconds[0] / seconds[1]:.0f} times as fast, and does only this"]
    return Outcome(metrics, notes, lambda figure: _draw(figure, x, bracket[0], cone[0], metrics))


def _value_and_gradient(method: Callable[[Batch], Batch], x: Batch, weights: Batch) -> tuple[Batch, Batch]:
    x = x.detach().requires_grad_()
    y = method(x)
    (gradient,) = torch.autograd.grad((weights * y).sum(), x)
    return y.detach(), gradient


def _seconds(method: Callable[[Batch], Batch], x: Batch, weights: Batch) -> float:
    begin = time.perf_counter()
    _value_and_gradient(method, x, weights)
    return time.perf_counter() - begin


def _draw(figure: Any, x: Batch, bracket: Batch, cone: Batch, metrics: dict[str, float]) -> None:
    left, right = figure.subplots(1, 2, width_ratios=[2, 1])
    order = x[0].argsort()
    left.plot(x[0][order], bracket[0][order], color="tab:orange", label="bracketing")
    left.plot(x[0][order], cone[0][order], ".", color="tab:blue", label="cone layer")
    left.set(xlabel="score", ylabel="share taken", title="Soft top-k of one item")
    left.legend()
    right.bar(["cone layer", "bracketing"], [metrics["milliseconds_cone"], metrics["milliseconds_bracket"]])
    right.set(yscale="log", ylabel="milliseconds, value and gradient")


TOP_K = Experiment(
    "top-k",
    "Soft top-k by exponential cones, against a special case by bracketing.",
    run,
    {"ci": Settings(20, 3, 8, 2), "full": Settings()},
)

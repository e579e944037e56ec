"""Every small layer against its closed form, value and Jacobian, at random points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from examples.experiment import Context, Experiment, Outcome
from examples.layers.catalogue import catalogue


@dataclass(frozen=True)
class Settings:
    """How many random points each layer is compared at, and its size."""

    points: int = 20
    n: int = 6


def run(settings: Settings, context: Context) -> Outcome:
    """Returns the largest errors over all points, by layer."""
    generator = torch.Generator().manual_seed(context.seed)
    worst = {}
    for small in context.track(catalogue(settings.n), "layers"):
        errors = [small.errors(small.sample(generator)) for _ in range(settings.points)]
        worst[small.name] = tuple(max(column) for column in zip(*errors, strict=True))
    metrics = {
        f"{name}_{kind}": error for name, pair in worst.items() for kind, error in zip(_KINDS, pair, strict=True)
    }
    largest = max(metrics.values())
    return Outcome({"largest_error": largest, **metrics}, draw=lambda figure: _draw(figure, worst))


_KINDS = ("value", "jacobian")


def _draw(figure: Any, worst: dict[str, tuple[float, ...]]) -> None:
    axes = figure.subplots()
    for column, kind in enumerate(_KINDS):
        errors = [max(pair[column], 1e-17) for pair in worst.values()]
        axes.plot(errors, range(len(worst)), "os"[column], label=kind)
    axes.axvline(1e-7, color="0.5", linestyle="--", label="the bar")
    axes.set_yticks(range(len(worst)), [name.replace("_", " ") for name in worst])
    axes.set(
        xscale="log", xlabel="largest error against the closed form", title="Small layers are what they claim to be"
    )
    axes.grid(axis="y", color="0.9")
    axes.legend(loc="lower right")


CLOSED_FORMS = Experiment(
    "closed-forms",
    "Eleven small layers against their closed forms, value and Jacobian.",
    run,
    {"ci": Settings(2), "full": Settings()},
)

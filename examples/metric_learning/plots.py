"""Pictures that several experiments draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from examples.metric_learning.tables import TableOfData

COLOURS = ("tab:blue", "tab:orange")


def draw_gains(figure: Any, values: Mapping[str, Sequence[float]], fold: str, label: str) -> None:
    """Draws each fold as a line over the methods."""
    axes, names = figure.subplots(), list(values)
    for found in zip(*values.values(), strict=True):
        axes.plot(range(len(names)), found, "o-", color="0.7", markerfacecolor=COLOURS[0], markeredgecolor=COLOURS[0])
    means = [sum(found) / len(found) for found in values.values()]
    axes.plot(range(len(names)), means, "k_", markersize=30, label="mean")
    axes.set_xticks(range(len(names)), [name.replace("_", " ") for name in names])
    axes.set(ylabel=f"{label}, out of sample", title=f"A line a {fold}")
    axes.legend()


def draw_weights(axes: Any, table: TableOfData, weights: torch.Tensor) -> None:
    """Draws the weight of each sample over its target, both in the units of the table."""
    axes.scatter(table.y.numpy(), weights.numpy(), s=8, color=COLOURS[0], alpha=0.5)
    axes.axhline(1.0, color="0.6", linewidth=1)
    axes.set(xlabel=f"{table.target}, standardised", title="weight of a sample", ylim=(0, None))


def draw_bars(axes: Any, names: Sequence[str], values: torch.Tensor) -> None:
    """Draws what the price of each feature has become, from one."""
    axes.barh(range(len(names)), (values - 1).numpy(), left=1, color=COLOURS[1])
    axes.axvline(1.0, color="0.6", linewidth=1)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set(title="price of a feature, 1 at first")

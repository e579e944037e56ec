"""Pictures that several experiments share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from examples.control.tune import Tuned

COLOURS = ("#20639b", "#ed553b", "#3caea3", "#f6b343", "#5d576b")


def draw_curve(axes: Any, curve: Sequence[float], levels: Mapping[str, float], ylabel: str) -> None:
    """Draws a quantity over the epochs, with levels to compare it with as dashed lines."""
    axes.plot(curve, color=COLOURS[0], label="tuned")
    for colour, (name, level) in zip(COLOURS[1:], levels.items(), strict=False):
        axes.axhline(level, color=colour, linestyle="--", linewidth=1, label=name)
    axes.set_xlabel("epoch")
    axes.set_ylabel(ylabel)
    axes.legend(frameon=False)


def draw_fresh(axes: Any, tuned: Tuned) -> None:
    """Draws how the costs of fresh rollouts are spread, one box for each policy."""
    names = sorted(tuned.fresh, key=lambda name: -float(tuned.fresh[name].mean()))
    boxes = axes.boxplot([tuned.fresh[name].numpy() for name in names], vert=False, patch_artist=True, widths=0.6)
    for box, name in zip(boxes["boxes"], names, strict=True):
        box.set_facecolor(COLOURS[0] if name == "tuned" else "#d9d9d9")
        box.set_alpha(0.8)
    axes.set_yticks(range(1, len(names) + 1), names)
    axes.set_xlabel(f"mean cost of each of {len(tuned.fresh['tuned'])} fresh rollouts")
    for line in boxes["medians"]:
        line.set_color("black")

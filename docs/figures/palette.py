"""Colours for light and for dark pages, and the saving of a drawing in both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Colours:
    """What a drawing is drawn in.

    Attributes:
        ink: text, axes and outlines.
        faint: grids, and what is only context.
        fill: areas.
        one: the first thing a drawing compares, and so on.
        two: the second.
        three: the third.
    """

    ink: str
    faint: str
    fill: str
    one: str
    two: str
    three: str


THEMES = {
    "light": Colours("#24292f", "#b6bec8", "#dbe7f5", "#1f5fa8", "#c2410c", "#2f7d4f"),
    "dark": Colours("#e2e6ea", "#5d6671", "#22364f", "#7fb3ee", "#ffa36b", "#7ed3a0"),
}


def save(name: str, draw: Callable[[Colours], Figure]) -> None:
    """Draws for light and for dark pages, on no background, always to the same bytes."""
    for theme, colours in THEMES.items():
        rules: dict[Any, Any] = {
            "svg.hashsalt": name,
            "svg.fonttype": "path",
            "font.size": 9,
            "text.color": colours.ink,
            "axes.edgecolor": colours.ink,
            "axes.labelcolor": colours.ink,
            "xtick.color": colours.ink,
            "ytick.color": colours.ink,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.facecolor": "none",
            "legend.frameon": False,
        }
        with mpl.rc_context(rules):
            figure = draw(colours)
            figure.savefig(HERE / f"{name}.{theme}.svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
            plt.close(figure)

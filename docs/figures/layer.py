"""What a layer is: a batch of points goes in, solutions come out, derivatives come back."""

from __future__ import annotations

import cvxpy as cp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from cvxlayers import CvxpyLayer
from docs.figures.palette import Colours

LIMIT, SPEED = 1.0, 1.35


def projection() -> CvxpyLayer:
    """Projects a point of the plane on a disc cut by a line."""
    x, theta = cp.Variable(2), cp.Parameter(2)
    inside = [cp.norm(x) <= LIMIT, cp.sum(x) <= SPEED - 0.4]
    return CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - theta)), inside), [theta], [x])


def draw(colours: Colours) -> Figure:
    """Draws the three stages above, and the same three in numbers below."""
    figure, (top, below) = plt.subplots(2, 1, figsize=(7.2, 5.4), height_ratios=[1, 2.3])
    _flow(top, colours)
    _points(below, colours)
    figure.tight_layout(h_pad=0.4)
    return figure


def _flow(axes: Axes, colours: Colours) -> None:
    axes.set(xlim=(0, 10), ylim=(0, 3))
    axes.axis("off")
    boxes = [
        (0.1, 2.3, "parameters θ", "a batch of tensors,\nfrom data or a network"),
        (3.65, 2.7, "the layer", "x*(θ) = argmin f(x, θ)\nsubject to g(x, θ) ≤ 0"),
        (7.6, 2.3, "solutions x*", "a batch of tensors,\ninto a loss"),
    ]
    for left, width, title, text in boxes:
        box = FancyBboxPatch(
            (left, 0.35), width, 2.2, boxstyle="round,pad=0.02,rounding_size=0.15", fc=colours.fill, ec=colours.one
        )
        axes.add_patch(box)
        axes.text(left + width / 2, 2.1, title, ha="center", va="center", weight="bold", fontsize=10)
        axes.text(left + width / 2, 1.1, text, ha="center", va="center", fontsize=8.5)
    for left, right in ((2.45, 3.6), (6.4, 7.55)):
        axes.annotate(
            "", (right, 1.85), (left, 1.85), arrowprops={"arrowstyle": "-|>", "color": colours.one, "lw": 1.6}
        )
        axes.annotate("", (left, 1.0), (right, 1.0), arrowprops={"arrowstyle": "-|>", "color": colours.two, "lw": 1.6})
    axes.text(3.02, 2.05, "solve", ha="center", color=colours.one)
    axes.text(3.02, 0.6, "∂loss/∂θ", ha="center", color=colours.two)
    axes.text(6.98, 2.05, "return", ha="center", color=colours.one)
    axes.text(6.98, 0.6, "∂loss/∂x*", ha="center", color=colours.two)


def _points(axes: Axes, colours: Colours) -> None:
    layer = projection()
    angles = np.linspace(0, 2 * np.pi, 22, endpoint=False) + 0.1
    theta = np.stack([2.0 * np.cos(angles), 1.3 * np.sin(angles)], axis=1)
    (solved,) = layer(theta)
    turn = 0.35 * np.stack([-2.0 * np.sin(angles), 1.3 * np.cos(angles)], axis=1)
    (moved,), _ = layer.jvp([theta], [turn])
    circle = np.linspace(0, 2 * np.pi, 400)
    disc = np.stack([np.cos(circle), np.sin(circle)], axis=1)
    outline = layer(1.001 * disc)[0]
    axes.fill(*outline.T, fc=colours.fill, ec=colours.ink, lw=1)
    for start, end in zip(theta, solved, strict=True):
        axes.plot(*np.stack([start, end]).T, color=colours.faint, lw=0.8, zorder=1)
    arrows = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.004, "zorder": 3}
    axes.quiver(*theta.T, *turn.T, color=colours.one, alpha=0.8, **arrows)
    axes.quiver(*solved.T, *moved.T, color=colours.two, **arrows)
    axes.plot(*theta.T, "o", color=colours.one, ms=4, label="θ, and where it is pushed")
    axes.plot(*solved.T, "o", color=colours.two, ms=4, label="x*(θ), and where that moves it: the layer's derivative")
    axes.text(-0.1, -0.1, "what the constraints\nallow", ha="center", va="center", fontsize=8.5)
    axes.set(aspect="equal", xlim=(-2.9, 2.9), ylim=(-1.75, 1.75))
    axes.axis("off")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0.02), ncols=2, fontsize=8.5)

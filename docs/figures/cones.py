"""The six cones, and what the derivative of a projection on the second-order cone looks like."""

from __future__ import annotations

from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from cvxlayers.cones import Cone, Exponential, NonNegative, Power, SecondOrder, Semidefinite
from docs.figures.palette import Colours

# A plane through each cone: its title, the cone, and what a point (a, b) of the plane is in the cone's own coordinates.
Embedding = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, ...]]
_ROOT2 = np.sqrt(2.0)
SLICES: list[tuple[str, Cone, Embedding]] = [
    ("nonnegative: a ≥ 0, b ≥ 0", NonNegative(2), lambda a, b: (a, b)),
    ("second-order: |a| ≤ b", SecondOrder(3), lambda a, b: (b, a, 0 * a)),
    ("semidefinite: [[1, a], [a, b]]", Semidefinite(2), lambda a, b: (1 + 0 * a, _ROOT2 * a, b)),
    ("exponential: exp(a) ≤ b", Exponential(), lambda a, b: (a, 1 + 0 * a, b)),
    ("power: |a| ≤ √b", Power((0.5,)), lambda a, b: (b, 1 + 0 * a, a)),
]


def draw_cones(colours: Colours) -> Figure:
    """Draws a plane through each cone, and points of it with their projections."""
    figure, grid = plt.subplots(2, 3, figsize=(7.2, 4.9))
    for axes, (title, cone, embed) in zip(grid.flat, SLICES, strict=False):
        _slice(axes, title, cone, embed, colours)
    _zero(grid.flat[5], colours)
    figure.tight_layout()
    return figure


def _slice(axes: Axes, title: str, cone: Cone, embed: Embedding, colours: Colours) -> None:
    a, b = np.meshgrid(np.linspace(-2, 2, 201), np.linspace(-2, 2, 201))
    points = np.stack(embed(a, b), axis=-1)
    distance = np.linalg.norm(points - cone.project(points), axis=-1)
    shades = LinearSegmentedColormap.from_list("distance", [colours.fill, colours.fill])
    axes.contourf(a, b, distance, levels=[-1, 1e-9], cmap=shades)
    axes.contour(a, b, distance, levels=[1e-3], colors=[colours.one], linewidths=1.4)
    levels = [0.4, 0.8, 1.2, 1.6]
    axes.contour(a, b, distance, levels=levels, colors=[colours.faint], linewidths=0.7)
    axes.set(aspect="equal", xlim=(-2, 2), ylim=(-2, 2), xticks=[], yticks=[])
    axes.set_title(title, fontsize=8.5)
    axes.set_xlabel("a")
    axes.set_ylabel("b")


def _zero(axes: Axes, colours: Colours) -> None:
    axes.plot([0], [0], "o", color=colours.one)
    a, b = np.meshgrid(np.linspace(-2, 2, 101), np.linspace(-2, 2, 101))
    axes.contour(a, b, np.hypot(a, b), levels=[0.4, 0.8, 1.2, 1.6], colors=[colours.faint], linewidths=0.7)
    axes.set(aspect="equal", xlim=(-2, 2), ylim=(-2, 2), xticks=[], yticks=[])
    axes.set_title("zero: a = b = 0", fontsize=8.5)
    axes.set_xlabel("a")
    axes.set_ylabel("b")


def draw_projection(colours: Colours) -> Figure:
    """Draws projections on the second-order cone in its plane, and the eigenvalues of their derivatives."""
    cone = SecondOrder(3)
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.3))
    edge = np.array([0.0, 2.4])
    left.fill_between([-2.4, 0, 2.4], [2.4, 0, 2.4], 2.4, color=colours.fill)
    left.fill_between([-2.4, 0, 2.4], [-2.4, 0, -2.4], -2.4, color=colours.faint, alpha=0.35)
    left.plot(np.concatenate([-edge[::-1], edge]), np.concatenate([edge[::-1], edge]), color=colours.one)
    for z, t in ((1.8, -0.6), (1.9, 0.8), (-1.2, 0.2), (-0.6, 1.6), (0.5, -1.6), (-1.9, -1.2)):
        t_new, z_new = cone.project(np.array([t, z, 0.0]))[:2]
        left.annotate("", (z_new, t_new), (z, t), arrowprops={"arrowstyle": "-|>", "color": colours.two, "lw": 1.2})
        left.plot([z], [t], "o", color=colours.ink, ms=3)
        left.plot([z_new], [t_new], "o", color=colours.two, ms=4)
    left.text(0, 1.9, "K: stays, D = I", ha="center", fontsize=8.5)
    left.text(0, -2.15, "goes to 0, D = 0", ha="center", fontsize=8.5)
    left.set(aspect="equal", xlim=(-2.4, 2.4), ylim=(-2.4, 2.4), xlabel="z₁", ylabel="t", xticks=[0], yticks=[0])
    t = np.linspace(-2.4, 2.4, 481)
    points = np.stack([t, np.full_like(t, 1.2), np.zeros_like(t)], axis=-1)
    eigenvalues = np.sort(cone.derivative(points).eigenvalues, axis=-1)
    for k, (colour, name) in enumerate(
        zip((colours.one, colours.three, colours.two), ("smallest", "middle", "largest"), strict=True)
    ):
        right.plot(t, eigenvalues[:, k], color=colour, label=name, lw=2)
    right.set(xlabel="t, at z = (1.2, 0)", ylabel="eigenvalues of D = DΠ(t, z)", ylim=(-0.05, 1.05))
    right.legend(fontsize=8)
    figure.tight_layout()
    return figure

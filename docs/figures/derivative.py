"""A solution as a function of its parameter, and its derivative: smooth, with kinks, and with jumps."""

from __future__ import annotations

import warnings

import cvxpy as cp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cvxlayers import CvxpyLayer
from docs.figures.palette import Colours


def programs() -> list[tuple[str, CvxpyLayer, tuple[float, float]]]:
    """Three programs in one variable with one parameter, and the range that is drawn."""
    x, theta = cp.Variable(), cp.Parameter()
    smooth = cp.Problem(cp.Minimize(-cp.entr(x) - cp.entr(1 - x) - theta * x))
    kinked = cp.Problem(cp.Minimize((x - theta) ** 2), [x >= 0, x <= 1])
    linear = cp.Problem(cp.Minimize(-theta * x), [x >= 0, x <= 1])
    return [
        ("minimise −H(x) − θx: smooth", CvxpyLayer(smooth, [theta], [x]), (-5, 5)),
        ("minimise (x − θ)² on [0, 1]: kinks", CvxpyLayer(kinked, [theta], [x]), (-0.8, 1.8)),
        ("minimise −θx on [0, 1]: a jump", CvxpyLayer(linear, [theta], [x]), (-1, 1)),
    ]


def draw(colours: Colours) -> Figure:
    """Draws solutions above, derivatives below; for the last also the smoothed derivative."""
    figure, grid = plt.subplots(2, 3, figsize=(7.4, 3.9), sharex="col")
    for column, (title, layer, (low, high)) in enumerate(programs()):
        theta = np.linspace(low, high, 400)
        (solution,) = layer(theta)
        slope = _slope(layer, theta)
        above, below = grid[:, column]
        _pieces(above, theta, solution, colours.one)
        _pieces(below, theta, slope, colours.two, "exact")
        above.set_title(title, fontsize=8.5)
        below.set_xlabel("θ")
    x, theta = cp.Variable(), cp.Parameter()
    linear = cp.Problem(cp.Minimize(-theta * x), [x >= 0, x <= 1])
    smoothed = CvxpyLayer(linear, [theta], [x], derivative="smoothed", mu=0.05)
    at = np.linspace(-1, 1, 400)
    grid[1, 2].plot(at, _slope(smoothed, at), color=colours.three, ls="--", label='"smoothed"')
    grid[1, 2].set_ylim(top=4.2)
    grid[1, 2].legend(fontsize=8, loc="upper center", ncols=2)
    grid[0, 0].set_ylabel("x*(θ)")
    grid[1, 0].set_ylabel("dx*/dθ")
    figure.tight_layout()
    return figure


def _slope(layer: CvxpyLayer, theta: np.ndarray) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the exact derivative of the linear program is zero is what is drawn
        (slope,), _ = layer.vjp([theta], [np.ones_like(theta)])
    return slope


def _pieces(axes: Axes, theta: np.ndarray, values: np.ndarray, colour: str, label: str | None = None) -> None:
    """Draws without a line across jumps."""
    broken = values.copy()
    broken[1:][np.abs(np.diff(values)) > 0.4] = np.nan
    axes.plot(theta, broken, color=colour, lw=2, label=label)

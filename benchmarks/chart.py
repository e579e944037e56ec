"""The chart: for each row, how many times longer than this library the peers take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.report import ratio, standing
from benchmarks.run import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw(results: Sequence[Result], path: Path) -> None:
    """Draws the chart into a file."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 1.2 + 0.22 * len(results)), layout="constrained")
    plot(axes, results)
    axes.set_title("filled: the best accurate peer; diamond: a formula written by hand", fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def plot(
    axes: Axes,
    results: Sequence[Result],
    *,
    peer: str = "tab:blue",
    by_hand: str = "tab:green",
    line: str = "black",
    grid: str = "0.7",
) -> None:
    """Draws a dot for each accurate contender of each row, on a logarithmic scale; the best peer's is filled.

    Args:
        axes: where to draw.
        results: the rows, from above.
        peer: the colour of peers.
        by_hand: the colour of formulas written by hand.
        line: the colour of the line where both take the same time.
        grid: the colour of the grid.
    """
    for height, result in enumerate(results):
        best = standing(result).peer
        for score in result.scores:
            if not score.accurate or score.kind == "ours":
                continue
            marker, color = ("D", by_hand) if score.kind == "by hand" else ("o", peer)
            full = score is best or score.kind == "by hand"
            axes.plot(ratio(score), height, marker, color=color, mfc=color if full else "none", ms=5)
    axes.axvline(1, color=line, lw=0.8)
    axes.set_xscale("log")
    axes.set_yticks(range(len(results)), [result.row for result in results], fontsize=7)
    axes.set_ylim(len(results) - 0.5, -0.5)
    axes.grid(axis="x", which="both", lw=0.3, color=grid)
    axes.set_xlabel("seconds of a peer / seconds of cvxlayers, forward and backward")

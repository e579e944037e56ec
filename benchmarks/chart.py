"""The chart: for each row, how many times longer than this library the peers take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import ratio, standing
from benchmarks.run import Result


def draw(results: Sequence[Result], path: Path) -> None:
    """Draws a dot for each accurate contender of each row, on a logarithmic scale; the best peer's is filled."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 1.2 + 0.22 * len(results)), layout="constrained")
    for height, result in enumerate(results):
        best = standing(result).peer
        for score in result.scores:
            if not score.accurate or score.kind == "ours":
                continue
            by_hand = score.kind == "by hand"
            color = "tab:green" if by_hand else "tab:blue"
            full = score is best or by_hand
            axes.plot(ratio(score), height, "D" if by_hand else "o", color=color, mfc=color if full else "none", ms=5)
    axes.axvline(1, color="black", lw=0.8)
    axes.set_xscale("log")
    axes.set_yticks(range(len(results)), [result.row for result in results], fontsize=7)
    axes.set_ylim(len(results) - 0.5, -0.5)
    axes.grid(axis="x", which="both", lw=0.3)
    axes.set_xlabel("seconds of a peer / seconds of cvxlayers, forward and backward")
    axes.set_title("filled: the best accurate peer; diamond: a formula written by hand", fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)
